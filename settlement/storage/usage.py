"""Usage reports and records: the hot path's SQL (decision 14).

A report is written by three statements and one COPY BINARY, all in the transaction of its use case. `_ROW` is a row of
PostgreSQL's binary COPY format: the number of fields, then every field behind its length, big-endian.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from settlement.core.charging import PairCharge
from settlement.core.errors import NotFound
from settlement.core.journal import Head
from settlement.storage import windows
from settlement.storage.database import Connection, array, driver, raw_cursor, texts
from settlement.storage.journal import LOCK_HEAD, Written, locked_head, send
from settlement.storage.parties import Key, Party
from settlement.storage.tables import party, report_conflict, usage_report

COMPRESSION_LEVEL = -1
"""Half the time of level 1 for 24 bytes a record instead of 15; segments that leave the database are packed tighter."""

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

_SIGNERS = """
SELECT k.kid, k.party_no, k.public, k.valid_from, k.revoked_at,
       p.no, p.id, p.kind, p.name, p.status, p.account_id, p.created_at, (SELECT max(version) FROM rate_table),
       (SELECT max(version) FROM offer WHERE provider_no = p.no)
FROM party_key k JOIN party p ON p.no = k.party_no WHERE k.kid = ANY(%(kids)s::text[])
"""

_STREAMS = """
SELECT s.provider_no, s.seq, s.digest FROM provider_stream s
WHERE s.provider_no IN (SELECT party_no FROM party_key WHERE kid = ANY(%(kids)s::text[]))
ORDER BY s.provider_no FOR UPDATE
"""

_NUMBERS = "SELECT nextval(pg_get_serial_sequence('usage_report', 'no')) FROM generate_series(1, %(count)s)"

_SAME = """
SELECT w.place - 1, r.report
FROM unnest(%(kids)s::text[], %(reports)s::text[], %(seqs)s::bigint[]) WITH ORDINALITY AS w(kid, report, seq, place)
JOIN party_key k ON k.kid = w.kid
CROSS JOIN LATERAL (
    SELECT u.report FROM usage_report u
    WHERE u.provider_no = k.party_no AND (u.report = w.report OR u.seq = w.seq)
    ORDER BY (u.report = w.report) DESC LIMIT 1
) r
"""

_ACCOUNTS = """
SELECT a.id, a.no, a.kind, a.party_no, a.settled - a.held, p.status = 'active'
FROM account a JOIN party p ON p.no = a.party_no
WHERE a.id = ANY(%(ids)s::text[])
ORDER BY a.no FOR UPDATE OF a
"""

_CARRIES = """
SELECT w.provider_no, c.id, o.carry
FROM unnest(%(providers)s::int[], %(consumers)s::text[]) AS w(provider_no, consumer)
JOIN party c ON c.id = w.consumer
CROSS JOIN LATERAL (
    SELECT (carried_in + pico - posted * 1000000::numeric)::int AS carry FROM obligation
    WHERE provider_no = w.provider_no AND consumer_no = c.no ORDER BY window_no DESC LIMIT 1
) o
"""

_KNOWN = """
SELECT r.id FROM usage_record r JOIN unnest(%(ids)s::uuid[]) AS k(id) ON r.id = k.id WHERE r.provider_no = %(provider)s
"""

_REPORT = """
INSERT INTO usage_report (no, id, provider_no, report, seq, digest, window_no, journal_seq, received_at, kid,
                          signature, body, accepted, refusals, total, receipt)
VALUES (%(no)s, %(id)s, %(provider)s, %(report)s, %(seq)s, %(digest)s, %(window)s, %(journal_seq)s, %(received_at)s,
        %(kid)s, %(signature)s, %(body)s, %(accepted)s, %(refusals)s, %(total)s, %(receipt)s)
"""

_CHAIN = "UPDATE provider_stream SET seq = %(seq)s, digest = %(digest)s WHERE provider_no = %(provider)s"

_OBLIGATIONS = """
INSERT INTO obligation AS o (window_no, provider_no, consumer_no, records, carried_in, pico, posted)
SELECT %(window)s, p.* FROM unnest(
    %(providers)s::int[], %(consumers)s::int[], %(records)s::bigint[], %(carried)s::int[],
    %(picos)s::numeric[], %(posted)s::bigint[]
) AS p(provider_no, consumer_no, records, carried_in, pico, posted)
ON CONFLICT (provider_no, consumer_no, window_no) DO UPDATE
SET records = o.records + excluded.records, pico = o.pico + excluded.pico, posted = o.posted + excluded.posted
"""


class DuplicateRecord(Exception):
    """A record id of this provider is on file already: find out which, and try again without it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a report comes in: the end of its provider's chain, and the row number that it takes.

    `on_file` is the provider's id of a report that has the same id or, if there is none, the same number.
    """

    seq: int
    digest: bytes | None
    report_no: int
    on_file: str | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What reports that come in together meet: the open window, who signed, and the locked ends of the chains."""

    window_no: int
    newest_rates: int
    newest_offers: Mapping[str, int]
    signers: Mapping[str, tuple[Key, Party]]
    chains: Mapping[int, tuple[int, bytes | None]]
    numbers: Sequence[int]
    on_file: Mapping[int, str]

    def place(self, number: int, provider_no: int) -> Place:
        """The place of the report that was asked for as number `number`."""
        seq, digest = self.chains[provider_no]
        return Place(seq, digest, self.numbers[number], self.on_file.get(number))


@dataclass(frozen=True, slots=True)
class Locked:
    """The accounts of providers and consumers, and the journal's head, locked; `available` goes down as is charged."""

    account_numbers: Mapping[str, int]
    party_numbers: Mapping[str, int]
    available: dict[str, int]
    active: Mapping[str, bool]
    carries: Mapping[tuple[int, str], int]
    head: Head
    signer: str | None

    def carry(self, provider_no: int, consumer: str) -> int:
        """The picoCU that the pair carries."""
        return self.carries.get((provider_no, consumer), 0)


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report on file. `body` is the signed bytes as received; empty once its window has left the database."""

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


async def arrive(connection: Connection, asked: Sequence[tuple[str, str, int]]) -> Arrival:
    """Enter the open window and lock the providers' chains; `asked` are (kid, report id, number).

    One round trip; the statements still run one after the other, so each sees what was committed before its own start.
    """
    kids = texts(kid for kid, _, _ in asked)
    connected = await driver(connection)
    signers, window, chains, numbers, same = (connected.cursor(binary=True) for _ in range(5))
    async with connected.pipeline():
        await signers.execute(_SIGNERS, {"kids": kids})
        await connected.execute(_GATE)
        await window.execute(_WINDOW)
        await chains.execute(_STREAMS, {"kids": kids})
        await numbers.execute(_NUMBERS, {"count": len(asked)})
        values = {
            "kids": kids,
            "reports": texts(report for _, report, _ in asked),
            "seqs": array(seq for *_, seq in asked),
        }
        await same.execute(_SAME, values)
    opened, found = await window.fetchone(), await signers.fetchall()
    assert opened is not None, "there is always an open window"
    return Arrival(
        window_no=opened[0],
        newest_rates=found[0][12] or 0 if found else 0,
        newest_offers={row[0]: row[13] or 0 for row in found},
        signers={row[0]: (Key(*row[:5]), Party(*row[5:12])) for row in found},
        chains={row[0]: (row[1], row[2]) for row in await chains.fetchall()},
        numbers=[row[0] for row in await numbers.fetchall()],
        on_file={row[0]: row[1] for row in await same.fetchall()},
    )


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


async def lock_accounts(connection: Connection, reports: Sequence[tuple[Party, Sequence[str]]]) -> Locked:
    """Lock the accounts of providers and their consumers, in the one order that everybody locks in, and then the head.

    Unknown ids are left out. What a pair carries is only changed by the provider's own reports, whose chain is locked.
    """
    ids = {provider.id for provider, _ in reports} | {name for _, consumers in reports for name in consumers}
    pairs = [(provider.no, name) for provider, consumers in reports for name in consumers]
    connected = await driver(connection)
    accounts, carries, head = (connected.cursor(binary=True) for _ in range(3))
    async with connected.pipeline():
        await accounts.execute(_ACCOUNTS, {"ids": texts(ids)})
        values = {"providers": array(number for number, _ in pairs), "consumers": texts(name for _, name in pairs)}
        await carries.execute(_CARRIES, values)
        await head.execute(LOCK_HEAD)
    rows = await accounts.fetchall()
    consumers = [row for row in rows if row[2] == "consumer"]
    found = await head.fetchone()
    return Locked(
        account_numbers={row[0]: row[1] for row in rows},
        party_numbers={row[0]: row[3] for row in rows},
        available={row[0]: row[4] for row in consumers},
        active={row[0]: row[5] for row in consumers},
        carries={(row[0], row[1]): row[2] for row in await carries.fetchall()},
        head=locked_head(found),
        signer=None if found is None else found[2],
    )


async def known_lines(connection: Connection, provider_no: int, assessed: Assessed) -> frozenset[int]:
    """The lines whose record id this provider has been paid for before."""
    ids = [value.tobytes() for value in assessed.ids]
    async with raw_cursor(connection) as cursor:
        texts = [value.hex() for value in ids]
        await cursor.execute(_KNOWN, {"provider": provider_no, "ids": texts})
        known = {row[0].bytes for row in await cursor.fetchall()}
    return frozenset(line for line, value in enumerate(ids) if value in known)


def record_rows(
    assessed: Assessed,
    accepted: npt.NDArray[np.bool_],
    *,
    provider_no: int,
    report_no: int,
    window_no: int,
    consumer_numbers: Sequence[int],
    model_numbers: Sequence[int],
) -> bytes:
    """The records of these lines as rows of a COPY BINARY."""
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
    return rows.tobytes()


async def copy_records(connection: Connection, rows: Sequence[bytes]) -> None:
    """Write records by one COPY. Raises DuplicateRecord when an id is on file; the transaction is lost then."""
    async with raw_cursor(connection) as cursor:
        try:
            async with cursor.copy(COPY) as copy:
                await copy.write(copy_body(rows))
        except psycopg.errors.UniqueViolation:
            raise DuplicateRecord from None


def copy_body(rows: Sequence[bytes]) -> bytes:
    """Rows with the head and tail of the COPY BINARY format."""
    return b"".join((_COPY_HEAD, *rows, _COPY_TAIL))


async def store(
    connection: Connection,
    written: Sequence[Written],
    reports: Sequence[tuple[NewReport, Sequence[PairCharge]]],
    locked: Locked,
    reserved: Mapping[int, int],
) -> None:
    """Write the journal entries, the reports, what each pair owes, and move the providers' chains on.

    `reserved` is by how much what holds reserve changes, by account number.
    """
    pairs = [(report.provider_no, pair) for report, owed in reports for pair in owed]
    connected = await driver(connection)
    async with connected.pipeline():
        await send(connected, written, reserved)
        for report, _ in reports:
            await connected.cursor().execute(_REPORT, _report_values(report))
            chain = {"seq": report.seq, "digest": report.digest, "provider": report.provider_no}
            await connected.cursor().execute(_CHAIN, chain)
        values = {
            "window": reports[0][0].window_no,
            "providers": array(number for number, _ in pairs),
            "consumers": array(locked.party_numbers[pair.consumer] for _, pair in pairs),
            "records": array(pair.records for _, pair in pairs),
            "carried": array(locked.carry(number, pair.consumer) for number, pair in pairs),
            "picos": array(pair.pico for _, pair in pairs),
            "posted": array(pair.posted for _, pair in pairs),
        }
        await connected.cursor().execute(_OBLIGATIONS, values)


def _report_values(report: NewReport) -> dict[str, Any]:
    return {
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
    return StoredReport(**values, body=decompress(row.body) if row.body else b"")
