"""Refunds: what names nobody goes back to its sender, whole, once, with the tag that the sender asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from adapters.simulated import USD, SimulatedAdapter, Wallet
from settlement.chain import Deposit, Page
from settlement.core.errors import Conflict, NotFound, Unavailable
from settlement.services import chains, funding, halts, refunds, solvency
from settlement.services.context import Context
from settlement.storage import accounts, invariants
from tests.world import World

CHAIN = "simulated"


async def stray(world: World, wallet: Wallet, amount: int = 3_000_000) -> str:
    """A payment that names nobody; the id of its deposit."""
    wallet.pay(world.chain.treasury, USD, amount, 4_000_000_000)
    await funding.read_deposits(world.context, CHAIN)
    return (await funding.suspense(world.context))[-1].id


async def balance(context: Context, account: str) -> int:
    async with context.database.read() as connection:
        return (await accounts.get(connection, account)).settled


async def sound(context: Context) -> None:
    async with context.database.read() as connection:
        assert await invariants.first_violation(connection) is None


async def test_a_stray_payment_goes_back_whole_and_once(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    sender = world.wallet(usd=10_000_000)
    deposit = await stray(world, sender)
    assert sender.balance(USD) == 7_000_000
    found = await asyncio.gather(*(refunds.refund(world.context, deposit) for _ in range(6)))
    assert len({each.id for each in found}) == 1
    assert await funding.suspense(world.context) == []
    assert await balance(world.context, f"transit/{CHAIN}/{USD.text}") == 3_000_000
    await sound(world.context)
    await chains.run_until_idle(world.context, CHAIN)
    assert sender.balance(USD) == 10_000_000
    assert (await refunds.refund(world.context, deposit)).id == found[0].id
    await chains.run_until_idle(world.context, CHAIN)
    assert sender.balance(USD) == 10_000_000
    assert await solvency.reconcile_holdings(world.context, CHAIN) is not None
    assert await halts.open_halts(world.context) == []
    await sound(world.context)


async def test_a_partial_payment_goes_back_as_far_as_it_came(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    sender = world.wallet(usd=10_000_000)
    sender.pay(world.chain.treasury, USD, 9_000_000, 4_000_000_000, partial=1)
    await funding.read_deposits(world.context, CHAIN)
    (deposit,) = await funding.suspense(world.context)
    assert (await refunds.refund(world.context, deposit.id)).amount == 1
    await chains.run_until_idle(world.context, CHAIN)
    assert sender.balance(USD) == 10_000_000


async def test_one_that_is_on_its_way_back_can_not_be_assigned_and_the_other_way_round(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    sender, consumer = world.wallet(usd=10_000_000), await world.consumer()
    first = await stray(world, sender)
    await refunds.refund(world.context, first)
    with pytest.raises(Conflict, match="deposit_not_in_suspense"):
        await funding.assign_suspense(world.context, first, consumer.id)
    second = await stray(world, sender)
    await funding.assign_suspense(world.context, second, consumer.id)
    with pytest.raises(Conflict, match="deposit_not_in_suspense"):
        await refunds.refund(world.context, second)
    await sound(world.context)


async def test_a_refund_that_fails_leaves_the_deposit_in_suspense_and_may_be_tried_again(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    sender = world.wallet(usd=10_000_000)
    deposit = await stray(world, sender)
    world.chain.network.require_reference(sender.address)
    first = await refunds.refund(world.context, deposit)
    await chains.run_until_idle(world.context, CHAIN)
    assert [each.id for each in await funding.suspense(world.context)] == [deposit]
    await sound(world.context)
    world.chain.network.require_reference(sender.address, False)
    second = await refunds.refund(world.context, deposit)
    assert second.id != first.id
    await chains.run_until_idle(world.context, CHAIN)
    assert sender.balance(USD) == 10_000_000
    await sound(world.context)


async def test_the_tag_of_the_sender_goes_back_with_the_money(world: World) -> None:
    """The network behind it has no tags of senders; what a node of such a network tells is put into the page."""
    await funding.open_chain(world.context, CHAIN)
    sender = world.wallet(usd=10_000_000)
    world.chain.network.require_reference(sender.address)

    class Tagged(SimulatedAdapter):
        async def deposits(self, after: str | None) -> Page:
            page = await super().deposits(after)
            tagged: tuple[Deposit, ...] = tuple(replace(each, sender_reference=0) for each in page.deposits)
            return replace(page, deposits=tagged)

    tagged = replace(world.context, chains={CHAIN: Tagged(world.chain.network, world.chain._key)})
    sender.pay(world.chain.treasury, USD, 3_000_000, 4_000_000_000)
    await funding.read_deposits(tagged, CHAIN)
    (deposit,) = await funding.suspense(world.context)
    assert (await refunds.refund(world.context, deposit.id)).reference == 0
    await chains.run_until_idle(world.context, CHAIN)
    assert sender.balance(USD) == 10_000_000


async def test_what_is_not_there_and_what_is_halted_is_refused(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    with pytest.raises(NotFound, match="unknown_deposit"):
        await refunds.refund(world.context, "dep_none")
    deposit = await stray(world, world.wallet(usd=10_000_000))
    await halts.raise_halt(world.context, "holdings_mismatch", "for a test")
    with pytest.raises(Unavailable, match="halted"):
        await refunds.refund(world.context, deposit)
