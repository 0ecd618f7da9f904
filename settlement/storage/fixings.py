"""Observations and fixings of the index, append-only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, insert, or_, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from settlement.storage.database import Connection
from settlement.storage.tables import fixing, observation

OBSERVING = 0x5E779
"""Advisory lock: one observation or fixing at a time."""


@dataclass(frozen=True, slots=True)
class StoredObservation:
    """An observation as it came."""

    source: str
    at: datetime
    received_at: datetime
    digest: bytes
    signature: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredFixing:
    """A fixing: canonical bytes, the service's signatures over them, and its place among observations and entries.

    `observed` is the last observation that came before it; `journal_seq` is None for one that no entry states.
    """

    number: int
    at: datetime
    digest: bytes
    document: bytes
    signatures: Sequence[dict[str, str]]
    frozen: str | None = None
    observed: int = 0
    journal_seq: int | None = None


async def lock(connection: Connection) -> None:
    """Until the transaction ends no other observation comes in and no other fixing is made: their order is one."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": OBSERVING})


async def observe(connection: Connection, found: StoredObservation) -> StoredObservation:
    """Keep an observation; one that the source has made at that time before stays, and is returned instead."""
    values = {name: getattr(found, name) for name in StoredObservation.__slots__}
    added = upsert(observation).values(values).on_conflict_do_nothing().returning(observation.c.no)
    if (await connection.execute(added)).first() is not None:
        return found
    query = select(observation).where(observation.c.source == found.source, observation.c.at == found.at)
    return _observation((await connection.execute(query)).one())


async def since(connection: Connection, at: datetime) -> list[StoredObservation]:
    """Every observation of that time or later, oldest first."""
    query = select(observation).where(observation.c.at >= at).order_by(observation.c.at, observation.c.no)
    return [_observation(row) for row in await connection.execute(query)]


async def add(connection: Connection, made: StoredFixing) -> None:
    """Add the next fixing; its primary key lets one of two that are made at once win."""
    values = {name: getattr(made, name) for name in StoredFixing.__slots__}
    await connection.execute(insert(fixing).values(values | {"signatures": list(made.signatures)}))


async def last_observed(connection: Connection) -> int:
    """The number of the last observation, 0 when there is none."""
    return int((await connection.execute(select(func.coalesce(func.max(observation.c.no), 0)))).scalar_one())


async def newest(connection: Connection) -> StoredFixing | None:
    """The last fixing."""
    return await _first(connection, select(fixing))


async def moved(connection: Connection) -> StoredFixing | None:
    """The last fixing whose sources could be trusted."""
    return await _first(connection, select(fixing).where(or_(fixing.c.frozen.is_(None), fixing.c.frozen.like("gap%"))))


async def journalled(connection: Connection, last_seq: int | None = None) -> StoredFixing | None:
    """The last fixing that the journal states, up to an entry: the one that converts."""
    query = select(fixing).where(fixing.c.journal_seq.is_not(None))
    return await _first(connection, query if last_seq is None else query.where(fixing.c.journal_seq <= last_seq))


async def numbered(connection: Connection, numbers: Collection[int]) -> list[StoredFixing]:
    """The fixings with these numbers, in order."""
    query = select(fixing).where(fixing.c.number.in_(numbers)).order_by(fixing.c.number)
    return [StoredFixing(*row) for row in await connection.execute(query)] if numbers else []


async def every(connection: Connection) -> list[StoredFixing]:
    """All fixings in order."""
    return [StoredFixing(*row) for row in await connection.execute(select(fixing).order_by(fixing.c.number))]


async def _first(connection: Connection, query: Select[Any]) -> StoredFixing | None:
    row = (await connection.execute(query.order_by(fixing.c.number.desc()).limit(1))).first()
    return None if row is None else StoredFixing(*row)


def _observation(row: Row[Any]) -> StoredObservation:
    return StoredObservation(*tuple(row)[1:])
