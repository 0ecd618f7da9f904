"""Windows: one is open, a close and an entry never meet, and steps are claimed by one worker in order."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import NotFound, Unavailable
from settlement.storage import windows
from settlement.storage.database import Database
from tests.storage.books import entry
from tests.world import START, World

pytestmark = pytest.mark.database
HOUR = timedelta(hours=1)


async def opened(database: Database, closed: int = 0) -> None:
    """Window 1, and as many closed ones as asked for."""
    async with database.begin() as connection:
        await windows.open_first(connection, START)
        for at in range(closed):
            await windows.close_open(connection, START + (at + 1) * HOUR)


async def test_the_first_window_is_opened_once(database: Database) -> None:
    await asyncio.gather(*(opened(database) for _ in range(4)))
    async with database.begin() as connection:
        await windows.open_first(connection, START + HOUR)
        (found,) = await windows.listed(connection)
        assert await windows.open_since(connection) == START
        assert await windows.enter(connection) == 1
    assert (found.id, found.state, found.opened_at, found.first_seq, found.last_seq) == (
        "win_1",
        "open",
        START,
        1,
        None,
    )


async def test_windows_are_contiguous_in_entries_and_in_time(world: World) -> None:
    consumer = await world.consumer(micro=10)
    async with world.context.database.begin() as connection:
        first = await windows.close_open(connection, START + HOUR)
        second = await windows.close_open(connection, START + 2 * HOUR)
        await entry(connection, "dep_1", (consumer.id, -1), ("conversion/CU", 1))
        third = await windows.close_open(connection, START + 3 * HOUR)
        (fourth, *_) = await windows.listed(connection)
    assert [(each.first_seq, each.last_seq) for each in (first, second, third)] == [(1, 1), (2, 1), (2, 2)]
    assert [each.opened_at for each in (second, third, fourth)] == [each.closed_at for each in (first, second, third)]
    assert (fourth.no, fourth.state, fourth.first_seq, fourth.closed_at) == (4, "open", 3, None)


async def test_a_clock_that_was_set_back_ends_no_window_before_it_began(database: Database) -> None:
    await opened(database)
    async with database.begin() as connection:
        closed = await windows.close_open(connection, START - HOUR)
    assert closed.closed_at == closed.opened_at == START


async def test_a_close_waits_for_whoever_has_entered(database: Database) -> None:
    await opened(database)
    async with database.begin() as inside:
        assert await windows.enter(inside) == 1
        async with database.begin() as beside:
            assert await windows.enter(beside) == 1
        with pytest.raises(Unavailable):
            async with database.begin() as closing:
                await closing.execute(text("SET LOCAL lock_timeout = '50ms'"))
                await windows.close_open(closing, START + HOUR)
    async with database.begin() as closing:
        await windows.close_open(closing, START + HOUR)
        with pytest.raises(Unavailable):
            async with database.begin() as late:
                await late.execute(text("SET LOCAL lock_timeout = '50ms'"))
                await windows.enter(late)


async def test_whoever_waited_for_a_close_enters_the_next_window(database: Database) -> None:
    await opened(database)

    async def late() -> int:
        async with database.begin() as connection:
            return await windows.enter(connection)

    async with database.begin() as closing:
        await windows.close_open(closing, START + HOUR)
        waiting = asyncio.create_task(late())
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert await waiting == 2


async def test_two_windows_are_never_open(database: Database) -> None:
    await opened(database, closed=1)
    with pytest.raises(IntegrityError):
        async with database.begin() as connection:
            await connection.execute(text("UPDATE \"window\" SET state = 'open', closed_at = NULL WHERE no = 1"))


async def test_pages_and_unknown_numbers(database: Database) -> None:
    await opened(database, closed=4)
    async with database.begin() as connection:
        assert [each.no for each in await windows.listed(connection, limit=2)] == [5, 4]
        assert [each.no for each in await windows.listed(connection, before=4)] == [3, 2, 1]
        assert (await windows.get(connection, 3)).closed_at == START + 3 * HOUR
        with pytest.raises(NotFound, match="unknown_window"):
            await windows.get(connection, 6)


async def test_a_step_is_claimed_in_order_by_one_worker(database: Database) -> None:
    await opened(database, closed=2)
    done = frozenset({"netted"})
    async with database.begin() as one, database.begin() as two:
        assert await windows.claim(one, 2, "closed", after=done) is None, "the window before it isn't netted"
        assert await windows.claim(one, 1, "netted", after=done) is None, "it is in another state"
        assert await windows.claim(one, 9, "closed", after=done) is None, "there is none"
        claimed = await windows.claim(one, 1, "closed", after=done)
        assert claimed is not None
        assert claimed.no == 1
        assert await windows.claim(two, 1, "closed", after=done) is None, "another worker has it"
        await windows.advance(one, 1, "netted")
    async with database.begin() as connection:
        assert await windows.claim(connection, 2, "closed", after=done) is not None
        assert [(each.no, each.state) for each in await windows.unfinished(connection)] == [
            (1, "netted"),
            (2, "closed"),
        ]
        await windows.advance(connection, 1, "planned")
        assert [each.no for each in await windows.unfinished(connection)] == [2]


async def test_a_claim_that_was_rolled_back_is_free(database: Database) -> None:
    await opened(database, closed=1)
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as connection:
            assert await windows.claim(connection, 1, "closed", after=frozenset()) is not None
            await windows.advance(connection, 1, "netted")
            raise ZeroDivisionError
    async with database.begin() as connection:
        assert await windows.claim(connection, 1, "closed", after=frozenset()) is not None


async def test_the_first_anchor_counts(database: Database) -> None:
    await opened(database, closed=1)
    async with database.begin() as connection:
        await windows.mark_anchored(connection, 1, START + 5 * HOUR)
        await windows.mark_anchored(connection, 1, START + 9 * HOUR)
        assert (await windows.get(connection, 1)).anchored_at == START + 5 * HOUR
