"""Budgets of spending keys: made, changed and shown. They are enforced where holds are placed, in `services.holds`."""

from __future__ import annotations

from dataclasses import dataclass

from settlement.core.budgets import Budget, Use, crossings, periods
from settlement.core.errors import Conflict
from settlement.services import events
from settlement.services.context import Context
from settlement.storage import budgets as storage
from settlement.storage.budgets import Limits
from settlement.storage.database import Connection
from settlement.storage.parties import Party

MOST_LEVELS = 4
_NOTHING, _SILENT = Use(0, 0), Use(0, 100)


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget, the id of the one above it, and what counts in it today and this month, with the thresholds reached."""

    budget: Budget
    parent: str | None
    day: Use
    month: Use


async def create(context: Context, party: Party, limits: Limits, parent: str | None) -> BudgetView:
    """A new budget, below `parent` if it is given. Raises NotFound ``unknown_budget``, Conflict ``budget_too_deep``."""

    async def use_case(connection: Connection) -> Budget:
        path: list[int] = []
        if parent is not None:
            above = await storage.get(connection, party.no, parent)
            path = [*above.path, above.no]
        if len(path) >= MOST_LEVELS:
            raise Conflict("budget_too_deep", f"budgets nest at most {MOST_LEVELS} levels")
        now = context.sources.clock()
        budget_id = context.sources.new_id("bud")
        return await storage.add(connection, budget_id=budget_id, party_no=party.no, path=path, limits=limits, now=now)

    return BudgetView(await context.database.run(use_case), parent, _NOTHING, _NOTHING)


async def change(context: Context, party: Party, budget_id: str, limits: Limits) -> BudgetView:
    """Replace a budget's limits, for holds from now on, and tell of the thresholds of the new ones that what counts has
    reached: under a limit below it no hold comes that could. Raises NotFound ``unknown_budget``."""

    async def use_case(connection: Connection) -> None:
        changed = await storage.change(connection, party.no, budget_id, limits)
        now = periods(context.sources.clock())
        uses = await storage.lock_uses(connection, changed.no, now)
        known = {(changed.no, period): uses.get((changed.no, period), _SILENT) for period in now}
        for crossed in crossings([changed], known, now):
            await storage.reached(connection, changed.no, crossed.period, crossed.percent)
            await events.budget_reached(context, connection, party.no, crossed)

    await context.database.run(use_case)
    return next(view for view in await listed(context, party) if view.budget.id == budget_id)


async def listed(context: Context, party: Party) -> list[BudgetView]:
    """All budgets of a party with what counts in them now."""
    day, month = periods(context.sources.clock())
    async with context.database.read() as connection:
        found = await storage.listed(connection, party.no)
        uses = await storage.uses(connection, [budget.no for budget in found], [day, month])
    names = {budget.no: budget.id for budget in found}
    return [
        BudgetView(
            budget,
            names[budget.path[-1]] if budget.path else None,
            uses.get((budget.no, day), _NOTHING),
            uses.get((budget.no, month), _NOTHING),
        )
        for budget in found
    ]
