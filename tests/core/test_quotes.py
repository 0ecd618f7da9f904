"""Quotes: expected below the ceiling, and slices that are what holds would grant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from settlement.core import holds, quotes
from settlement.core.holds import Ask, Terms
from tests.core.test_holds import NOW, all_terms

GPT5 = Terms("gpt-5", 1155 * 277_777_778, 2_222_222_222, has_output=True)


def test_the_worked_example() -> None:
    found = quotes.quote(GPT5, GPT5, Ask(max_output_tokens=4_096), None)
    assert (found.expected.amount, found.ceiling and found.ceiling.amount) == (789_723, 9_423_056)
    assert [each.output_tokens for each in found.slices] == [256, 512, 768, 1_024, 1_536, 2_560, 4_096]
    assert found.grants == 7


def test_without_a_most_there_is_no_ceiling() -> None:
    found = quotes.quote(GPT5, GPT5, Ask(), 1_000)
    assert (found.ceiling, found.grants, found.expected.output_tokens) == (None, None, 1_000)
    assert len(found.slices) == quotes.MOST_SLICES


def test_a_model_without_output_has_one_grant() -> None:
    found = quotes.quote(Terms("m", 10**7, 0, False), Terms("m", 10**7, 0, False), Ask(), None)
    assert (found.grants, found.expected.amount, found.ceiling and found.ceiling.amount) == (1, 10, 10)


@given(all_terms, st.integers(0, 20_000))
def test_slices_are_what_a_hold_is_granted(terms: Terms, most: int) -> None:
    """With money for everything, holding and extending gives exactly the plan."""
    ask = Ask(max_output_tokens=most)
    found = quotes.quote(terms, terms, ask, None)
    grant = holds.first_grant(terms, ask, 10**18)
    assert grant is not None
    hold = holds.opened(ask, terms, grant, NOW)
    granted = [(hold.output_tokens, hold.amount)]
    while hold.output_tokens < most:
        hold = holds.extended(hold, holds.next_grant(hold, terms, None, 10**18), NOW)
        granted.append((hold.output_tokens, hold.amount))
    assert [(each.output_tokens, each.amount) for each in found.slices] == granted[: quotes.MOST_SLICES]
    assert found.grants == len(granted)
    assert found.ceiling is not None
    assert found.expected.amount <= found.ceiling.amount


def test_bytes_stand_for_tokens() -> None:
    assert quotes.estimated({"input_images": 1}, 4_621, 4) == {"input_images": 1, "input_tokens": 1_156}
    assert quotes.estimated({"input_tokens": 7}, None, 4) == {"input_tokens": 7}
