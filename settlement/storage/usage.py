"""Usage reports and records: the hot path's SQL (decision 14).

A report is written by three statements and one COPY BINARY, all in the transaction of its use case. `_ROW` is a row of
PostgreSQL's binary COPY format: the number of fields, then every field behind its length, big-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg.errors
import zstandard
from psycopg.types.json import Jsonb
from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert

from settlement.core.assessment import Assessed, RecordRefusal
from settlement.core.charging import Balance, PairCharge
from settlement.core.errors import NotFound
from settlement.storage import windows
from settlement.storage.database import Connection, array, driver, raw_cursor
from settlement.storage.journal import APPEND, Written
from settlement.storage.parties import Key, Party
from settlement.storage.tables import party, report_conflict, usage_report

COMPRESSION_LEVEL = 1

_EPOCH_2000 = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where PostgreSQL's binary timestamps begin."""

_COLUMNS = {
    "id": "V16",
    "provider_no": ">i4",
    "report_no": ">i8",
    "line": ">i4",
    "window_no": ">i4",
    "consumer_no": ">i4",
    "model_no": ">i4",
    "rates_version": ">i4",
    "at": ">i8",
    "charge_pico": ">i8",
}
_ROW = np.dtype(
    [("fields", ">i2")]
    + [part for name, kind in _COLUMNS.items() for part in ((f"{name}_length", ">i4"), (name, kind))]
)
COPY = f"COPY usage_record ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TAIL = b"\xff\xff"

_GATE = f"SELECT pg_advisory_xact_lock_shared({windows.GATE})"

_WINDOW = "SELECT no FROM \"window\" WHERE state = 'open'"

_STREAM = """
SELECT s.seq, s.digest, nextval(pg_get_serial_sequence('usage_report', 'no'))
FROM provider_stream s WHERE s.provider_no = %(provider)s FOR UPDATE
"""

_SIGNER = """
SELECT k.kid, k.party_no, k.public, k.valid_from, k.revoked_at,
       p.no, p.id, p.kind, p.name, p.status, p.account_id, p.created_at, (SELECT max(version) FROM rate_table)
FROM party_key k JOIN party p ON p.no = k.party_no WHERE k.kid = %(kid)s
"""

_SAME = """
SELECT report FROM usage_report
WHERE provider_no = %(provider)s AND (report = %(report)s OR seq = %(seq)s) ORDER BY (report = %(report)s) DESC LIMIT 1
"""

_ACCOUNTS = """
SELECT a.id, a.no, a.kind, a.party_no, a.settled - a.held, coalesce(c.carry, 0), p.status = 'active'
FROM account a JOIN party p ON p.no = a.party_no
LEFT JOIN pair_carry c ON c.provider_no = %(provider)s AND c.consumer_no = a.party_no
WHERE a.id = ANY(%(ids)s::text[])
ORDER BY a.no FOR UPDATE OF a
"""

_KNOWN = """
SELECT r.id FROM usage_record r JOIN unnest(%(ids)s::uuid[]) AS k(id) ON r.id = k.id WHERE r.provider_no = %(provider)s
"""

_STORE = """
WITH pairs AS (
    SELECT * FROM unnest(
        %(consumers)s::int[], %(records)s::bigint[], %(picos)s::numeric[], %(posted)s::bigint[],
        %(carried)s::int[], %(carries)s::int[]
    ) AS p(consumer_no, records, pico, posted, carried, carry)
), report AS (
    INSERT INTO usage_report (no, id, provider_no, report, seq, digest, window_no, journal_seq, received_at, kid,
                              signature, body, accepted, refusals, total, receipt)
    VALUES (%(no)s, %(id)s, %(provider)s, %(report)s, %(seq)s, %(digest)s, %(window)s, %(journal_seq)s, %(received_at)s,
            %(kid)s, %(signature)s, %(body)s, %(accepted)s, %(refusals)s, %(total)s, %(receipt)s)
), obligations AS (
    INSERT INTO obligation AS o (window_no, provider_no, consumer_no, records, carried_in, pico, posted)
    SELECT %(window)s, %(provider)s, consumer_no, records, carried, pico, posted FROM pairs
    ON CONFLICT (window_no, provider_no, consumer_no) DO UPDATE
    SET records = o.records + excluded.records, pico = o.pico + excluded.pico, posted = o.posted + excluded.posted
), carries AS (
    INSERT INTO pair_carry (provider_no, consumer_no, carry) SELECT %(provider)s, consumer_no, carry FROM pairs
    ON CONFLICT (provider_no, consumer_no) DO UPDATE SET carry = excluded.carry
)
UPDATE provider_stream SET seq = %(seq)s, digest = %(digest)s WHERE provider_no = %(provider)s
"""


class DuplicateRecord(Exception):
    """A record id of this provider is on file already: find out which, and try again without it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a report comes in: the open window, the end of its provider's chain, the row number that it takes.

    `on_file` is the provider's id of a report that has the same id or, if there is none, the same number.
    """

    window_no: int
    seq: int
    digest: bytes | None
    next_no: int
    on_file: str | None


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer's account and pair, locked."""

    account_no: int
    party_no: int
    balance: Balance


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report on file. `body` is the signed bytes as received."""

    no: int
    id: str
    provider_no: int
    report: str
    seq: int
    digest: bytes
    window_no: int
    journal_seq: int
    received_at: datetime
    kid: str
    signature: str
    body: bytes
    accepted: int
    refusals: Sequence[Mapping[str, Any]]
    total: int
    receipt: str


@dataclass(frozen=True, slots=True)
class NewReport:
    """What `store` writes of a report besides its records."""

    no: int
    id: str
    provider_no: int
    report: str
    seq: int
    digest: bytes
    window_no: int
    journal_seq: int
    received_at: datetime
    kid: str
    signature: str
    compressed: bytes
    accepted: int
    refusals: Sequence[Mapping[str, Any]]
    total: int
    receipt: str


def compress(body: bytes) -> bytes:
    """The body as it is stored."""
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(body)


def decompress(stored: bytes, limit: int = 64 * 1024 * 1024) -> bytes:
    """The body as it was received."""
    return zstandard.ZstdDecompressor().decompress(stored, max_output_size=limit)


async def signer(connection: Connection, kid: str) -> tuple[tuple[Key, Party] | None, int]:
    """The key with that thumbprint and its owner, and the newest rate table's version, in one statement."""
    async with raw_cursor(connection) as cursor:
        await cursor.execute(_SIGNER, {"kid": kid})
        row = await cursor.fetchone()
    return (None, 0) if row is None else ((Key(*row[:5]), Party(*row[5:12])), row[12] or 0)


async def line_up(connection: Connection, provider_no: int, report: str, seq: int) -> Place:
    """Enter the open window and lock the provider's chain: one report of a provider at a time.

    One round trip; the statements still run one after the other, so each sees what was committed before its own start.
    """
    connected = await driver(connection)
    gate, window, stream, same = (connected.cursor(binary=True) for _ in range(4))
    async with connected.pipeline():
        await gate.execute(_GATE)
        await window.execute(_WINDOW)
        await stream.execute(_STREAM, {"provider": provider_no})
        await same.execute(_SAME, {"provider": provider_no, "report": report, "seq": seq})
    opened, chain, on_file = await window.fetchone(), await stream.fetchone(), await same.fetchone()
    assert opened is not None, "there is always an open window"
    assert chain is not None, "a provider is registered together with its chain"
    return Place(opened[0], chain[0], chain[1], chain[2], on_file[0] if on_file else None)


async def find(connection: Connection, provider_no: int, report: str) -> StoredReport:
    """A report by the provider's own id. Raises NotFound ``unknown_report``."""
    query = select(usage_report).where(usage_report.c.provider_no == provider_no, usage_report.c.report == report)
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFound("unknown_report", "no such report of this provider")
    return _report(row)


async def consumer_numbers(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Row numbers of consumers by their ids; ids of nobody, or of a provider, are left out."""
    query = select(party.c.id, party.c.no).where(party.c.id.in_(ids), party.c.kind == "consumer")
    return {row.id: row.no for row in await connection.execute(query)}


async def lock_accounts(
    connection: Connection, provider: Party, consumers: Iterable[str]
) -> tuple[int, dict[str, Consumer]]:
    """Lock the provider's account and the consumers', in the one order that everybody locks in.

    Returns the provider's account number and the consumers with what they may spend; unknown ids are left out.
    """
    async with raw_cursor(connection) as cursor:
        await cursor.execute(_ACCOUNTS, {"provider": provider.no, "ids": [provider.id, *consumers]})
        rows = await cursor.fetchall()
    own = next(row[1] for row in rows if row[0] == provider.id)
    found = {row[0]: Consumer(row[1], row[3], Balance(row[4], row[5], row[6])) for row in rows if row[2] == "consumer"}
    return own, found


async def known_lines(connection: Connection, provider_no: int, assessed: Assessed) -> frozenset[int]:
    """The lines whose record id this provider has been paid for before."""
    ids = [value.tobytes() for value in assessed.ids]
    async with raw_cursor(connection) as cursor:
        texts = [value.hex() for value in ids]
        await cursor.execute(_KNOWN, {"provider": provider_no, "ids": texts})
        known = {row[0].bytes for row in await cursor.fetchall()}
    return frozenset(line for line, value in enumerate(ids) if value in known)


def copy_rows(
    assessed: Assessed,
    accepted: npt.NDArray[np.bool_],
    *,
    provider_no: int,
    report_no: int,
    window_no: int,
    consumer_numbers: Sequence[int],
    model_numbers: Sequence[int],
) -> bytes:
    """The accepted records as the body of a COPY BINARY."""
    lines = np.flatnonzero(accepted)
    rows = np.empty(len(lines), _ROW)
    rows["fields"] = len(_COLUMNS)
    for column, kind in _COLUMNS.items():
        rows[f"{column}_length"] = np.dtype(kind).itemsize
    rows["id"] = assessed.ids[lines].view("V16").ravel()
    rows["provider_no"] = provider_no
    rows["report_no"] = report_no
    rows["line"] = lines
    rows["window_no"] = window_no
    rows["consumer_no"] = np.array(consumer_numbers, np.int32)[assessed.consumer_codes[lines]]
    rows["model_no"] = np.array(model_numbers, np.int32)[assessed.model_codes[lines]]
    rows["rates_version"] = assessed.versions[lines]
    rows["at"] = assessed.at[lines] - _EPOCH_2000
    rows["charge_pico"] = assessed.pico[lines]
    return _COPY_HEAD + rows.tobytes() + _COPY_TAIL


async def copy_records(connection: Connection, rows: bytes) -> None:
    """Write records by COPY. Raises DuplicateRecord when an id is on file; the transaction is lost then."""
    async with raw_cursor(connection) as cursor:
        try:
            async with cursor.copy(COPY) as copy:
                await copy.write(rows)
        except psycopg.errors.UniqueViolation:
            raise DuplicateRecord from None


async def store(
    connection: Connection,
    written: Written,
    report: NewReport,
    pairs: Sequence[PairCharge],
    consumers: Mapping[str, Consumer],
) -> None:
    """Write the journal entry, the report, what each pair owes and carries, and move the provider's chain on."""
    found = [consumers[pair.consumer] for pair in pairs]
    values = {
        "consumers": array(consumer.party_no for consumer in found),
        "records": array(pair.records for pair in pairs),
        "picos": array(pair.pico for pair in pairs),
        "posted": array(pair.posted for pair in pairs),
        "carried": array(consumer.balance.carry for consumer in found),
        "carries": array(pair.carry for pair in pairs),
        "no": report.no,
        "id": report.id,
        "provider": report.provider_no,
        "report": report.report,
        "seq": report.seq,
        "digest": report.digest,
        "window": report.window_no,
        "journal_seq": report.journal_seq,
        "received_at": report.received_at,
        "kid": report.kid,
        "signature": report.signature,
        "body": report.compressed,
        "accepted": report.accepted,
        "refusals": Jsonb(list(report.refusals)),
        "total": report.total,
        "receipt": report.receipt,
    }
    connected = await driver(connection)
    async with connected.cursor() as entry, connected.cursor() as rest, connected.pipeline():
        await entry.execute(APPEND, written.values)
        await rest.execute(_STORE, values)


def refusal_document(refusal: RecordRefusal) -> dict[str, Any]:
    """A refusal as it is stored and answered: where, why, and in words."""
    return {
        "line": refusal.line,
        "pointer": f"/records/{refusal.line}",
        "code": refusal.code,
        "detail": refusal.detail,
    }


async def keep_conflict(
    connection: Connection,
    *,
    provider_no: int,
    report: str,
    seq: int,
    digest: bytes,
    received_at: datetime,
    kid: str,
    signature: str,
    body: bytes,
) -> None:
    """Keep a second signed body for an id or number that is taken: the evidence of an equivocation."""
    values = {
        "provider_no": provider_no,
        "report": report,
        "seq": seq,
        "digest": digest,
        "received_at": received_at,
        "kid": kid,
        "signature": signature,
        "body": compress(body),
    }
    await connection.execute(insert(report_conflict).values(values).on_conflict_do_nothing())


def _report(row: Row[Any]) -> StoredReport:
    values = {name: getattr(row, name) for name in StoredReport.__slots__ if name != "body"}
    return StoredReport(**values, body=decompress(row.body))
