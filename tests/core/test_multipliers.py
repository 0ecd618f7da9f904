"""Multipliers are whole ten-thousandths; applying one rounds down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import multipliers
from settlement.core.errors import Malformed


@given(st.integers(0, multipliers.MAX_MULTIPLIER))
def test_text_and_value_are_the_same_thing(value: int) -> None:
    text = multipliers.to_text(value)
    assert multipliers.TEXT.fullmatch(text)
    assert multipliers.parse(text) == value


@pytest.mark.parametrize("text", ["0.00001", "1/2", "-1", "1e2", "", "1."])
def test_other_text_is_no_multiplier(text: str) -> None:
    with pytest.raises(Malformed):
        multipliers.parse(text)


@given(st.integers(0, 2**63 - 1), st.integers(0, multipliers.MAX_MULTIPLIER))
def test_applying_never_gives_more_than_the_exact_product(pico: int, value: int) -> None:
    found = multipliers.apply(pico, value)
    assert found * multipliers.ONE <= pico * value < (found + 1) * multipliers.ONE


def test_one_changes_nothing_and_the_order_is_fixed() -> None:
    assert multipliers.apply(789_722_222_432, multipliers.ONE) == 789_722_222_432
    assert multipliers.ORDER == ("hours", "ask", "demand", "standing")
