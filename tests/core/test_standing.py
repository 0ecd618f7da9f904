"""Tiers by volume: which one holds, what counts, and that every path charges the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import sections
from settlement.core.multipliers import ONE, Multiplier
from settlement.core.standing import Day, StandingRules, VolumeTier, day_of

DAY = datetime(2026, 11, 22, tzinfo=UTC)
TIERS = (VolumeTier(0, Fraction(98, 100)), VolumeTier(1_000, Fraction(1)), VolumeTier(5_000, Fraction(9, 10)))
RULES = StandingRules(timedelta(days=7), TIERS)


def test_it_stands_in_a_policy_as_it_was() -> None:
    stated = sections.members(RULES)
    assert stated["tiers"] == [
        {"volume": "0", "multiplier": "49/50"},
        {"volume": "1000", "multiplier": "1"},
        {"volume": "5000", "multiplier": "9/10"},
    ]
    assert sections.read(StandingRules, stated) == RULES


@pytest.mark.parametrize(
    ("volume", "value"), [(0, 9_800), (999, 9_800), (1_000, ONE), (4_999, ONE), (5_000, 9_000), (10**18, 9_000)]
)
def test_the_last_tier_that_is_reached_holds(volume: int, value: int) -> None:
    assert RULES.multiplier(volume) == value


def test_without_tiers_and_below_the_first_one_nothing_changes() -> None:
    assert StandingRules().multiplier(10**18) == ONE
    assert StandingRules(tiers=TIERS[1:]).multiplier(999) == ONE
    assert Day().multipliers("acc_1") == ()


def test_what_counts_was_settled_an_hour_before_the_day() -> None:
    assert RULES.counted(DAY) == (DAY - timedelta(days=7), DAY - timedelta(hours=1))
    assert day_of(DAY + timedelta(hours=23, minutes=59)) == DAY


def test_whoever_has_no_volume_has_the_first_tier() -> None:
    day = Day(RULES, {"acc_1": 5_000})
    assert day.multipliers("acc_1") == (Multiplier("standing", 9_000),)
    assert day.multipliers("acc_2") == (Multiplier("standing", 9_800),)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=5, unique=True), st.integers(0, 10**13))
def test_a_volume_is_in_exactly_one_tier(volumes: list[int], volume: int) -> None:
    tiers = [VolumeTier(each, Fraction(ONE - number, ONE)) for number, each in enumerate(sorted(volumes))]
    reached = sum(each <= volume for each in volumes)
    expected = ONE if not reached else ONE - (reached - 1)
    assert StandingRules(tiers=tuple(tiers)).multiplier(volume) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"span": timedelta(hours=23)},
        {"span": timedelta(days=367)},
        {"tiers": (TIERS[1], TIERS[0])},
        {"tiers": (TIERS[0], TIERS[0])},
        {"tiers": (VolumeTier(-1, Fraction(1)),)},
        {"tiers": (VolumeTier(0, Fraction(11, 10)),)},
        {"tiers": (VolumeTier(0, Fraction(0)),)},
        {"tiers": (VolumeTier(0, Fraction(1, 3)),)},
    ],
)
def test_other_rules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tier|volume"):
        StandingRules(**wrong)
