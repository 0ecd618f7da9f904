"""Reading goes on exactly while no transaction needs the process."""

from __future__ import annotations

import asyncio

import pytest

from settlement.services.turns import ROUNDS, Turns

pytestmark = pytest.mark.anyio


async def reader(turns: Turns, read: list[int], number: int) -> None:
    """Reads one report, which takes its time."""
    async with turns.reading():
        read.append(number)


async def rounds() -> None:
    """Long enough for every reader that may read."""
    for _ in range(20 * (ROUNDS + 2)):
        await asyncio.sleep(0)


async def test_readers_take_turns_in_order() -> None:
    turns, read = Turns(), list[int]()
    await asyncio.gather(*(reader(turns, read, number) for number in range(5)))
    assert read == [0, 1, 2, 3, 4]


async def test_nothing_is_read_while_a_transaction_talks() -> None:
    turns, read = Turns(), list[int]()
    with turns.talking():
        waiting = [asyncio.create_task(reader(turns, read, number)) for number in range(3)]
        await rounds()
        assert read == []
        with turns.listening():
            await rounds()
            assert read == [0, 1, 2]
        waiting.append(asyncio.create_task(reader(turns, read, 3)))
        await rounds()
        assert read == [0, 1, 2]
    await asyncio.gather(*waiting)
    assert read == [0, 1, 2, 3]


async def test_a_pause_that_ends_at_once_lets_nobody_in() -> None:
    """The wake-up of a reader comes later than the event; by then the transaction may talk again."""
    turns, read = Turns(), list[int]()
    with turns.talking():
        waiting = asyncio.create_task(reader(turns, read, 0))
        await rounds()
        with turns.listening():
            pass
        await rounds()
        assert read == []
    await waiting


async def test_a_transaction_that_fails_leaves_the_turn_to_others() -> None:
    turns, read = Turns(), list[int]()
    with pytest.raises(RuntimeError, match="gone"), turns.talking(), turns.listening():
        raise RuntimeError("gone")
    await reader(turns, read, 0)
    assert read == [0]


async def test_a_reader_that_gives_up_does_not_keep_the_turn() -> None:
    turns, read = Turns(), list[int]()
    with turns.talking():
        gone = asyncio.create_task(reader(turns, read, 0))
        await rounds()
        gone.cancel()
        waiting = asyncio.create_task(reader(turns, read, 1))
        await rounds()
    await waiting
    assert read == [1]


async def test_two_transactions_never_talk_at_once() -> None:
    turns = Turns()
    with turns.talking(), pytest.raises(AssertionError), turns.talking():
        pass
