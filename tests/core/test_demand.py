"""Demand: the multiplier follows curve, slew, floor and cap exactly, and a step is made again from its inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import demand
from settlement.core.demand import NO_DEMAND, Demand, DemandPoint, DemandRules, Demands, made, read
from settlement.core.multipliers import ONE
from settlement.core.offers import Offer
from tests.world import START

HOUR = timedelta(hours=1)
CURVE = (DemandPoint(500_000, Fraction(9, 10)), DemandPoint(800_000, Fraction(1)), DemandPoint(1_000_000, Fraction(2)))
RULES = DemandRules(floor=Fraction(9, 10), cap=Fraction(3, 2), slew=Fraction(1, 10), curve=CURVE)


def offer(capacity: int | None, name: str = "prv_a") -> Offer:
    return Offer(name, 1, None, START, ONE, {}, "sha256:" + "0" * 64, capacity)


def step(last: Demand | None, charged: int, *, capacity: int | None = 1_000_000, after: timedelta = HOUR) -> Demand:
    at = START if last is None else last.at + after
    return made(last, None, at, RULES, {"prv_a": charged}, {"prv_a": offer(capacity)})


def test_the_curve_is_flat_outside_of_its_points_and_a_line_between_them() -> None:
    wanted = {
        0: 9_000,
        500_000: 9_000,
        500_001: 9_000,
        650_000: 9_500,
        799_999: 9_999,
        800_000: 10_000,
        900_000: 15_000,
    }
    assert {at: RULES.wanted(at) for at in wanted} == wanted
    assert RULES.wanted(1_000_000) == RULES.wanted(10**7) == 20_000
    assert DemandRules().wanted(10**7) == ONE


def test_a_step_measures_effort_and_the_next_goes_no_further_than_the_slew() -> None:
    first = step(None, 10**9)
    assert first.providers == {}, "there is nothing before it to measure from"
    second = step(first, 1_000_000)
    assert second.providers["prv_a"] == demand.Load(1_000_000, 1_000_000, 1_000_000, 11_000)
    third = step(second, 1_000_000)
    assert third.providers["prv_a"].utilisation == 909_090, "what the multiplier itself added is taken out"
    assert third.providers["prv_a"].multiplier == 12_000
    assert step(third, 10**9).providers["prv_a"].utilisation == demand.MOST
    assert step(third, 0, after=2 * HOUR).providers["prv_a"].multiplier == 11_000
    assert step(third, 600_000, capacity=None).multiplier("prv_a") == ONE, "who states no capacity takes no part"
    assert step(third, 1_000_000, after=2 * HOUR).providers["prv_a"].utilisation == 416_666, "the span is what it was"


@given(st.integers(9_000, 15_000), st.integers(0, 2 * 10**7))
def test_a_multiplier_keeps_to_floor_cap_and_slew(before: int, utilisation: int) -> None:
    after = RULES.following(before, utilisation)
    assert 9_000 <= after <= 15_000
    assert abs(after - before) <= 1_000
    assert RULES.following(before, utilisation + 1) >= after


def test_a_lower_cap_holds_at_once() -> None:
    assert replace(RULES, cap=Fraction(1)).following(15_000, 10**7) == ONE


def test_a_step_is_in_force_from_its_notice_until_it_is_followed_or_has_run_out() -> None:
    first = step(None, 0)
    second = step(first, 10**6)
    third = step(second, 10**6)
    steps = Demands([third, first, second])
    at = {
        name: second.effective_from + after
        for name, after in (("before", -HOUR / 3600), ("from", 0 * HOUR), ("next", HOUR))
    }
    found = {name: steps.at(when) for name, when in at.items()}
    assert found == {"before": first, "from": second, "next": third}
    assert steps.multiplier("prv_a", third.until) == ONE
    assert steps.multiplier("prv_b", third.effective_from) == ONE
    assert NO_DEMAND.at(START) is None
    assert steps.multiplier("prv_a", None) == ONE


def test_a_document_says_all_of_a_step_and_is_read_again() -> None:
    made_ = step(step(None, 0), 777_777)
    document = made_.document()
    assert read(document) == made_
    assert json.loads(document)["providers"]["prv_a"] == {
        "charged": "777777",
        "capacity": "1000000",
        "utilisation": 777_777,
        "multiplier": "0.9925",
    }
    with pytest.raises(ValueError, match="demand/1"):
        read(document.replace(b"demand/1", b"demand/2"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": timedelta(minutes=9)},
        {"step": timedelta(days=2)},
        {"floor": Fraction(11, 10)},
        {"cap": Fraction(11)},
        {"slew": Fraction(0)},
        {"slew": Fraction(1, 30_000)},
        {"curve": (CURVE[1], CURVE[0])},
        {"curve": (CURVE[0], DemandPoint(600_000, Fraction(1, 2)))},
        {"curve": (DemandPoint(-1, Fraction(1)),)},
        {"curve": (DemandPoint(0, Fraction(0)),)},
    ],
)
def test_rules_that_make_no_sense_are_no_rules(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is|contain|ascend"):
        DemandRules(**wrong)


def test_a_hold_names_its_moment_and_nothing_else_does() -> None:
    assert demand.moment(None) is None
    assert demand.moment("hld_nonsense") is None
