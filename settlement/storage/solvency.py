"""Measured measurements of what is owed and what is held, one for each window that had a still moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import insert

from settlement.core.errors import NotFound
from settlement.storage.database import Connection
from settlement.storage.tables import checkpoint, solvency


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement on file: its signed bytes, and what of them is looked for."""

    window_no: int
    journal_seq: int
    at: datetime
    owed: int
    held: int
    covered: bool
    digest: bytes
    document: bytes
    signatures: Sequence[dict[str, str]]


async def due(connection: Connection) -> int | None:
    """The newest window with a checkpoint, unless it has its measurement."""
    newest = (await connection.execute(select(func.max(checkpoint.c.window_no)))).scalar_one()
    measured = (await connection.execute(select(func.max(solvency.c.window_no)))).scalar_one()
    return None if newest is None or newest == measured else int(newest)


async def publish(connection: Connection, found: Measured) -> bool:
    """Record the measurement of a window; False when it has one. Of several workers, one publishes."""
    values = {name: getattr(found, name) for name in Measured.__slots__} | {"signatures": list(found.signatures)}
    statement = insert(solvency).values(values).on_conflict_do_nothing().returning(solvency.c.window_no)
    return (await connection.execute(statement)).first() is not None


async def newest(connection: Connection, limit: int) -> list[Measured]:
    """The newest measurements, newest first."""
    rows = await connection.execute(select(solvency).order_by(solvency.c.window_no.desc()).limit(limit))
    return [_measured(row) for row in rows]


async def of_window(connection: Connection, window_no: int) -> Measured:
    """A window's measurement. Raises NotFound ``solvency_unknown``."""
    row = (await connection.execute(select(solvency).where(solvency.c.window_no == window_no))).first()
    if row is None:
        raise NotFound("solvency_unknown", f"nothing was measured for window win_{window_no}")
    return _measured(row)


def _measured(row: Row[Any]) -> Measured:
    return Measured(**{name: getattr(row, name) for name in Measured.__slots__} | {"held": int(row.held)})
