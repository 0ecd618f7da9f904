"""Payouts as rows: planned once, batched by window, moved along legal steps alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import Broken
from settlement.storage import chain_orders, parties, payouts, positions, windows
from settlement.storage.database import Connection
from settlement.storage.parties import PayoutAddress
from settlement.storage.payouts import Payout
from settlement.storage.positions import Decided
from tests.world import START, Member, World

pytestmark = pytest.mark.database
CHAIN, ASSET = "simulated", "USD:x"


def planned(provider: Member, window: int, number: int) -> Payout:
    return Payout(
        f"pay_{number:026}", window, provider.party.no, provider.id, CHAIN, ASSET, 5, 1111, "addr", 7, "planned",
        None, None, None, START,
    )  # fmt: skip


async def order(connection: Connection, name: str, window: int) -> None:
    assert await chain_orders.add(
        connection, order_id=name, kind="payout", chain=CHAIN, window_no=window, digest=None, now=START
    )


async def two_windows(world: World) -> list[Payout]:
    """Three providers; window 1 has two payouts and window 2 one."""
    members = [await world.provider() for _ in range(3)]
    rows = [planned(members[0], 1, 2), planned(members[1], 1, 3), planned(members[2], 2, 1)]
    async with world.context.database.begin() as connection:
        await windows.close_open(connection, START)
        await payouts.add(connection, rows)
    return rows


async def test_a_window_is_planned_once(world: World) -> None:
    first, second, _ = await two_windows(world)
    async with world.context.database.begin() as connection:
        await payouts.add(connection, [])
        assert await payouts.of_window(connection, 1) == [first, second]
    with pytest.raises(IntegrityError, match="uq_payout"):
        async with world.context.database.begin() as connection:
            await payouts.add(connection, [replace(first, id="pay_another")])
    with pytest.raises(IntegrityError, match="ck_payout_amount"):
        async with world.context.database.begin() as connection:
            await payouts.add(connection, [replace(first, id="pay_another", window_no=2, amount=0)])
    async with world.context.database.read() as connection:
        assert await payouts.waiting(connection, CHAIN) == 3
        assert await payouts.waiting(connection, "another") == 0


async def test_a_batch_is_of_the_oldest_window_and_of_one_worker(world: World) -> None:
    first, second, third = await two_windows(world)
    async with world.context.database.begin() as one, world.context.database.begin() as two:
        assert await payouts.next_batch(one, CHAIN, 1) == [first]
        assert await payouts.next_batch(two, CHAIN, 9) == [second], "what another worker holds is left alone"
        assert await payouts.next_batch(one, "another", 9) == []
        await order(one, "ord_1", 1)
        await payouts.assign(one, [first], "ord_1")
    async with world.context.database.begin() as connection:
        await order(connection, "ord_2", 1)
        await payouts.assign(connection, await payouts.next_batch(connection, CHAIN, 9), "ord_2")
        assert await payouts.next_batch(connection, CHAIN, 9) == [third], "a younger window comes when no older waits"


async def test_steps_keep_to_the_states(world: World) -> None:
    first, second, _ = await two_windows(world)
    async with world.context.database.begin() as connection:
        await order(connection, "ord_1", 1)
        await payouts.assign(connection, [second, first], "ord_1")
        found = await payouts.of_order(connection, "ord_1", lock=True)
        assert [(each.id, each.transfer, each.state) for each in found] == [
            (second.id, 0, "ordered"),
            (first.id, 1, "ordered"),
        ]
        await payouts.end(connection, found[0], "settled")
        await payouts.give_back(connection, found[1], "the order failed")
        (settled,) = await payouts.of_order(connection, "ord_1")
        back = (await payouts.of_window(connection, 1))[0]
        assert (back.id, back.state, back.order_id, back.transfer) == (first.id, "planned", None, None)
        assert back.detail == "the order failed"
        for wrong in (
            payouts.end(connection, settled, "failed"),
            payouts.end(connection, back, "settled"),
            payouts.give_back(connection, settled, "x"),
            payouts.assign(connection, [settled], "ord_1"),
        ):
            with pytest.raises(Broken, match="illegal_step"):
                await wrong
        assert await payouts.of_order(connection, "ord_1") == [settled]


async def test_two_payouts_are_never_the_same_transfer(world: World) -> None:
    first, second, _ = await two_windows(world)
    with pytest.raises(IntegrityError, match="uq_payout_order_id"):
        async with world.context.database.begin() as connection:
            await order(connection, "ord_1", 1)
            await payouts.assign(connection, [first], "ord_1")
            await payouts.assign(connection, [second], "ord_1")


async def test_an_address_that_was_called_off_is_never_due(world: World) -> None:
    """A change is asked for and, while it waits, the address in force is asked for again: the last request counts."""
    provider, poor = await world.provider(), await world.provider()
    day = timedelta(days=1)
    requests = (("first", START, START), ("thief", START, START + 3 * day), ("first", START + day, START + day))
    for address, requested, valid_from in requests:
        asked = PayoutAddress(CHAIN, ASSET, address, None, valid_from)
        async with world.context.database.begin() as connection:
            await parties.add_payout_address(connection, provider.party.no, asked, b"{}", "s", requested)
    rows = [
        Decided(1, provider.id, 0, 9, 9, 0, 9, CHAIN, ASSET, 1, bytes(16)),
        Decided(1, poor.id, 0, 9, 9, 0, 0, CHAIN, ASSET, 0, bytes(16)),
    ]
    async with world.context.database.begin() as connection:
        await positions.store(connection, rows)
        for after in (0, 1, 2, 3, 100):
            (found,) = await payouts.due(connection, 1, START + after * day)
            assert (found.party_id, found.address, found.amount, found.micro) == (provider.id, "first", 1, 9)
        (early,) = await payouts.due(connection, 1, START - day)
        assert early.address is None
