"""Long input in parts that a model takes, for programs that ask for it: map and reduce.

Nothing here runs by itself. An answer that is put together from parts is not the answer to the whole, and every part is
a call of its own, with its own hold and its own charge; a call that is too long is refused (``context_exceeded``).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

Size = Callable[[str], int]
"""Tokens of a text. A longer text may not have fewer."""
FEWEST_BYTES = 2
"""As quotes count: `core.quotes` needs more than the standard library, which is all that this may; a test compares."""
BREAKS = ("\n\n", "\n", ". ", " ")
"""Where a text is cut, the best first: behind a paragraph, a line, a sentence, a word."""


def most_tokens(text: str) -> int:
    """The most tokens that a text is taken for, as quotes take it, for whoever has no tokenizer of the model."""
    return -(-len(text.encode()) // FEWEST_BYTES)


def parts(text: str, most: int, size: Size = most_tokens) -> list[str]:
    """The text in parts of at most `most` tokens, in order; joined they are the text again.

    A part ends at the best of `BREAKS` in its second half, and within a word when there is none. Raises ValueError
    when a single character has more tokens.
    """
    found, start = [], 0
    while start < len(text):
        end = _furthest(text, start, most, size)
        if end == start:
            raise ValueError(f"one character has more than {most} tokens")
        if end < len(text):
            end = next(filter(None, (_behind(text, mark, start, end) for mark in BREAKS)), end)
        found.append(text[start:end])
        start = end
    return found


async def map_reduce(
    text: str,
    answer: Callable[[str], Awaitable[str]],
    combine: Callable[[Sequence[str]], Awaitable[str]],
    *,
    most: int,
    size: Size = most_tokens,
    at_once: int = 4,
) -> str:
    """`answer` for every part of the text, and `combine` for what comes of them, until it is one.

    At most `at_once` calls run at a time, and what is combined together has at most `most` tokens. A text that is short
    enough is one call of `answer`. Raises ValueError when no two answers that follow each other fit together, and what
    a call raises; those that run then are cancelled.
    """
    turns = asyncio.Semaphore(at_once)
    found = await _all(turns, [partial(answer, part) for part in parts(text, most, size) or [text]])
    while len(found) > 1:
        groups = _groups(found, most, size)
        if len(groups) == len(found):
            raise ValueError(f"no two answers fit into {most} tokens; ask for shorter ones")
        # A group of one answer waits for the next round as it is.
        combined = await _all(turns, [partial(combine, group) for group in groups if len(group) > 1])
        rest = iter(combined)
        found = [next(rest) if len(group) > 1 else group[0] for group in groups]
    return found[0]


async def _all(turns: asyncio.Semaphore, calls: Sequence[Callable[[], Awaitable[str]]]) -> list[str]:
    async def one(call: Callable[[], Awaitable[str]]) -> str:
        async with turns:
            return await call()

    tasks = [asyncio.ensure_future(one(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()  # changes nothing for those that are done
        await asyncio.gather(*tasks, return_exceptions=True)


def _groups(answers: Sequence[str], most: int, size: Size) -> list[list[str]]:
    """Answers that follow each other, as many together as fit."""
    groups: list[list[str]] = []
    room = 0
    for answer in answers:
        tokens = size(answer)
        if not groups or tokens > room:
            groups.append([])
            room = most
        groups[-1].append(answer)
        room -= tokens
    return groups


def _furthest(text: str, start: int, most: int, size: Size) -> int:
    """The end of the longest part from `start`: found by doubling, and then by halving what is between."""
    step = max(1, most)
    while start + step < len(text) and size(text[start : start + step]) <= most:
        step *= 2
    ends = range(start, min(start + step, len(text)) + 1)
    return ends[bisect_right(ends, most, key=lambda end: size(text[start:end])) - 1]


def _behind(text: str, mark: str, start: int, end: int) -> int:
    """The place behind the last `mark` in the second half of a part; zero when it has none."""
    at = text.rfind(mark, start + (end - start) // 2, end)
    return at + len(mark) if at >= 0 else 0
