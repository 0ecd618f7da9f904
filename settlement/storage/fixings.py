"""Observations and fixings of the index, append-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from settlement.storage.database import Connection
from settlement.storage.tables import fixing, observation


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
    """A fixing: canonical bytes, and the service's signatures over them."""

    number: int
    at: datetime
    digest: bytes
    document: bytes
    signatures: Sequence[dict[str, str]]


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


async def newest(connection: Connection) -> StoredFixing | None:
    """The last fixing."""
    row = (await connection.execute(select(fixing).order_by(fixing.c.number.desc()).limit(1))).first()
    return None if row is None else StoredFixing(*row)


async def every(connection: Connection) -> list[StoredFixing]:
    """All fixings in order."""
    return [StoredFixing(*row) for row in await connection.execute(select(fixing).order_by(fixing.c.number))]


def _observation(row: Row[Any]) -> StoredObservation:
    return StoredObservation(*tuple(row)[1:])
