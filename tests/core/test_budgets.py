"""Budgets: the tightest limit of a chain, what is allowed, and thresholds that are told once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from settlement.core import budgets, rates
from settlement.core.budgets import Budget, Use
from tests.world import first_rates

TABLE = rates.parse(first_rates())
PERIODS = ("2026-11-22", "2026-11")


def budget(no: int = 1, **limits: Any) -> Budget:
    members: dict[str, Any] = dict.fromkeys(("per_request", "per_day", "per_month", "models", "providers"))
    members |= {"path": (), "alert_at": (), **limits}
    return Budget(no=no, id=f"bud_{no}", name="", **members)


def uses(*chain: Budget, day: int = 0, month: int = 0) -> dict[tuple[int, str], Use]:
    return {
        (each.no, period): Use(used, 0) for each in chain for period, used in zip(PERIODS, (day, month), strict=True)
    }


limits = st.none() | st.integers(0, 1_000)
spent = st.integers(0, 500)


@given(
    st.lists(st.tuples(limits, limits, limits), max_size=4),
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(0, 99),
)
def test_the_tightest_bound_is_the_least_of_all(
    levels: list[tuple[int | None, int | None, int | None]], day: int, month: int, reserved: int
) -> None:
    chain = [
        budget(no, per_request=request, per_day=per_day, per_month=per_month)
        for no, (request, per_day, per_month) in enumerate(levels)
    ]
    left = [
        limit - used
        for level in levels
        for limit, used in zip(level, (reserved, day, month), strict=True)
        if limit is not None
    ]
    found = budgets.tightest(chain, uses(*chain, day=day, month=month), PERIODS, reserved)
    assert (None if found is None else found.left) == min(left, default=None)


def test_every_level_must_allow_model_and_provider() -> None:
    leaf, root = budget(1, models=["gpt-5"]), budget(2, providers=["prv_1"])
    assert budgets.allows([leaf, root], TABLE, "gpt-5", "prv_1") is None
    assert budgets.allows([leaf, root], TABLE, "gpt-4o", "prv_1") == "model_not_allowed"
    assert budgets.allows([leaf, root], TABLE, "gpt-5", "prv_2") == "provider_not_allowed"
    assert budgets.allows([budget(models=[])], TABLE, "gpt-5", "prv_1") == "model_not_allowed"


def test_a_listed_alias_allows_its_model() -> None:
    alias, model = next(iter(TABLE.aliases.items()))
    assert budgets.allows([budget(models=[alias])], TABLE, model, "prv_1") is None


def test_a_threshold_is_crossed_once_and_the_highest_counts() -> None:
    chain = [budget(per_day=200, per_month=1_000, alert_at=(50, 80, 100))]
    used = uses(*chain, day=100, month=100)
    assert [(each.period, each.percent) for each in budgets.crossings(chain, used, PERIODS)] == [("2026-11-22", 50)]
    used[1, "2026-11-22"].alerted = 50
    assert list(budgets.crossings(chain, used, PERIODS)) == []
    used[1, "2026-11-22"].used = 200
    used[1, "2026-11"].used = 999
    found = [(each.period, each.percent, each.limit) for each in budgets.crossings(chain, used, PERIODS)]
    assert found == [("2026-11-22", 100, 200), ("2026-11", 80, 1_000)]
