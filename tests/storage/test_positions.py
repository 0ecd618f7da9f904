"""Positions: in the order of their leaves, and what each payee had at the close."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from settlement.core.checkpoints import PayoutTotal
from settlement.services import metering
from settlement.storage import parties, positions, windows
from settlement.storage.parties import PayoutAddress
from settlement.storage.positions import Decided, Payee
from tests.storage.books import balance, damage
from tests.world import START, Member, World

pytestmark = pytest.mark.database


def decided(party: str, *, window: int = 1, payout: int = 0, amount: int = 0, asset: str | None = None) -> Decided:
    chain = None if asset is None else "simulated"
    return Decided(window, party, 0, payout, payout, 0, payout, chain, asset, amount, bytes(16))


async def earn(world: World, provider: Member, consumer: Member, records: int = 1) -> int:
    """Usage in the open window; what the provider earned by it."""
    before = await balance(world, provider.id)
    body, signature = world.report(provider, [world.record(consumer) for _ in range(records)])
    await metering.submit(world.context, body=body, signature=signature)
    return await balance(world, provider.id) - before


async def payees(world: World, window: int = 1) -> dict[str, Payee]:
    async with world.context.database.read() as connection:
        return {each.party: each for each in await positions.payees(connection, window, START)}


async def test_they_are_read_in_the_order_of_their_leaves(world: World) -> None:
    rows = [decided(party, payout=7) for party in ("prv_b", "prv_B", "acc_z", "prv_a")]
    async with world.context.database.begin() as connection:
        await positions.store(connection, rows)
        found = await positions.of_window(connection, 1)
        assert await positions.of_window(connection, 2) == []
    assert [each.party for each in found] == ["acc_z", "prv_B", "prv_a", "prv_b"]
    assert set(found) == set(rows)
    assert found[0].leaf() == rows[2].leaf() != rows[0].leaf()


async def test_a_window_is_decided_once(world: World) -> None:
    async with world.context.database.begin() as connection:
        await positions.store(connection, [decided("prv_a", payout=7)])
    with pytest.raises(Exception, match="position") as refused:
        async with world.context.database.begin() as connection:
            await positions.store(connection, [decided("prv_b"), decided("prv_a", payout=9)])
    assert "duplicate key" in str(refused.value)
    assert not isinstance(refused.value, IntegrityError), "COPY goes by the driver"
    async with world.context.database.read() as connection:
        assert [(each.party, each.payout) for each in await positions.of_window(connection, 1)] == [("prv_a", 7)]


async def test_totals_are_by_chain_and_asset(world: World) -> None:
    rows = [
        decided("prv_a", payout=5, amount=2, asset="USD:x"),
        decided("prv_b", payout=5, amount=3, asset="EUR:x"),
        decided("prv_c", payout=5, amount=4, asset="USD:x"),
        decided("prv_d", asset="USD:x"),
    ]
    async with world.context.database.begin() as connection:
        await positions.store(connection, rows)
        assert await positions.payout_totals(connection, 1) == [
            PayoutTotal("simulated", "EUR:x", 1, 3),
            PayoutTotal("simulated", "USD:x", 2, 6),
        ]
        assert await positions.payout_totals(connection, 2) == []


async def test_what_later_windows_earned_is_not_due(world: World) -> None:
    consumer = await world.consumer(micro=10**9)
    provider = await world.provider(wallet=world.wallet())
    first = await earn(world, provider, consumer, 3)
    async with world.context.database.begin() as connection:
        await windows.close_open(connection, START)
    second = await earn(world, provider, consumer, 2)
    assert second > 0
    assert (await payees(world))[provider.id].due == first
    assert (await payees(world, 2))[provider.id].due == first + second


async def test_what_is_held_back_is_found_by_its_time(world: World) -> None:
    """Otherwise each netting reads all positions of all time: of 600,000 that took seconds."""
    query = positions.PAYEES.bindparams(window=2, closed_at=START)
    async with world.context.database.begin() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        compiled = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join((await connection.execute(text(f"EXPLAIN {compiled}"))).scalars())
    assert "Index Cond: (held_until >" in plan, plan


async def test_what_was_decided_and_not_set_aside_is_not_due_again(world: World) -> None:
    """Window 1 is netted and waits for its payouts: window 2 must not promise the same money."""
    consumer = await world.consumer(micro=10**9)
    provider = await world.provider(wallet=world.wallet())
    first = await earn(world, provider, consumer)
    async with world.context.database.begin() as connection:
        await windows.close_open(connection, START)
        await positions.store(connection, [decided(provider.id, payout=first - 10, amount=1, asset="USD:x")])
        await windows.advance(connection, 1, "netted")
    second = await earn(world, provider, consumer)
    assert (await payees(world, 2))[provider.id].due == second + 10
    async with world.context.database.begin() as connection:
        await windows.advance(connection, 1, "checkpointed")
    assert (await payees(world, 2))[provider.id].due == second + 10
    async with world.context.database.begin() as connection:
        await windows.advance(connection, 1, "planned")
    assert (await payees(world, 2))[provider.id].due == first + second, "now the books hold what was set aside"


async def test_who_is_no_payee(world: World, database_url: str) -> None:
    consumer = await world.consumer(micro=10**9)
    good, held, suspended, late = [await world.provider(wallet=world.wallet()) for _ in range(4)]
    pending = await world.provider(wallet=world.wallet())
    homeless, idle = await world.provider(), await world.provider(wallet=world.wallet())
    providers = (good, held, suspended, late, homeless, pending)
    earned = {each.id: await earn(world, each, consumer) for each in providers}
    damage(
        database_url,
        f"UPDATE account SET held = 1000 WHERE id = '{held.id}'",
        f"UPDATE payout_address SET valid_from = valid_from + interval '1 hour' WHERE party_no = {late.party.no}",
    )
    async with world.context.database.begin() as connection:
        await parties.set_status(connection, suspended.id, "suspended")
        await parties.set_status(connection, pending.id, "pending")
    found = await payees(world)
    assert {party: each.due for party, each in found.items()} == {
        good.id: earned[good.id],
        held.id: earned[held.id] - 1000,
        suspended.id: earned[suspended.id],
    }
    assert idle.id not in found


async def test_the_asset_is_that_of_the_address_in_force_at_the_close(world: World) -> None:
    consumer = await world.consumer(micro=10**9)
    provider = await world.provider(wallet=world.wallet())
    await earn(world, provider, consumer)
    before = (await payees(world))[provider.id]
    for asset, valid_from in (("LATER:x", START + timedelta(microseconds=1)), ("NOW:x", START)):
        address = PayoutAddress("another", asset, "a", None, valid_from)
        async with world.context.database.begin() as connection:
            await parties.add_payout_address(connection, provider.party.no, address, b"{}", "s", START)
        after = (await payees(world))[provider.id]
        if valid_from > START:
            assert after == before
    assert (after.chain, after.asset, after.due) == ("another", "NOW:x", before.due)
