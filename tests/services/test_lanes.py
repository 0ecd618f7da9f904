"""A lane: what waits together is settled together, and one bad request is its own fault alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from settlement.core.errors import NotFound, SettlementError, Unavailable
from settlement.services.lanes import Lane

pytestmark = pytest.mark.anyio


async def test_what_waits_while_one_batch_runs_shares_the_next() -> None:
    batches: list[list[int]] = []

    async def settle(asks: Sequence[int]) -> list[int | SettlementError]:
        batches.append(list(asks))
        await asyncio.sleep(0)
        return [ask * 10 for ask in asks]

    lane: Lane[int, int] = Lane(settle, most=3)
    assert await asyncio.gather(*(lane.take(n) for n in range(8))) == [n * 10 for n in range(8)]
    assert [ask for batch in batches for ask in batch] == list(range(8))
    assert max(map(len, batches)) == 3
    assert len(batches) < 8


async def test_a_refusal_is_raised_to_the_one_who_asked() -> None:
    async def settle(asks: Sequence[int]) -> list[int | SettlementError]:
        return [NotFound("unknown_hold", "no") if ask == 1 else ask for ask in asks]

    lane: Lane[int, int] = Lane(settle)
    outcomes = await asyncio.gather(*(lane.take(n) for n in range(3)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [int, NotFound, int]


async def test_a_batch_that_fails_is_taken_apart() -> None:
    async def settle(asks: Sequence[int]) -> list[int | SettlementError]:
        if 2 in asks:
            raise ZeroDivisionError
        return list(asks)

    lane: Lane[int, int] = Lane(settle)
    outcomes = await asyncio.gather(*(lane.take(n) for n in range(4)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [int, int, ZeroDivisionError, int]


async def test_a_database_that_is_away_is_asked_once() -> None:
    calls = 0

    async def settle(asks: Sequence[int]) -> list[int | SettlementError]:
        nonlocal calls
        calls += 1
        raise Unavailable("database_unavailable", "away")

    lane: Lane[int, int] = Lane(settle)
    outcomes = await asyncio.gather(*(lane.take(n) for n in range(4)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [Unavailable] * 4
    assert calls == 1


async def test_one_who_goes_away_does_not_take_the_others_along() -> None:
    going = asyncio.Event()

    async def settle(asks: Sequence[int]) -> list[int | SettlementError]:
        await going.wait()
        return list(asks)

    lane: Lane[int, int] = Lane(settle)
    tasks = [asyncio.create_task(lane.take(n)) for n in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    going.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [1, 2]
