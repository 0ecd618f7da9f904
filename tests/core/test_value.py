"""The index: exact, banded, reviewed, and frozen when it can't be trusted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import sections, value
from settlement.core.value import UNIT, Component, Fixing, IndexRules, Observation

START = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = IndexRules()
PRICES = {"TOK": Fraction(1), "GPU": Fraction("2.6"), "XRP": Fraction("2.88"), "XLM": Fraction("0.368")}
WORTH = Fraction(45, 10_000)


def begun(rules: IndexRules = RULES) -> Fixing:
    return value.first_fixing(WORTH, PRICES, START, rules)


def after(last: Fixing, rules: IndexRules = RULES, *, days: int = 1, **more: Any) -> Fixing:
    prices = PRICES | {name: more.pop(name) for name in list(more) if name in PRICES}
    return value.next_fixing(last, prices, last.at + days * DAY, rules, **more)


def test_the_basket_begins_at_the_value_with_its_weights() -> None:
    first = begun()
    assert first.usd_per_cu == WORTH
    parts = {name: first.quantities[name] * PRICES[name] / WORTH for name in PRICES}
    assert parts == {each.series: each.weight for each in RULES.components}
    assert after(first).value == first.value, "prices that stand still leave it where it is"


def test_smoothing_takes_half_of_the_basket_s_move_each_day() -> None:
    """a = 2 / (3 + 1): TOK up by 1 % lifts the basket by 0.6 %, the value by half of that, then by half of the rest."""
    one = after(begun(), TOK=Fraction("1.01"))
    assert one.basket == round(WORTH * UNIT * Fraction("1.006"))
    assert one.value == one.smoothed == round(WORTH * UNIT * Fraction("1.003"))
    two = after(one, TOK=Fraction("1.01"))
    assert two.value == round(Fraction(one.value + two.basket, 2))


@pytest.mark.parametrize(("price", "limit"), [("5", "1.015"), ("0.2", "0.985")])
def test_the_value_never_leaves_its_band(price: str, limit: str) -> None:
    first = begun()
    moved = after(first, XRP=Fraction(price), XLM=Fraction(price))
    assert abs(moved.value - first.value * Fraction(limit)) < 1
    assert abs(moved.value - first.value) <= first.value * RULES.band


def test_the_basket_is_reviewed_after_91_days_and_when_a_volatile_part_drifts() -> None:
    first = begun()
    assert after(first, days=90, GPU=Fraction("3")).reviewed_at == START
    reviewed = after(first, days=91, GPU=Fraction("3"))
    assert reviewed.reviewed_at == START + 91 * DAY
    assert reviewed.quantities["GPU"] * 3 == Fraction(reviewed.basket, UNIT) / 4
    assert after(reviewed, GPU=Fraction("3")).basket == reviewed.basket, "a review moves the parts, not the whole"
    assert after(first, XRP=Fraction("4.2")).reviewed_at == START
    assert after(first, XRP=Fraction("4.7")).reviewed_at == START + DAY
    assert after(first, TOK=Fraction("1.4"), GPU=Fraction("0.3")).reviewed_at == START, "those may drift"


def test_two_fixings_with_a_gap_freeze_it_until_the_council_resets_it() -> None:
    rules = IndexRules(drift=Fraction(100))
    one = after(begun(rules), rules, TOK=Fraction("1.2"))
    assert (one.gaps, one.frozen) == (1, None)
    two = after(one, rules, TOK=Fraction("1.2"))
    assert (two.frozen, two.value) == ("gap between basket and value", one.value)
    three = after(two, rules)
    assert three.frozen is not None, "it does not thaw by itself"
    again = after(three, rules, TOK=Fraction("1.2"), reset=True)
    assert (again.frozen, again.value, again.basket) == (None, one.value, one.value)
    assert after(again, rules, TOK=Fraction("1.2")).value == one.value


def test_prices_that_are_not_trusted_freeze_it_and_good_ones_end_that() -> None:
    first = begun()
    frozen = after(first, TOK=Fraction(9), distrust="source_stale TOK")
    assert (frozen.frozen, frozen.value, frozen.quantities) == ("source_stale TOK", first.value, first.quantities)
    assert after(frozen).frozen is None
    missing = value.next_fixing(first, {"TOK": Fraction(1)}, START + DAY, RULES)
    assert missing.frozen == "sources_missing"


def seen(*prices: str, series: str = "XRP", at: datetime = START) -> list[Observation]:
    return [Observation(f"s{number}", series, at, Fraction(price)) for number, price in enumerate(prices)]


ALONE = IndexRules(components=(Component("XRP", Fraction(1)),))


@pytest.mark.parametrize(
    ("observations", "median", "reason"),
    [
        (seen("2.88", "2.90", "2.89"), "2.89", None),
        (seen("2", "2.02", "2.04", "2.06"), "2.03", None),
        (seen("2", "2", "2.06"), "2", None),
        (seen("2", "2", "2.0601"), "2", "sources_differ XRP"),
        (seen("2", "2"), "2", "sources_missing XRP"),
        (seen("2", "2", "2", at=START - DAY), "2", None),
        (seen("2", "2", "2", at=START - DAY - timedelta(seconds=1)), "2", "source_stale XRP"),
        ([*seen("1", "1", "1", at=START - DAY), *seen("2", "2", "2")], "2", None),
        ([*seen("2", "2", "2"), *seen("9", "9", "9", at=START + DAY)], "2", None),
        ([*seen("2", "2", "2"), *seen("5", "5", "5", series="DOGE")], "2", None),
    ],
)
def test_the_median_counts_each_source_s_newest_price(
    observations: list[Observation], median: str, reason: str | None
) -> None:
    assert value.median_prices(observations, START, ALONE) == ({"XRP": Fraction(median)}, reason)


def test_nobody_gains_by_knowing_that_the_value_follows_the_basket() -> None:
    """Deposit at the higher, refund at the lower: a round trip never pays, whichever way the basket moved."""
    for price in ("1.05", "0.95"):
        fixing = after(begun(), TOK=Fraction(price))
        bought = value.deposit_price(fixing)
        assert bought >= value.payout_price(fixing)
        for days in (2, 10):
            later = fixing
            for _ in range(days):
                later = after(later, TOK=Fraction(price))
            sold = value.refund_price(later, RULES)
            assert sold < bought * (1 + RULES.spread)
            assert sold <= min(Fraction(later.basket, UNIT), later.usd_per_cu)


@given(st.lists(st.tuples(*[st.fractions(Fraction(1, 100), Fraction(100), max_denominator=10**6)] * 4), max_size=8))
def test_whatever_prices_do_the_value_is_whole_and_within_its_band(moves: list[tuple[Fraction, ...]]) -> None:
    last = begun()
    for move in moves:
        made = value.next_fixing(last, dict(zip(PRICES, move, strict=True)), last.at + DAY, RULES)
        assert isinstance(made.value, int)
        assert abs(made.value - last.value) <= last.value * RULES.band
        assert made.number == last.number + 1
        last = made


@pytest.mark.parametrize(
    "wrong",
    [
        {"components": (Component("A", Fraction(1, 2)),)},
        {"components": (Component("A", Fraction(1, 2)), Component("A", Fraction(1, 2)))},
        {"smoothing": 0},
        {"sources": 0},
        {"band": Fraction(1)},
        {"gap": Fraction(0)},
        {"spread": Fraction(1)},
        {"drift": Fraction(0)},
        {"review": timedelta(0)},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        IndexRules(**wrong)


def test_the_rules_stand_in_a_policy_as_they_were() -> None:
    assert sections.read(IndexRules, sections.members(RULES)) == RULES
