"""Amounts and their decimal text: exact both ways, and nothing that isn't exactly an amount gets in."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.errors import Malformed
from settlement.core.units import MAX_AMOUNT, PICO_PER_MICRO, cu_text, decimal_text, parse_decimal, split_pico

AMOUNTS = st.integers(0, MAX_AMOUNT)
PLACES = st.integers(0, 18)


@given(AMOUNTS, PLACES)
def test_decimal_text_round_trips(amount: int, places: int) -> None:
    text = decimal_text(amount, places)
    assert parse_decimal(text, places) == amount
    assert Fraction(text) == Fraction(amount, 10**places)
    assert not (text.endswith((".", "0")) and "." in text)


@given(AMOUNTS, PLACES)
def test_negative_amounts_are_shown_with_a_sign(amount: int, places: int) -> None:
    assert Fraction(decimal_text(-amount, places)) == -Fraction(amount, 10**places)
    if amount:
        with pytest.raises(Malformed):
            parse_decimal(decimal_text(-amount, places), places)


@given(st.text("0123456789.-+eE_ ,٣\n", max_size=24), PLACES)
def test_whatever_parses_is_meant(text: str, places: int) -> None:
    try:
        value = parse_decimal(text, places)
    except Malformed:
        return
    assert 0 <= value <= MAX_AMOUNT
    assert Fraction(value, 10**places) == Fraction(text)
    assert set(text) <= set("0123456789.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        ".5",
        "01",
        "+1",
        "-1",
        "1e3",
        "1_000",
        " 1",
        "1\n",
        "1,5",
        "NaN",
        "Infinity",
        "0x1",
        "1.0000001",
        "9223372036854.775808",
        "١",
        "1" * 5000,
        "0." + "0" * 5000,
    ],
)
def test_what_is_no_amount_of_six_places(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_decimal(text, 6)
    assert caught.value.code == "amount_malformed"


def test_extremes() -> None:
    assert parse_decimal("9223372036854.775807", 6) == MAX_AMOUNT
    assert cu_text(789_722) == "0.789722"
    assert cu_text(-1) == "-0.000001"
    assert cu_text(0) == "0"
    assert parse_decimal("1.50", 2) == 150


@given(st.lists(st.integers(0, 10**19), max_size=30), st.integers(0, PICO_PER_MICRO - 1))
def test_nothing_is_lost_in_the_carry(amounts: list[int], carry: int) -> None:
    """Posting after each amount or once after all of them is the same in the end."""
    posted, left = 0, carry
    for amount in amounts:
        micro, left = split_pico(left, amount)
        assert 0 <= left < PICO_PER_MICRO
        posted += micro
    assert (posted, left) == split_pico(carry, sum(amounts))
    assert posted * PICO_PER_MICRO + left == carry + sum(amounts)
