"""Long input in parts: nothing is lost, nothing is too long, and the answers come together in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.client import splitting
from settlement.client.splitting import map_reduce, most_tokens, parts
from settlement.core import quotes

pytestmark = pytest.mark.anyio
TEXT = st.text(st.sampled_from("ab. \n\u00e9\U0001f600"), max_size=300)


@given(TEXT, st.integers(2, 40))
def test_parts_joined_are_the_text_and_none_is_too_long(text: str, most: int) -> None:
    found = parts(text, most)
    assert "".join(found) == text
    assert all(0 < most_tokens(part) <= most for part in found)


@given(TEXT, st.integers(2, 40))
def test_no_two_parts_would_fit_into_half_of_one(text: str, most: int) -> None:
    found = parts(text, most)
    assert all(most_tokens(one + other) > most // 2 for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two\n\nthree. four five six", ["one two\n\n", "three. ", "four five ", "six"]),
        ("abcdefghijklm", ["abcdefghij", "klm"]),
        ("", []),
        ("short", ["short"]),
    ],
)
def test_a_text_is_cut_where_it_hurts_least(text: str, expected: list[str]) -> None:
    assert parts(text, 10, size=len) == expected


def test_a_text_has_as_many_tokens_as_a_quote_takes_it_for_at_most() -> None:
    assert splitting.FEWEST_BYTES == quotes.FEWEST_BYTES
    assert [most_tokens(text) for text in ("", "abc", "\u00e9")] == [0, 2, 1]


def test_a_character_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="one character has more than 1 tokens"):
        parts("a\U0001f600", 1)


async def combine(answers: Sequence[str]) -> str:
    return "".join(answers)


async def test_answers_are_combined_in_order_until_they_are_one() -> None:
    asked: list[str] = []
    together: list[list[str]] = []

    async def first(part: str) -> str:
        asked.append(part)
        await asyncio.sleep(0.01 * (part == "0123456789"))  # the first is answered last
        return part[0]

    async def joined(answers: Sequence[str]) -> str:
        together.append(list(answers))
        return answers[0][0] + answers[-1][-1]  # the first and the last that it is about

    text = "".join(f"{n}123456789" for n in range(10)) * 3
    assert await map_reduce(text, first, joined, most=10, size=len) == "09"
    assert len(asked) == 30
    assert together == [list("0123456789")] * 3 + [["09"] * 3]


async def test_a_short_text_is_one_call() -> None:
    async def answer(part: str) -> str:
        return f"<{part}>"

    for text in ("short", ""):
        assert await map_reduce(text, answer, combine, most=10) == f"<{text}>"


async def test_no_more_calls_run_at_once_than_was_said() -> None:
    running = most = 0

    async def answer(part: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return part[0]

    await map_reduce("x" * 100, answer, combine, most=10, size=len, at_once=3)
    assert most == 3


async def test_answers_that_get_no_shorter_end_it() -> None:
    async def echo(part: str) -> str:
        return part

    with pytest.raises(ValueError, match="no two answers fit into 10 tokens"):
        await map_reduce("x" * 30, echo, combine, most=10, size=len)


async def test_the_first_call_that_fails_ends_the_others() -> None:
    ended = asyncio.Event()

    async def answer(part: str) -> str:
        if part[0] == "b":
            raise PermissionError("402")
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.set()
        return part

    with pytest.raises(PermissionError, match="402"):
        await map_reduce("a" * 10 + "b" * 10, answer, combine, most=10, size=len)
    assert ended.is_set()
