"""Accounts: made once, read by id, locked in one order."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from settlement.core.errors import NotFound, Unavailable
from settlement.storage import accounts
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection, Database
from tests.storage.books import damage
from tests.world import World

pytestmark = pytest.mark.database


async def made(database: Database, *ids: str) -> None:
    async with database.begin() as connection:
        for account_id in ids:
            await accounts.ensure(connection, account_id, "equity", "CU")


def test_ids_of_our_own_accounts() -> None:
    assert system_account("transit") == "transit/CU"
    assert system_account("treasury", "simulated", "USD:sim1x") == "treasury/simulated/USD:sim1x"


async def test_an_account_is_made_once_and_keeps_what_it_is(database: Database) -> None:
    async with database.begin() as connection:
        await accounts.ensure(connection, "suspense/x/USD", "suspense", "x/USD")
        first = await accounts.get(connection, "suspense/x/USD")
        await accounts.ensure(connection, "suspense/x/USD", "equity", "CU")
        assert await accounts.get(connection, "suspense/x/USD") == first
    assert (first.kind, first.asset, first.settled, first.available) == ("suspense", "x/USD", 0, 0)


async def test_an_unknown_account(database: Database) -> None:
    await made(database, "equity/CU")
    async with database.begin() as connection:
        assert (await accounts.lock(connection, ["equity/CU", "acc_nobody", "equity/CU"])).keys() == {"equity/CU"}
        with pytest.raises(NotFound, match="unknown_account"):
            await accounts.get(connection, "acc_nobody")


async def test_what_is_held_is_not_available(world: World, database_url: str) -> None:
    consumer = await world.consumer(micro=1_000)
    damage(database_url, f"UPDATE account SET held = 400 WHERE id = '{consumer.id}'")
    async with world.context.database.read() as connection:
        found = await accounts.get(connection, consumer.id)
    assert (found.settled, found.held, found.available) == (1_000, 400, 600)


async def test_only_our_own_side_may_be_below_zero(database: Database) -> None:
    """The floor is the database's own: no code path can pass it."""
    async with database.begin() as connection:
        await accounts.ensure(connection, "treasury/x/USD", "treasury", "x/USD")
        await accounts.ensure(connection, "transit/CU", "transit", "CU")
        await connection.execute(text("UPDATE account SET settled = -5 WHERE kind = 'treasury'"))
    with pytest.raises(Exception, match="ck_account_floor"):
        async with database.begin() as connection:
            await connection.execute(text("UPDATE account SET settled = -1 WHERE kind = 'transit'"))


async def test_of_kinds_are_in_byte_order(database: Database) -> None:
    """The trees order ids by bytes, which no collation of the server's does."""
    await made(database, "equity/b", "equity/B", "equity/a", "equity/_", "equity/Z")
    async with database.read() as connection:
        found = [each.id for each in await accounts.of_kinds(connection, "equity")]
        assert await accounts.of_kinds(connection, "fees") == []
    assert found == ["equity/B", "equity/Z", "equity/_", "equity/a", "equity/b"]


async def test_locks_are_taken_in_one_order_whatever_the_caller_says(database: Database) -> None:
    names = [f"equity/{at}" for at in range(6)]
    await made(database, *names[::-1])
    turns = 0

    async def worker(order: list[str]) -> None:
        async def use_case(connection: Connection) -> None:
            nonlocal turns
            turns += 1
            await accounts.lock(connection, order)
            await asyncio.sleep(0)

        for _ in range(15):
            await database.run(use_case)

    await asyncio.gather(*(worker(names if at % 2 else names[::-1]) for at in range(6)))
    assert turns == 6 * 15, "a deadlock would have restarted a use case"


async def test_who_waits_for_the_first_account_holds_none_behind_it(database: Database) -> None:
    """The row of the lowest number is last in the table and in the index here: an unordered scan ends with it."""
    await made(database, "equity/first", "equity/high")
    async with database.begin() as connection:
        await connection.execute(text("UPDATE account SET id = 'equity/low' WHERE id = 'equity/first'"))

    async def both() -> None:
        async with database.begin() as connection:
            await accounts.lock(connection, ["equity/high", "equity/low"])

    async with database.begin() as holder:
        await accounts.lock(holder, ["equity/low"])
        waiting = asyncio.create_task(both())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        async with database.begin() as other:
            await other.execute(text("SET LOCAL lock_timeout = '50ms'"))
            assert len(await accounts.lock(other, ["equity/high"])) == 1
    await waiting


async def test_a_locked_account_waits_for_its_holder(database: Database) -> None:
    await made(database, "equity/a", "equity/b")
    async with database.begin() as holder:
        await accounts.lock(holder, ["equity/a"])
        async with database.begin() as other:
            await other.execute(text("SET LOCAL lock_timeout = '50ms'"))
            assert len(await accounts.lock(other, ["equity/b"])) == 1
        with pytest.raises(Unavailable, match="database_unavailable"):
            async with database.begin() as other:
                await other.execute(text("SET LOCAL lock_timeout = '50ms'"))
                await accounts.lock(other, ["equity/a"])
