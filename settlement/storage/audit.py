"""Everything an outsider needs, as rows in the order of the audit export. One snapshot, server-side cursors.

Each function yields lines: plain objects whose amounts are text, times RFC 3339, and bytes hexadecimal (base64 for
signed bodies and signed transactions). docs/reference/audit-export.md describes them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import zstandard
from sqlalchemy import RowMapping, func, select, text

from settlement.core import times
from settlement.core.signatures import PublicKey
from settlement.storage.database import Connection
from settlement.storage.tables import metadata
from settlement.storage.usage import decompress

Line = dict[str, Any]

_BATCH = 500
_BODIES = 8
"""Rows read at a time; few where a row can be megabytes."""

_QUERIES = {
    "service_key": "SELECT kid, public, journal_seq, document, signatures FROM service_key ORDER BY journal_seq",
    "halt": "SELECT no, at, code, detail, cleared_at, cleared_by FROM halt ORDER BY no",
    "party": "SELECT id, kind AS party_kind, name, status, account_id AS account, created_at FROM party ORDER BY no",
    "party_key": """
        SELECT k.kid, p.id AS party, k.public, k.valid_from, k.revoked_at
        FROM party_key k JOIN party p ON p.no = k.party_no ORDER BY k.created_at, k.kid""",
    "policy": "SELECT version, digest, effective_from, document, signatures FROM policy ORDER BY version",
    "rate_table": """
        SELECT version, digest, effective_from, published_at, document, signatures FROM rate_table ORDER BY version""",
    "offer": """
        SELECT p.id AS provider, o.version, o.digest, o.effective_from, o.received_at, o.kid, o.signature, o.body
        FROM offer o JOIN party p ON p.no = o.provider_no ORDER BY o.provider_no, o.version""",
    "governance_document": "SELECT digest, document FROM governance_document ORDER BY digest",
    "governance_entry": "SELECT no, payload, previous, hash FROM governance_entry ORDER BY no",
    "account": "SELECT id, kind AS account_kind, asset, settled::text, held::text FROM account ORDER BY no",
    "funding_intent": """
        SELECT i.id, p.id AS party, i.chain, i.asset, i.amount::text, i.reference::text, i.created_at
        FROM funding_intent i JOIN party p ON p.no = i.party_no ORDER BY i.no""",
    "report_conflict": """
        SELECT p.id AS provider, c.report, c.seq, c.digest, c.received_at, c.kid, c.signature, c.body
        FROM report_conflict c JOIN party p ON p.no = c.provider_no ORDER BY c.no""",
    "dispute": """
        SELECT d.id, c.id AS consumer, p.id AS provider, d.window_no AS "window", d.record::text, d.state,
               d.award::text, d.penalty::text, d.paid::text, d.penalty_paid::text
        FROM dispute d JOIN party c ON c.no = d.consumer_no JOIN party p ON p.no = d.provider_no ORDER BY d.no""",
    "erasure": """
        SELECT p.id AS consumer, e.at FROM erasure e JOIN party p ON p.no = e.consumer_no ORDER BY e.at, p.no""",
    "retention": """
        SELECT window_no AS "window", at, records, reports, records_digest, reports_digest FROM retention
        ORDER BY window_no""",
    "window": """
        SELECT no, state, opened_at, closed_at, first_seq, last_seq, anchored_at FROM "window" ORDER BY no""",
    "record_salt": """
        SELECT s.window_no AS "window", p.id AS consumer, s.key, s.hashes
        FROM record_salt s JOIN party p ON p.no = s.consumer_no WHERE s.window_no = :window ORDER BY p.no""",
    "usage_report": """
        SELECT r.id, p.id AS provider, r.report, r.seq, r.digest, r.window_no AS "window", r.journal_seq, r.received_at,
               r.kid, r.signature, r.body, r.accepted, r.refusals, r.total::text, r.receipt, ARRAY(
                   SELECT jsonb_build_object('line', c.line, 'hold', c.hold_id, 'left', c.bound::text)
                   FROM hold_capture c WHERE c.report_no = r.no ORDER BY c.line) AS captures
        FROM usage_report r JOIN party p ON p.no = r.provider_no ORDER BY r.journal_seq""",
    "deposit": """
        SELECT d.id, d.chain, d.tx, d.tx_index, d.asset, d.amount::text, d.sender,
               d.sender_reference::text, d.reference::text, d.ledger,
               d.closed_at, p.id AS party, d.credited::text, d.micro_per_unit, d.fixing, d.entry_seq
        FROM deposit d LEFT JOIN party p ON p.no = d.party_no ORDER BY d.entry_seq""",
    "payout": """
        SELECT o.id, o.kind AS payout_kind, o.window_no AS "window", p.id AS party, o.chain, o.asset, o.amount::text,
               o.micro::text, o.fee::text, o.micro_per_unit, o.fixing, o.own_rate, o.deposit_id AS deposit,
               o.address, o.reference::text,
               o.state, o.order_id AS "order", o.transfer, o.detail, o.created_at,
               e.seq AS planned_seq
        FROM payout o LEFT JOIN party p ON p.no = o.party_no
        LEFT JOIN journal_entry e
            ON e.kind IN ('payout_planned', 'withdrawal_planned', 'refund_planned') AND e.subject = o.id
        ORDER BY e.seq NULLS LAST, o.id""",
    "observation": "SELECT no, source, at, received_at, digest, signature, body FROM observation ORDER BY no",
    "fixing": """
        SELECT number, at, digest, document, signatures, observed, journal_seq FROM fixing ORDER BY number""",
    "demand": """
        SELECT number, digest, document, signatures, journal_seq FROM demand ORDER BY number""",
    "solvency": """
        SELECT window_no AS "window", journal_seq, document, signatures FROM solvency ORDER BY window_no""",
    "journal_entry": "SELECT seq, payload, previous, hash FROM journal_entry ORDER BY seq",
    "obligation": """
        SELECT o.window_no AS "window", p.id AS provider, c.id AS consumer, o.records, o.carried_in, o.pico::text,
               o.posted::text
        FROM obligation o JOIN party p ON p.no = o.provider_no JOIN party c ON c.no = o.consumer_no
        WHERE o.window_no = :window ORDER BY o.provider_no, o.consumer_no""",
    "position": """
        SELECT window_no AS "window", party, spent::text, earned::text, net::text, netted::text, payout::text, chain,
               asset, amount::text, salt, tranche::text, held_until
        FROM position WHERE window_no = :window ORDER BY party COLLATE "C" """,
    "checkpoint": """
        SELECT window_no AS "window", digest, document, signatures, liabilities FROM checkpoint
        WHERE window_no = :window""",
    "chain_order": """
        SELECT id, kind AS order_kind, chain, window_no AS "window", digest, step, state, slot_account, slot_kind,
               slot_number::text, attempts, detail, tx_id AS tx, ledger, ended_at, fee::text, created_at
        FROM chain_order ORDER BY id""",
    "attempt": """
        SELECT order_id AS "order", n, tx_id AS tx, aliases, blob, slot_account, slot_kind, slot_number::text, first,
               last, fee::text, signed_at FROM attempt ORDER BY order_id, n""",
    "attempt_event": """
        SELECT order_id AS "order", n, state, detail, at FROM attempt_event ORDER BY order_id, no""",
}

KINDS = tuple(_QUERIES)
"""The kinds of lines that are rows of a table."""

_DIGESTS = frozenset({"digest", "records_digest", "reports_digest"})
_BASE64 = frozenset({"body", "blob"})
_DOCUMENTS = frozenset({"document", "payload"})


async def stream(connection: Connection, kind: str, **values: int) -> AsyncGenerator[Line, None]:
    """The lines of one kind in their order; `window` picks one for kinds that come window by window."""
    batch = _BODIES if kind in ("usage_report", "report_conflict", "checkpoint", "governance_document") else _BATCH
    query = text(_QUERIES[kind]).execution_options(yield_per=batch)
    rows = await connection.stream(query, values)
    try:
        async for row in rows.mappings():
            yield {"kind": kind, **_line(kind, row)}
    finally:
        await rows.close()  # also when whoever reads stops early: the context manager of SQLAlchemy does not, then


async def counts(connection: Connection) -> dict[str, int]:
    """How many lines of each kind the export has."""
    found = {}
    for kind in KINDS:
        query = select(func.count()).select_from(metadata.tables[kind])
        found[kind] = int((await connection.execute(query)).scalar_one())
    return found


async def checkpoint_places(connection: Connection) -> list[tuple[int, int]]:
    """(journal number, window) of every checkpoint, by window: the entry whose balances it states."""
    query = text("SELECT window_no, document FROM checkpoint ORDER BY window_no")
    rows = await connection.execute(query)
    return [(int(json.loads(row.document)["journal"]["seq"]), row.window_no) for row in rows]


async def chains(connection: Connection) -> dict[str, tuple[str, str, str]]:
    """Network, treasury and fee asset of each chain on record."""
    rows = await connection.execute(text("SELECT chain, network, treasury, fee_asset FROM chain_state ORDER BY chain"))
    return {row.chain: (row.network, row.treasury, row.fee_asset) for row in rows}


def _line(kind: str, row: RowMapping) -> Line:
    line = {name: _value(kind, name, value) for name, value in row.items()}
    if kind in ("party_key", "service_key"):
        line["jwk"] = PublicKey(row["public"]).jwk()
        del line["public"]
    if kind == "checkpoint":
        line["liabilities"] = json.loads(zstandard.ZstdDecompressor().decompress(row["liabilities"]))
    return line


def _value(kind: str, name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return times.text(value)
    if not isinstance(value, bytes):
        return value
    if name in _DIGESTS:
        return f"sha256:{value.hex()}"
    if name in _DOCUMENTS:
        return value.decode()
    if name in _BASE64:
        packed = kind in ("usage_report", "report_conflict") and value  # of a window that has left there is nothing
        return b64encode(decompress(value) if packed else value).decode()
    return value.hex()
