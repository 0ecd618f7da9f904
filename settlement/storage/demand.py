"""Steps of demand, append-only, and what each follows from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, insert, select, text
from sqlalchemy.dialects.postgresql import distinct_on

from settlement.storage.database import Connection
from settlement.storage.tables import demand, offer, party, usage_report

_IN_FORCE = text("""
SELECT DISTINCT d.number FROM unnest(CAST(:times AS timestamptz[])) AS t(at) CROSS JOIN LATERAL (
    SELECT number FROM demand WHERE effective_from <= t.at ORDER BY effective_from DESC LIMIT 1) d ORDER BY 1
""")


@dataclass(frozen=True, slots=True)
class StoredDemand:
    """A step: canonical bytes, the service's signatures over them, and its journal entry."""

    number: int
    at: datetime
    effective_from: datetime
    until: datetime
    digest: bytes
    document: bytes
    signatures: Sequence[dict[str, str]]
    journal_seq: int


async def add(connection: Connection, made: StoredDemand) -> None:
    """Add the next step; its primary key lets one of two that are made at once win."""
    values = {name: getattr(made, name) for name in StoredDemand.__slots__}
    await connection.execute(insert(demand).values(values | {"signatures": list(made.signatures)}))


async def newest(connection: Connection, many: int = 1) -> list[StoredDemand]:
    """The last steps, the last one first."""
    return await _read(connection, select(demand).order_by(demand.c.number.desc()).limit(many))


async def in_force(connection: Connection, at: datetime) -> StoredDemand | None:
    """The last step that has come into force at a time, also when it has run out."""
    query = select(demand).where(demand.c.effective_from <= at).order_by(demand.c.effective_from.desc()).limit(1)
    return next(iter(await _read(connection, query)), None)


async def at_any(connection: Connection, times: Collection[datetime]) -> list[StoredDemand]:
    """Each step that is the last one in force at one of these times, in order."""
    if not times:
        return []
    numbers = [row.number for row in await connection.execute(_IN_FORCE, {"times": sorted(times)})]
    return await _read(connection, select(demand).where(demand.c.number.in_(numbers)).order_by(demand.c.number))


async def charged(connection: Connection, after: int) -> Mapping[str, int]:
    """What each provider charged in the journal behind an entry, in microCU, by id."""
    query = (
        select(party.c.id, func.sum(usage_report.c.total))
        .join(party, party.c.no == usage_report.c.provider_no)
        .where(usage_report.c.journal_seq > after)
        .group_by(party.c.id)
    )
    return {provider: int(total) for provider, total in await connection.execute(query)}


async def offers(connection: Connection, at: datetime) -> list[bytes]:
    """The body of each provider's offer in force at a time, by public id."""
    query = (
        select(party.c.id, offer.c.body)
        .join(party, party.c.no == offer.c.provider_no)
        .where(offer.c.effective_from <= at)
        .ext(distinct_on(party.c.id))
        .order_by(party.c.id, offer.c.effective_from.desc())
    )
    return [row.body for row in await connection.execute(query)]


async def _read(connection: Connection, query: Select[Any]) -> list[StoredDemand]:
    return [StoredDemand(*row) for row in await connection.execute(query)]
