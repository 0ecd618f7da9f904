"""Budgets of spending keys: their limits. What counts in them is written where holds are, in `storage.holds`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from settlement.core.budgets import Budget, Period, Use
from settlement.core.errors import NotFound
from settlement.storage.database import Connection
from settlement.storage.tables import budget, budget_use

_COLUMNS = (
    *(budget.c.no, budget.c.id, budget.c.path, budget.c.name, budget.c.per_request, budget.c.per_day),
    *(budget.c.per_month, budget.c.models, budget.c.providers, budget.c.alert_at),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a budget allows, in microCU; None is no limit."""

    name: str
    per_request: int | None
    per_day: int | None
    per_month: int | None
    models: Sequence[str] | None
    providers: Sequence[str] | None
    alert_at: Sequence[int]

    def columns(self) -> dict[str, Any]:
        """The limits as columns of a row."""
        lists = {name: None if value is None else list(value) for name, value in self._lists().items()}
        numbers = {name: getattr(self, name) for name in ("name", "per_request", "per_day", "per_month")}
        return numbers | lists

    def _lists(self) -> dict[str, Sequence[Any] | None]:
        return {"models": self.models, "providers": self.providers, "alert_at": self.alert_at}


async def add(
    connection: Connection, *, budget_id: str, party_no: int, path: Sequence[int], limits: Limits, now: datetime
) -> Budget:
    """A new budget below those of `path`."""
    values = {"id": budget_id, "party_no": party_no, "path": list(path), "created_at": now, **limits.columns()}
    row = (await connection.execute(insert(budget).values(values).returning(*_COLUMNS))).one()
    return _budget(row)


async def change(connection: Connection, party_no: int, budget_id: str, limits: Limits) -> Budget:
    """Replace the limits of a budget of that party. Raises NotFound ``unknown_budget``."""
    found = update(budget).where(budget.c.id == budget_id, budget.c.party_no == party_no)
    row = (await connection.execute(found.values(limits.columns()).returning(*_COLUMNS))).first()
    return _known(row)


async def get(connection: Connection, party_no: int, budget_id: str) -> Budget:
    """A budget of that party. Raises NotFound ``unknown_budget``."""
    query = select(*_COLUMNS).where(budget.c.id == budget_id, budget.c.party_no == party_no)
    return _known((await connection.execute(query)).first())


async def listed(connection: Connection, party_no: int) -> list[Budget]:
    """All budgets of a party, oldest first: parents before what is below them."""
    query = select(*_COLUMNS).where(budget.c.party_no == party_no).order_by(budget.c.no)
    return [_budget(row) for row in await connection.execute(query)]


async def uses(connection: Connection, numbers: Sequence[int], periods: Sequence[str]) -> dict[Period, Use]:
    """What counts in budgets in these periods; nothing where there was no hold."""
    query = select(budget_use).where(budget_use.c.budget_no.in_(numbers), budget_use.c.period.in_(periods))
    return {(row.budget_no, row.period): Use(row.used, row.alerted) for row in await connection.execute(query)}


async def lock_uses(connection: Connection, number: int, periods: Sequence[str]) -> dict[Period, Use]:
    """What counts in a budget in these periods, locked in the order in which holds lock it."""
    query = select(budget_use).where(budget_use.c.budget_no == number, budget_use.c.period.in_(periods))
    rows = await connection.execute(query.order_by(budget_use.c.period).with_for_update())
    return {(row.budget_no, row.period): Use(row.used, row.alerted) for row in rows}


async def reached(connection: Connection, number: int, period: str, percent: int) -> None:
    """Record the highest threshold that was told of."""
    found = update(budget_use).where(budget_use.c.budget_no == number, budget_use.c.period == period)
    await connection.execute(found.values(alerted=percent))


def _known(row: Any | None) -> Budget:
    if row is None:
        raise NotFound("unknown_budget", "this participant has no such budget")
    return _budget(row)


def _budget(row: Any) -> Budget:
    return Budget(*row)
