"""Retention: which windows have left the database, the door by which they leave, and salts that were erased."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg.errors
from sqlalchemy import Row, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from settlement.core.errors import Broken
from settlement.storage.database import Connection
from settlement.storage.tables import erasure, party, record_salt, retention

ERASED_NAME = "erased"
"""What the name of a party is replaced by."""

_DUE = text("""
SELECT w.no FROM "window" w LEFT JOIN retention t ON t.window_no = w.no
WHERE t.window_no IS NULL AND w.state = 'planned' AND w.anchored_at IS NOT NULL AND w.closed_at <= :before
  AND NOT EXISTS (SELECT FROM dispute d WHERE d.window_no = w.no AND d.state IN ('open', 'answered'))
ORDER BY w.no
""")

_RETIRE = text("""
SELECT retire_window(:window, :records, :reports, :rows_digest, :records_digest, :reports_digest, :records_bytes,
                     :reports_bytes, :at)
""")

_CANDIDATES = text("""
SELECT r.window_no, r.journal_seq, r.received_at, r.digest, r.accepted, r.refusals, c.id AS provider
FROM retired_report f JOIN usage_report r ON r.no = f.report_no JOIN party c ON c.no = f.provider_no
WHERE c.id = :provider AND f.first_id <= :record AND f.last_id >= :record ORDER BY f.first_id DESC
""")

_SEQS = text("SELECT digest, journal_seq FROM usage_report WHERE window_no = :window AND accepted > 0")

_SALTS = text("""
SELECT s.window_no, p.id AS consumer, s.consumer_no, s.key FROM record_salt s
JOIN erasure e ON e.consumer_no = s.consumer_no JOIN party p ON p.no = s.consumer_no
JOIN "window" w ON w.no = s.window_no
WHERE s.key IS NOT NULL AND w.state = 'planned' AND w.anchored_at IS NOT NULL AND w.closed_at <= :before
  AND NOT EXISTS (SELECT FROM dispute d WHERE d.window_no = w.no AND d.consumer_no = s.consumer_no
                  AND d.state IN ('open', 'answered'))
ORDER BY s.window_no, s.consumer_no
""")


@dataclass(frozen=True, slots=True)
class Retired:
    """A window whose records and bodies are in two segments: digests of the files, their bytes, their rows."""

    window_no: int
    at: datetime
    records: int
    reports: int
    records_digest: bytes
    reports_digest: bytes
    records_bytes: int
    reports_bytes: int


@dataclass(frozen=True, slots=True)
class RetiredReport:
    """A report that may have the record that is looked for; `refused` are its refused lines."""

    window_no: int
    journal_seq: int
    received_at: datetime
    digest: bytes
    accepted: int
    refused: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SaltToErase:
    """A salt key whose consumer has asked, and whose time is over."""

    window_no: int
    consumer_no: int
    consumer: str
    key: bytes


async def find(connection: Connection, window_no: int) -> Retired | None:
    """What is on record of a window that has left; None when its rows are here."""
    row = (await connection.execute(select(retention).where(retention.c.window_no == window_no))).first()
    return None if row is None else _retired(row)


async def every(connection: Connection) -> list[Retired]:
    """All windows that have left, in order."""
    return [_retired(row) for row in await connection.execute(select(retention).order_by(retention.c.window_no))]


async def due(connection: Connection, before: datetime) -> list[int]:
    """Settled and anchored windows that were closed by a time and are here, none of them disputed now, in order."""
    return [row.no for row in await connection.execute(_DUE, {"before": before})]


async def retire(connection: Connection, left: Retired, rows_digest: bytes) -> None:
    """Delete the rows that the segments hold, and record it: the database compares all of them first.

    Raises Broken ``evidence_mismatch`` when they are not exactly those, or the window is not at rest.
    """
    values = {
        "window": left.window_no,
        "records": left.records,
        "reports": left.reports,
        "rows_digest": rows_digest,
        "records_digest": left.records_digest,
        "reports_digest": left.reports_digest,
        "records_bytes": left.records_bytes,
        "reports_bytes": left.reports_bytes,
        "at": left.at,
    }
    try:
        await connection.execute(_RETIRE, values)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.ObjectNotInPrerequisiteState):
            raise Broken("evidence_mismatch", str(error.orig).splitlines()[0]) from None
        raise


async def candidates(connection: Connection, provider: str, record: UUID) -> list[RetiredReport]:
    """The reports of a provider, of windows that have left, between whose smallest and largest id the record's is."""
    rows = await connection.execute(_CANDIDATES, {"provider": provider, "record": record})
    return [
        RetiredReport(
            row.window_no,
            row.journal_seq,
            row.received_at,
            row.digest,
            row.accepted,
            tuple(each["line"] for each in row.refusals),
        )
        for row in rows
    ]


async def journal_seqs(connection: Connection, window_no: int) -> Mapping[bytes, int]:
    """The journal numbers of a window's reports with charged records, by the digests of their bodies."""
    return {row.digest: row.journal_seq for row in await connection.execute(_SEQS, {"window": window_no})}


async def ask_erasure(connection: Connection, party_no: int, at: datetime, reason: str) -> bool:
    """Record that a consumer is to be forgotten, once, and replace its name; False when it was asked before."""
    values = {"consumer_no": party_no, "at": at, "reason": reason}
    asked = insert(erasure).values(values).on_conflict_do_nothing().returning(erasure.c.consumer_no)
    new = (await connection.execute(asked)).first() is not None
    await connection.execute(update(party).where(party.c.no == party_no).values(name=ERASED_NAME))
    return new


async def asked_at(connection: Connection, party_no: int) -> datetime:
    """When a consumer asked to be forgotten, which it has."""
    found: datetime = (
        await connection.execute(select(erasure.c.at).where(erasure.c.consumer_no == party_no))
    ).scalar_one()
    return found


async def erasures(connection: Connection) -> Sequence[tuple[str, datetime, str]]:
    """Who has asked, when, and why: (consumer, time, reason), oldest first."""
    query = select(party.c.id, erasure.c.at, erasure.c.reason).join(party, party.c.no == erasure.c.consumer_no)
    return [(row.id, row.at, row.reason) for row in await connection.execute(query.order_by(erasure.c.at))]


async def salts_to_erase(connection: Connection, before: datetime) -> list[SaltToErase]:
    """The keys that are still here of consumers who asked, of settled windows that were closed by a time."""
    rows = await connection.execute(_SALTS, {"before": before})
    return [SaltToErase(row.window_no, row.consumer_no, row.consumer, row.key) for row in rows]


async def erase_salt(connection: Connection, salt: SaltToErase, hashes: bytes) -> None:
    """Put the leaf hashes in the place of a key. For good: no copy of the key is kept."""
    query = update(record_salt).where(
        record_salt.c.window_no == salt.window_no, record_salt.c.consumer_no == salt.consumer_no
    )
    await connection.execute(query.values(key=None, hashes=hashes))


def _retired(row: Row[tuple[object, ...]]) -> Retired:
    return Retired(**row._mapping)
