"""Budgets: what a spending key may reserve, nested from the key's own up to the whole account's.

Every hold counts in each budget of its chain, in the UTC day and month in which it was made: with its amount while it
is open, with what was captured afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from settlement.core.rates import RateTable

Period = tuple[int, str]
"""A budget's number and a UTC day such as ``2026-11-22``, or a month such as ``2026-11``."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits in microCU; None is no limit. `path` are the budgets above it, the root first."""

    no: int
    id: str
    path: Sequence[int]
    name: str
    per_request: int | None
    per_day: int | None
    per_month: int | None
    models: Sequence[str] | None
    providers: Sequence[str] | None
    alert_at: Sequence[int]


@dataclass(slots=True)
class Use:
    """What counts in a budget for one period, and the highest percentage that its owner was told of."""

    used: int
    alerted: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit and what is left of it, in microCU: below zero when the limit was lowered."""

    budget: Budget
    what: str
    left: int


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold that a period's use has reached."""

    budget: Budget
    period: str
    percent: int
    used: int
    limit: int


def periods(at: datetime) -> tuple[str, str]:
    """The UTC day and month of a time, as budgets count them."""
    day = at.date().isoformat()
    return day, day[:7]


def bounds(
    chain: Sequence[Budget], uses: Mapping[Period, Use], periods: tuple[str, str], reserved: int
) -> Iterator[Bound]:
    """Every limit of a hold that has `reserved` so much already, the leaf's first."""
    for budget in chain:
        if budget.per_request is not None:
            yield Bound(budget, "per_request", budget.per_request - reserved)
        for period, limit, what in _limits(budget, periods):
            yield Bound(budget, what, limit - uses[budget.no, period].used)


def tightest(
    chain: Sequence[Budget], uses: Mapping[Period, Use], periods: tuple[str, str], reserved: int = 0
) -> Bound | None:
    """The limit that leaves least; the leaf's own when several leave the same. None without any limit."""
    return min(bounds(chain, uses, periods, reserved), key=lambda bound: bound.left, default=None)


def allows(chain: Sequence[Budget], table: RateTable, model: str, provider: str) -> str | None:
    """None when every budget allows it, else the code of the refusal. Listed models may be aliases."""
    for budget in chain:
        if budget.models is not None and model not in {table.resolve(name) for name in budget.models}:
            return "model_not_allowed"
        if budget.providers is not None and provider not in budget.providers:
            return "provider_not_allowed"
    return None


def crossings(chain: Sequence[Budget], uses: Mapping[Period, Use], periods: tuple[str, str]) -> Iterator[Crossing]:
    """The highest threshold of each limit that its use has reached and that nobody was told of yet."""
    for budget in chain:
        for period, limit, _ in _limits(budget, periods):
            use = uses[budget.no, period]
            reached = [percent for percent in budget.alert_at if use.used * 100 >= percent * limit]
            if reached and max(reached) > use.alerted:
                yield Crossing(budget, period, max(reached), use.used, limit)


def _limits(budget: Budget, periods: tuple[str, str]) -> Iterator[tuple[str, int, str]]:
    day, month = periods
    if budget.per_day is not None:
        yield day, budget.per_day, "per_day"
    if budget.per_month is not None:
        yield month, budget.per_month, "per_month"
