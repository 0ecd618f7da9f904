from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction

import pytest
from genai_prices.types import Tier, TieredPrices, calc_unit_price
from hypothesis import given
from hypothesis import strategies as st

from governance.ratebook import market
from governance.ratebook.catalogue import Dated, Price

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def usd(text: str) -> dict[str, Price]:
    return {"input_tokens": Price(Fraction(text))}


def test_the_last_price_whose_day_has_come_is_in_force_else_the_first() -> None:
    candidates = [Dated(usd("1")), Dated(usd("2"), date(2026, 11, 22)), Dated(usd("3"), date(2026, 11, 23))]
    assert market.in_force(candidates, NOON) == usd("2")
    assert market.in_force(candidates, datetime(2026, 11, 23, tzinfo=UTC)) == usd("3")
    assert market.in_force(candidates, datetime(2026, 11, 21, 23, 59, tzinfo=UTC)) == usd("1")
    assert market.in_force(candidates[2:], NOON) == usd("3")


def test_of_prices_by_the_hour_the_one_of_the_longest_part_of_the_day_is_taken() -> None:
    peak = Dated(usd("2"), hours=(time(0, 30), time(16, 30)))
    assert market.in_force([Dated(usd("1")), peak], NOON) == usd("2")
    night = Dated(usd("1"), hours=(time(22), time(6)))
    assert market.in_force([Dated(usd("3")), night], NOON) == usd("3")
    split = [Dated(usd("1")), Dated(usd("2"), hours=(time(1), time(8))), Dated(usd("2"), hours=(time(10), time(15)))]
    assert market.in_force(split, NOON) == usd("1")
    half = Dated(usd("2"), hours=(time(0), time(12)))
    assert market.in_force([Dated(usd("1")), half], NOON) == usd("1")


@pytest.mark.parametrize(
    ("values", "middle"), [("3", "3"), ("1 2", "3/2"), ("9 1 2", "2"), ("1 100 2 3", "5/2"), ("5 5 0", "5")]
)
def test_the_median(values: str, middle: str) -> None:
    assert market.median([Fraction(value) for value in values.split()]) == Fraction(middle)


def test_a_host_without_a_subsets_price_counts_with_the_wholes() -> None:
    hosts = [
        {"input_tokens": Price(Fraction(10)), "cache_read_tokens": Price(Fraction(1))},
        {"input_tokens": Price(Fraction(4))},
        {"input_tokens": Price(Fraction(6))},
        {"output_tokens": Price(Fraction(7)), "web_searches": Price(Fraction(8))},
    ]
    assert market.median_prices(hosts, 0) == {
        "input_tokens": 6,
        "cache_read_tokens": 4,
        "output_tokens": 7,
        "web_searches": 8,
    }


@pytest.mark.parametrize(
    ("usd_per_million", "rate"),
    [("1.25", 277777778), ("10", 2222222222), ("0.125", 27777778), ("3", 666666667), ("15", 3333333333), ("0", 0)],
)
def test_rates_of_the_worked_example(usd_per_million: str, rate: int) -> None:
    assert market.rate_of(Fraction(usd_per_million), Fraction("0.0045")) == rate


def test_halves_are_rounded_to_the_even_number() -> None:
    one = Fraction(1)
    found = [market.rate_of(Fraction(f"0.00000{number}"), one) for number in ("05", "15", "25", "35")]
    assert found == [0, 2, 2, 4]


@given(
    st.integers(0, 9),
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9)), max_size=4, unique_by=lambda step: step[0]),
    st.integers(1, 40),
)
def test_steps_mean_what_the_source_means_by_them(base: int, steps: list[tuple[int, int]], tokens: int) -> None:
    """The step is chosen by total input tokens, strictly above its start, and holds for the whole request."""
    theirs = TieredPrices(Decimal(base), [Tier(start, Decimal(price)) for start, price in steps])
    price = Price(Fraction(base), tuple(sorted((start, Fraction(step)) for start, step in steps)))
    ours = price.above(max(start for start in market.thresholds([{"input_tokens": price}]) if start < tokens))
    assert calc_unit_price(theirs, 1, tokens, 1) == ours
