"""A lane: what waits together is settled together, and one bad request is its own fault alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from settlement.core.errors import NotFound, SettlementError, Unavailable
from settlement.services.lanes import Decided, Lane

pytestmark = pytest.mark.anyio


async def test_what_waits_while_one_batch_runs_shares_the_next() -> None:
    batches: list[list[int]] = []

    async def settle(asks: Sequence[int], _: Decided) -> list[int | SettlementError]:
        batches.append(list(asks))
        await asyncio.sleep(0)
        return [ask * 10 for ask in asks]

    lane: Lane[int, int] = Lane(settle, most=3)
    assert await asyncio.gather(*(lane.take(n) for n in range(8))) == [n * 10 for n in range(8)]
    assert [ask for batch in batches for ask in batch] == list(range(8))
    assert max(map(len, batches)) == 3
    assert len(batches) < 8


async def test_a_refusal_is_raised_to_the_one_who_asked() -> None:
    async def settle(asks: Sequence[int], _: Decided) -> list[int | SettlementError]:
        return [NotFound("unknown_hold", "no") if ask == 1 else ask for ask in asks]

    lane: Lane[int, int] = Lane(settle)
    outcomes = await asyncio.gather(*(lane.take(n) for n in range(3)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [int, NotFound, int]


async def test_a_batch_that_fails_is_taken_apart() -> None:
    async def settle(asks: Sequence[int], _: Decided) -> list[int | SettlementError]:
        if 2 in asks:
            raise ZeroDivisionError
        return list(asks)

    lane: Lane[int, int] = Lane(settle)
    outcomes = await asyncio.gather(*(lane.take(n) for n in range(4)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [int, int, ZeroDivisionError, int]


async def test_a_database_that_is_away_is_asked_once() -> None:
    calls = 0

    async def settle(asks: Sequence[int], _: Decided) -> list[int | SettlementError]:
        nonlocal calls
        calls += 1
        raise Unavailable("database_unavailable", "away")

    lane: Lane[int, int] = Lane(settle)
    outcomes = await asyncio.gather(*(lane.take(n) for n in range(4)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [Unavailable] * 4
    assert calls == 1


async def test_one_who_goes_away_does_not_take_the_others_along() -> None:
    going = asyncio.Event()

    async def settle(asks: Sequence[int], _: Decided) -> list[int | SettlementError]:
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


async def test_while_one_writes_the_next_reads_and_a_third_waits() -> None:
    seen: list[str] = []
    written = [asyncio.Event() for _ in range(4)]

    async def settle(asks: Sequence[int], decided: Decided) -> list[int | SettlementError]:
        seen.append(f"reads {asks[0]}")
        await asyncio.sleep(0)
        decided()
        decided()
        seen.append(f"writes {asks[0]}")
        await written[asks[0]].wait()
        seen.append(f"is done with {asks[0]}")
        return list(asks)

    lane: Lane[int, int] = Lane(settle, most=1)
    tasks = [asyncio.create_task(lane.take(n)) for n in range(4)]
    for _ in range(9):
        await asyncio.sleep(0)
    assert seen == ["reads 0", "writes 0", "reads 1", "writes 1"], "two at once, and only one of them undecided"
    written[1].set()
    for _ in range(9):
        await asyncio.sleep(0)
    assert seen[4:] == ["is done with 1", "reads 2", "writes 2"]
    for event in written:
        event.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]


async def test_what_fails_before_it_is_decided_holds_nobody_up() -> None:
    async def settle(asks: Sequence[int], _: Decided) -> list[int | SettlementError]:
        raise Unavailable("database_unavailable", "away")

    lane: Lane[int, int] = Lane(settle, most=1)
    outcomes = await asyncio.gather(*(lane.take(n) for n in range(5)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [Unavailable] * 5
