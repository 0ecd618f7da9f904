"""Halts: why payouts and anchors stand still until a person has looked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, text, update

from settlement.storage.database import Connection
from settlement.storage.tables import halt

_ONE_AT_A_TIME = 0x4A17
"""Advisory lock: the same trouble seen by two workers is one row."""


@dataclass(frozen=True, slots=True)
class Halt:
    """One reason. It is open until somebody cleared it."""

    no: int
    at: datetime
    code: str
    detail: str
    cleared_at: datetime | None
    cleared_by: str | None


async def add(connection: Connection, code: str, detail: str, now: datetime) -> Halt:
    """Record a reason to halt; the one on file when the same is open already."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
    same = select(halt).where(halt.c.cleared_at.is_(None), halt.c.code == code, halt.c.detail == detail)
    row = (await connection.execute(same.limit(1))).first()
    if row is None:
        row = (await connection.execute(insert(halt).values(at=now, code=code, detail=detail).returning(halt))).one()
    return _halt(row)


async def open_halts(connection: Connection) -> list[Halt]:
    """The reasons that nobody has cleared, oldest first."""
    query = select(halt).where(halt.c.cleared_at.is_(None)).order_by(halt.c.no)
    return [_halt(row) for row in await connection.execute(query)]


async def clear(connection: Connection, no: int, by: str, now: datetime) -> Halt | None:
    """Mark one open halt as looked into. None when there is no open one by that number."""
    query = update(halt).where(halt.c.no == no, halt.c.cleared_at.is_(None))
    row = (await connection.execute(query.values(cleared_at=now, cleared_by=by).returning(halt))).first()
    return None if row is None else _halt(row)


def _halt(row: Row[Any]) -> Halt:
    return Halt(row.no, row.at, row.code, row.detail, row.cleared_at, row.cleared_by)
