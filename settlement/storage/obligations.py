"""Obligations: what each consumer owes each provider for a window, kept while reports come in, audited at the close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text

from settlement.storage.database import Connection
from settlement.storage.tables import obligation, party, usage_report, window

_MISMATCH = text("""
WITH recounted AS (
    SELECT provider_no, consumer_no, count(*) AS records, sum(charge_pico) AS pico
    FROM usage_record WHERE window_no = :window GROUP BY provider_no, consumer_no
), kept AS (
    SELECT provider_no, consumer_no, records, pico, posted, carried_in FROM obligation WHERE window_no = :window
)
SELECT provider_no, consumer_no FROM kept FULL JOIN recounted USING (provider_no, consumer_no)
WHERE kept.records IS DISTINCT FROM recounted.records OR kept.pico IS DISTINCT FROM recounted.pico
   OR kept.posted < 0 OR kept.posted <> div(kept.carried_in + kept.pico::numeric, 1000000)
ORDER BY provider_no, consumer_no LIMIT 1
""")

_UNPOSTED = text("""
WITH owed AS (
    SELECT party_no, sum(amount) AS amount FROM (
        SELECT provider_no AS party_no, posted AS amount FROM obligation WHERE window_no = :window
        UNION ALL
        SELECT consumer_no, -posted FROM obligation WHERE window_no = :window
    ) legs GROUP BY party_no HAVING sum(amount) <> 0
), booked AS (
    SELECT p.account_no, sum(p.amount) AS amount
    FROM journal_entry e JOIN posting p ON p.entry_seq = e.seq
    WHERE e.seq BETWEEN :first AND :last AND e.kind = 'usage'
    GROUP BY p.account_no HAVING sum(p.amount) <> 0
)
SELECT coalesce(a.id, booked.account_no::text)
FROM owed JOIN account a ON a.party_no = owed.party_no FULL JOIN booked ON booked.account_no = a.no
WHERE owed.amount IS DISTINCT FROM booked.amount
ORDER BY 1 LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Sums:
    """A window's usage: reports, records, exact picoCU, posted microCU."""

    reports: int
    records: int
    pico: int
    posted: int


async def by_party(connection: Connection, window_no: int) -> tuple[dict[str, int], dict[str, int]]:
    """What each consumer owes and what each provider is owed for a window, in microCU, by id.

    Summed here, so that the memory of a close grows with the parties and not with the pairs.
    """
    sides = []
    for side in (obligation.c.consumer_no, obligation.c.provider_no):
        query = (
            select(party.c.id, func.sum(obligation.c.posted))
            .join(party, party.c.no == side)
            .where(obligation.c.window_no == window_no)
            .group_by(party.c.id)
        )
        sides.append({name: int(amount) for name, amount in await connection.execute(query)})
    return sides[0], sides[1]


async def links(connection: Connection) -> dict[str, str]:
    """The consumer accounts that providers named as their own, each with the provider's id."""
    query = select(party.c.account_id, party.c.id).where(party.c.account_id.is_not(None))
    return {row.account_id: row.id for row in await connection.execute(query)}


async def mismatch(connection: Connection, window_no: int) -> tuple[int, int] | None:
    """The first (provider, consumer) row numbers whose kept obligation isn't the sum of its usage records.

    Records and picoCU are counted again from `usage_record`; posted must be the whole microCU of carry and picoCU.
    """
    # A row for each pair: in memory, where the server's 4 MiB would send the sums of a large window through files.
    await connection.execute(text("SET LOCAL work_mem = '64MB'"))
    row = (await connection.execute(_MISMATCH, {"window": window_no})).first()
    return None if row is None else (row.provider_no, row.consumer_no)


async def unposted(connection: Connection, window_no: int, first_seq: int, last_seq: int) -> str | None:
    """The first account whose usage postings in the window's journal entries aren't what its obligations say."""
    values = {"window": window_no, "first": first_seq, "last": last_seq}
    found: str | None = (await connection.execute(_UNPOSTED, values)).scalar_one_or_none()
    return found


async def sums(connection: Connection, window_no: int) -> Sums:
    """A window in numbers."""
    columns = (obligation.c.records, obligation.c.pico, obligation.c.posted)
    query = select(*[func.coalesce(func.sum(column), 0) for column in columns])
    records, pico, posted = (await connection.execute(query.where(obligation.c.window_no == window_no))).one()
    counted = select(func.count()).select_from(usage_report).where(usage_report.c.window_no == window_no)
    return Sums((await connection.execute(counted)).scalar_one(), int(records), int(pico), int(posted))


async def volumes(connection: Connection, first: datetime, last: datetime) -> Mapping[str, int]:
    """What each consumer was charged in the windows that closed from a time to another, in microCU."""
    query = (
        select(party.c.id, func.sum(obligation.c.posted))
        .join(window, window.c.no == obligation.c.window_no)
        .join(party, party.c.no == obligation.c.consumer_no)
        .where(window.c.closed_at >= first, window.c.closed_at <= last)
        .group_by(party.c.id)
    )
    return {consumer: int(posted) for consumer, posted in await connection.execute(query)}
