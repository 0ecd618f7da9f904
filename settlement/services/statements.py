"""`statement/1`: all that a party needs to recompute its window alone (docs/reference/statement.md)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from settlement.core import canonical, times
from settlement.core.checkpoints import record_salt
from settlement.core.errors import Conflict
from settlement.core.units import PICO_PER_MICRO, decimal_text
from settlement.services import offers, proofs, service_keys
from settlement.services.context import Context
from settlement.storage import checkpoints, parties, windows
from settlement.storage import statements as storage
from settlement.storage.database import Connection
from settlement.storage.parties import Party
from settlement.storage.windows import Window

Document = dict[str, Any]

_SETTLED = frozenset({"netted", "checkpointed", "planned"})
_COLUMNS = (
    "record", "at", "provider", "consumer", "model", "operation", "tier", "outcome", "meters", "rates", "charge_cu",
    "report", "line", "journal_seq",
)  # fmt: skip


async def statement(context: Context, party: str, window_no: int) -> Document:
    """A party's statement of a window that is netted: records, charges, balances, deposits, position, payouts, proof.

    Raises NotFound for an unknown party or window, Conflict ``window_not_netted``.
    """
    async with context.database.read() as connection:
        owner = await parties.get(connection, party)
        window = await windows.get(connection, window_no)
        if window.state not in _SETTLED or window.closed_at is None or window.last_seq is None:
            raise Conflict("window_not_netted", f"{window.id} is {window.state}; statements come after its netting")
        stored = await checkpoints.find(connection, window_no)
        records = await _records(connection, window, owner)
        found = await storage.position(connection, window_no, owner.no)
        document = {
            "type": "statement/1",
            "party": owner.id,
            "party_kind": owner.kind,
            "window": window.no,
            "opened_at": times.text(window.opened_at),
            "closed_at": times.text(window.closed_at),
            "first_seq": window.first_seq,
            "last_seq": window.last_seq,
            **await _account(connection, window, owner),
            "records": records,
            "pairs": [_pair(row) for row in await storage.pairs(connection, window_no, owner.no)],
            "deposits": await _deposits(connection, window, owner),
            "position": None if found is None else _position(found),
            "payouts": [_payout(row) for row in await storage.payouts(connection, window_no, owner.no)],
            "rate_tables": await _tables(connection, {record["rates"] for record in records}),
            "offers": await offers.documents(connection, {record["provider"] for record in records}, window.closed_at),
            "checkpoint": None
            if stored is None
            else {
                "window": window_no,
                "digest": canonical.digest(stored.document),
                "document": stored.document.decode(),
                "signatures": list(stored.signatures),
            },
            **await service_keys.credentials(connection, None if stored is None else stored.signatures),
        }
    proof = None
    if stored is not None and found is not None:
        proof = await proofs.position_proof(context, window_no, found["party"])
    return document | {"position_proof": proof}


def as_csv(document: Mapping[str, Any]) -> str:
    """A statement's records as CSV with a header row; charges in CU with all their decimal places.

    Text that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for entry in document["records"]:
        record = entry["record"]
        values = {**record, **entry, "record": record["id"], "meters": json.dumps(record["meters"], sort_keys=True)}
        values["charge_cu"] = decimal_text(int(entry["charge_pico"]), 12)
        writer.writerow([_cell(values[column]) for column in _COLUMNS])
    return out.getvalue()


def _cell(value: object) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


async def _records(connection: Connection, window: Window, owner: Party) -> list[Document]:
    found = []
    async for report in storage.reports(connection, window.no, owner.no):
        signed = json.loads(report.body)["records"]
        found += [
            {
                "record": signed[line.line],
                "provider": report.provider,
                "report": f"sha256:{report.digest.hex()}",
                "line": line.line,
                "journal_seq": report.journal_seq,
                "rates": line.rates,
                "charge_pico": str(line.charge_pico),
                "salt": None if line.key is None else record_salt(line.key, line.record_id).hex(),
            }
            for line in report.lines
        ]
    return found


async def _account(connection: Connection, window: Window, owner: Party) -> Document:
    assert window.last_seq is not None
    opening = await storage.opening(connection, owner.no, window.first_seq)
    posted = await storage.postings(connection, owner.no, window.first_seq, window.last_seq)
    return {
        "opening": str(opening),
        "postings": [
            {
                "journal_seq": each.seq,
                "kind": each.kind,
                "subject": each.subject,
                "at": times.text(each.at),
                "amount": str(each.amount),
            }
            for each in posted
        ],
        "closing": str(opening + sum(each.amount for each in posted)),
    }


def _pair(row: Mapping[str, Any]) -> Document:
    carried_out = row["carried_in"] + int(row["pico"]) - row["posted"] * PICO_PER_MICRO
    return {
        "consumer": row["consumer"],
        "provider": row["provider"],
        "records": row["records"],
        "carried_in": row["carried_in"],
        "pico": str(row["pico"]),
        "posted": str(row["posted"]),
        "carried_out": carried_out,
    }


async def _deposits(connection: Connection, window: Window, owner: Party) -> list[Document]:
    assert window.last_seq is not None
    return [
        {
            "id": row["id"],
            "journal_seq": row["seq"],
            "chain": row["chain"],
            "tx": row["tx"],
            "index": row["tx_index"],
            "asset": row["asset"],
            "amount": str(row["amount"]),
            "micro_per_unit": row["micro_per_unit"],
            "credited": str(row["credited"]),
            "closed_at": times.text(row["closed_at"]),
        }
        for row in await storage.deposits(connection, owner.no, window.first_seq, window.last_seq)
    ]


def _position(row: Mapping[str, Any]) -> Document:
    amounts = {name: str(row[name]) for name in ("spent", "earned", "net", "netted", "payout", "amount")}
    return {
        "party": row["party"],
        "linked": row["linked"],
        **amounts,
        "chain": row["chain"],
        "asset": row["asset"],
        "salt": row["salt"].hex(),
    }


def _payout(row: Mapping[str, Any]) -> Document:
    return {
        "id": row["id"],
        "chain": row["chain"],
        "asset": row["asset"],
        "amount": str(row["amount"]),
        "micro": str(row["micro"]),
        "address": row["address"],
        "state": row["state"],
        "tx": row["tx_id"],
        "ledger": row["ledger"],
    }


async def _tables(connection: Connection, versions: set[int]) -> list[Document]:
    return [
        {
            "version": row["version"],
            "digest": f"sha256:{row['digest'].hex()}",
            "document": row["document"].decode(),
            "signatures": row["signatures"],
        }
        for row in await storage.rate_tables(connection, sorted(versions))
    ]
