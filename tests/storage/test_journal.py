"""The journal: one gapless chain, balances that move with it, and nobody below zero."""

from __future__ import annotations

import asyncio

import pytest
from psycopg.errors import UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import Broken, Insufficient
from settlement.core.journal import GENESIS, Head, chain_hash
from settlement.storage import accounts, journal
from tests.storage.books import balance, damage, entry
from tests.world import World

pytestmark = pytest.mark.database
OURS = "conversion/CU"


async def state(world: World) -> tuple[Head, list[int], int]:
    """The head, every balance, and how many postings there are."""
    async with world.context.database.read() as connection:
        settled = [row.settled for row in await connection.execute(text("SELECT settled FROM account ORDER BY no"))]
        postings = (await connection.execute(text("SELECT count(*) FROM posting"))).scalar_one()
        return await journal.head(connection), settled, int(postings)


async def test_entries_are_chained_and_move_balances(world: World) -> None:
    one, two = await world.consumer(micro=1_000), await world.consumer()
    async with world.context.database.begin() as connection:
        head = await entry(connection, "dep_1", (one.id, -300), (two.id, 100), (two.id, 200))
    assert [await balance(world, each) for each in (one.id, two.id, OURS)] == [700, 300, -1_000]
    previous = Head(0, GENESIS)
    async with world.context.database.read() as connection:
        async for stored in journal.stream(connection):
            assert (stored.seq, stored.previous) == (previous.seq + 1, previous.hash)
            assert stored.hash == chain_hash(stored.seq, stored.previous, stored.payload)
            previous = Head(stored.seq, stored.hash)
        assert previous == head == await journal.head(connection)
        assert [stored.seq async for stored in journal.stream(connection, 2)] == [2]
        assert [stored.subject async for stored in journal.stream(connection, 2, 1)] == []


async def test_what_a_balance_does_not_cover_is_refused_and_changes_nothing(world: World, database_url: str) -> None:
    one, two = await world.consumer(micro=1_000), await world.consumer()
    damage(database_url, f"UPDATE account SET held = 600 WHERE id = '{one.id}'")
    before = await state(world)
    with pytest.raises(Insufficient, match=r"short of 0\.000001 CU"):
        async with world.context.database.begin() as connection:
            await entry(connection, "dep_1", (one.id, -401), (two.id, 401))
    assert await state(world) == before
    async with world.context.database.begin() as connection:
        await entry(connection, "dep_1", (one.id, -400), (two.id, 400))
    assert await balance(world, one.id) == 600


async def test_legs_of_one_account_count_together(world: World) -> None:
    """A leg below the balance is covered by another leg of the same entry."""
    one, two = await world.consumer(micro=10), await world.consumer()
    async with world.context.database.begin() as connection:
        await entry(connection, "dep_1", (one.id, -25), (one.id, 15), (two.id, 10))
    assert [await balance(world, each.id) for each in (one, two)] == [0, 10]


async def test_unbalanced_and_homeless_entries_are_broken(world: World) -> None:
    one = await world.consumer(micro=10)
    before = await state(world)
    for legs, code in (
        (((one.id, -5), (OURS, 4)), "entry_unbalanced"),
        (((one.id, 0), (OURS, 0)), "entry_unbalanced"),
        (((one.id, -5), ("acc_nobody", 5)), "account_missing"),
    ):
        with pytest.raises(Broken, match=code):
            async with world.context.database.begin() as connection:
                await entry(connection, "dep_1", *legs)
    assert await state(world) == before


async def test_a_subject_is_booked_once(world: World) -> None:
    one = await world.consumer(micro=10)
    async with world.context.database.begin() as connection:
        await entry(connection, "dep_1", (one.id, -1), (OURS, 1))
    before = await state(world)
    with pytest.raises((IntegrityError, UniqueViolation), match="uq_journal_entry_kind_subject"):
        async with world.context.database.begin() as connection:
            await entry(connection, "dep_1", (one.id, -1), (OURS, 1))
    assert await state(world) == before


async def test_many_writers_make_one_chain_without_gaps(world: World) -> None:
    """Two consumers pay each other from many sides; what was rolled back leaves no hole."""
    one, two = await world.consumer(micro=100), await world.consumer(micro=100)

    async def write(number: int) -> bool:
        pair = (one.id, two.id) if number % 2 else (two.id, one.id)
        try:
            async with world.context.database.begin() as connection:
                await entry(connection, f"dep_{number}", (pair[0], -3), (pair[1], 3))
                if number % 5 == 0:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return False
        return True

    written = sum(await asyncio.gather(*(write(number) for number in range(40))))
    assert written == 32
    head = Head(0, GENESIS)
    replayed = 0
    async with world.context.database.read() as connection:
        async for stored in journal.stream(connection):
            head = head.extended(stored.payload)
            assert (stored.seq, stored.hash) == (head.seq, head.hash)
            replayed += 1
        assert await journal.head(connection) == head
        found = await accounts.of_kinds(connection, "consumer")
    assert replayed == 2 + written
    assert sum(each.settled for each in found) == 200
