"""Claims, slots and what can't be changed, on the real tables."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from settlement.chain import Slot, Transaction
from settlement.core.errors import Broken
from settlement.services import payouts
from settlement.storage import chain_orders
from settlement.storage.chain_orders import BusySlots, Order
from settlement.storage.database import Connection
from tests.simulation.harness import CHAIN, Installation, installed
from tests.world import START


@pytest.fixture
async def installation(database_url: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database_url, tmp_path) as made:
        number, _ = await made.window(random.Random(1))
        await payouts.plan(made.process(), number)
        yield made


def signed(order: Order, number: int) -> Transaction:
    return Transaction(f"{order.id}/{number}", (), b"bytes", Slot("ours", number), 1, 13, 12)


async def anchor(connection: Connection) -> Order:
    (found,) = await chain_orders.in_states(connection, CHAIN, ("planned",))
    return found


async def test_one_claim_at_a_time_and_only_as_it_was_read(installation: Installation) -> None:
    database = installation.database
    async with database.begin() as first, database.begin() as second:
        order = await anchor(first)
        assert await chain_orders.claim(first, order)
        assert not await chain_orders.claim(second, order)  # does not wait
    async with database.begin() as connection:
        assert not await chain_orders.claim(connection, replace(order, attempts=1))
        assert not await chain_orders.claim(connection, replace(order, state="unknown"))
        assert await chain_orders.claim(connection, order)


async def test_an_illegal_step_is_broken(installation: Installation) -> None:
    async with installation.database.begin() as connection:
        order = await anchor(connection)
        with pytest.raises(Broken, match="illegal_step"):
            await chain_orders.move(connection, order, "settled", now=START)


async def test_a_slot_given_back_is_free_until_the_next_order_has_it(installation: Installation) -> None:
    async with installation.database.begin() as connection:
        order = await anchor(connection)
        await chain_orders.lock_account(connection, CHAIN, Slot("ours", 5))
        await chain_orders.set_mark(connection, CHAIN, "ours", 6)
        await chain_orders.add_attempt(connection, order, signed(order, 5), START)
        assert Slot("ours", 5) in await chain_orders.busy_slots(connection, CHAIN)
        order = replace(order, state="signed", attempts=1, slot=Slot("ours", 5))
        await chain_orders.move(
            connection, order, "failed", now=START, slot_account=None, slot_kind=None, slot_number=None
        )
        assert Slot("ours", 5) not in await chain_orders.busy_slots(connection, CHAIN)
        assert Slot("ours", 4) in await chain_orders.busy_slots(connection, CHAIN)
        again = {"kind": "anchor", "chain": CHAIN, "window_no": order.window_no, "digest": order.digest, "now": START}
        assert await chain_orders.add(connection, order_id="anc_2", **again)  # type: ignore[arg-type]
        assert not await chain_orders.add(connection, order_id="anc_3", **again)  # type: ignore[arg-type]
        second = await chain_orders.get(connection, "anc_2")
        assert second is not None
        assert not await chain_orders.slot_taken(connection, second, Slot("ours", 5))
        await chain_orders.add_attempt(connection, second, signed(second, 5), START)
        assert Slot("ours", 5) in await chain_orders.busy_slots(connection, CHAIN)
        assert await chain_orders.slot_taken(connection, order, Slot("ours", 5))


async def test_attempts_and_events_can_not_be_changed(installation: Installation) -> None:
    async with installation.database.begin() as connection:
        order = await anchor(connection)
        await chain_orders.add_attempt(connection, order, signed(order, 5), START)
        assert [event.state for event in await chain_orders.events(connection, order.id)] == ["signed"]
    for statement in ("UPDATE attempt SET blob = ''", "DELETE FROM attempt", "DELETE FROM attempt_event"):
        with pytest.raises(DBAPIError, match=r"permission denied|append-only"):
            async with installation.database.begin() as connection:
                await connection.execute(text(statement))


async def test_a_released_mark_never_goes_back(installation: Installation) -> None:
    async with installation.database.begin() as connection:
        await chain_orders.lock_account(connection, CHAIN, Slot("ours", 9))
        assert not await chain_orders.release(connection, CHAIN, "ours", 12)  # it isn't frozen
        await chain_orders.freeze(connection, CHAIN, "ours", "why")
        assert Slot("ours", 20) in await chain_orders.busy_slots(connection, CHAIN)
        assert await chain_orders.release(connection, CHAIN, "ours", 3)
        found = {each.account: each for each in await chain_orders.signing_accounts(connection, CHAIN)}
        assert (found["ours"].next_number, found["ours"].frozen) == (9, None)


def test_slots_that_were_given_out_are_busy_unless_given_back() -> None:
    busy = BusySlots(
        {"ours": 10, "cold": 3},
        frozenset({"cold"}),
        frozenset({Slot("ours", 4)}),
        frozenset({Slot("ours", 50, "ticket")}),
    )
    assert Slot("ours", 9) in busy  # also to a node that lags
    assert Slot("ours", 10) not in busy
    assert Slot("ours", 4) not in busy
    assert Slot("cold", 7) in busy
    assert Slot("new", 1) not in busy
    assert Slot("ours", 50, "ticket") in busy
    assert Slot("ours", 5, "ticket") not in busy
