"""Restoring a backup of any age: what was paid since is found on the chain and booked, and nobody is paid twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256

import psycopg
import pytest
from sqlalchemy.engine import make_url
from stellar_sdk import MuxedAccount
from xrpl.core.addresscodec import classic_address_to_xaddress

from adapters.simulated import USD
from settlement.chain import PayoutOrder, Transfer
from settlement.core.errors import Conflict
from settlement.services import chains, funding, halts, payouts, recovery, refunds, windows, withdrawals
from settlement.services.context import Context
from settlement.storage import chain_orders
from settlement.storage.database import Database
from tests.client.town import CHAIN, Town, exported, parsed, send, trade, verified
from tests.rippled.peer import XrplPeer
from tests.stellarnet.peer import StellarPeer
from tests.world import World

pytestmark = pytest.mark.database


async def plan_nothing(context: Context, window: int) -> int:
    return 0


async def reach(context: Context, stage: str) -> None:
    """Take the closed windows up to a stage at which the backup is made."""
    if stage == "closed":
        return
    await windows.advance(context, plan_nothing)
    if stage == "checkpointed":
        return
    await windows.advance(context, payouts.plan)
    if stage == "ordered":
        await chains.make_orders(context, CHAIN)


@asynccontextmanager
async def backup(world: World, url: str) -> AsyncIterator[Context]:
    """The same installation on a copy of its database as it is now."""
    await world.context.database.close()
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    name = make_url(url).database
    with psycopg.connect(make_url(plain).set(database="postgres").render_as_string(hide_password=False),
                         autocommit=True) as server:  # fmt: skip
        server.execute(f'CREATE DATABASE "{name}_backup" TEMPLATE "{name}"'.encode())
        restored = Database(make_url(url).set(database=f"{name}_backup").render_as_string(hide_password=False))
        try:
            yield replace(world.context, database=restored)
        finally:
            await restored.close()
            server.execute(f'DROP DATABASE "{name}_backup" WITH (FORCE)'.encode())


def paid(town: Town) -> int:
    """What the treasury holds on the chain: it falls by what is paid."""
    with town.world.chain.network.snapshot() as view:
        return view.balance(town.world.chain.treasury, USD)


@pytest.mark.parametrize("stage", ["closed", "checkpointed", "planned", "ordered"])
async def test_what_was_paid_after_the_backup_is_booked_and_not_paid_again(
    world: World, database_url: str, stage: str, village: Town
) -> None:
    world.sources.settable.advance(minutes=10)
    await windows.close(world.context)
    await reach(world.context, stage)
    async with backup(world, database_url) as restored:
        await windows.advance(world.context, payouts.plan)
        await chains.run_until_idle(world.context, CHAIN)
        before = paid(village)
        await windows.advance(restored, payouts.plan)
        done = await chains.run_once(restored, CHAIN)
        assert done.signed == 0
        assert [halt.code for halt in await halts.open_halts(restored)] == ["slots_unaccounted"]
        found = await recovery.match(restored, CHAIN)
        assert found.adopted
        assert all(not sent.transfers for sent in found.foreign), "only anchors of checkpoints that were made anew"
        states = {payout.state for payout in await payouts.of_window(restored, 2) if payout.kind == "earnings"}
        assert states == {"settled"}
        assert paid(village) == before
        await recovery.release(restored, CHAIN, world.chain.treasury, found.next_numbers[world.chain.treasury])
        for halt in await halts.open_halts(restored):
            await halts.clear(restored, halt.no, "operator")
        assert (await chains.run_until_idle(restored, CHAIN)).idle
        assert paid(village) == before
        assert (await recovery.match(restored, CHAIN)).adopted == ()
        report = verified(parsed(await exported(restored)))
        assert report.fault is None, report.fault


async def test_a_transfer_that_no_order_explains_keeps_the_account_frozen(
    world: World, database_url: str, village: Town
) -> None:
    """The backup is older than the usage that was paid for: its records are gone from the books."""
    async with backup(world, database_url) as restored:
        await trade(village, 7)
        world.sources.settable.advance(minutes=10)
        await windows.close(world.context)
        await windows.advance(world.context, payouts.plan)
        await chains.run_until_idle(world.context, CHAIN)
        before = paid(village)
        await windows.close(restored)
        await windows.advance(restored, payouts.plan)
        await chains.run_once(restored, CHAIN)
        found = await recovery.match(restored, CHAIN)
        assert any(sent.transfers for sent in found.foreign)
        with pytest.raises(Conflict, match="history_unmatched"):
            await recovery.release(restored, CHAIN, world.chain.treasury, found.next_numbers[world.chain.treasury])
        async with restored.database.read() as connection:
            (account,) = await chain_orders.signing_accounts(connection, CHAIN)
        assert account.frozen is not None
        await chains.run_until_idle(restored, CHAIN)
        assert paid(village) == before


async def in_suspense(world: World) -> str:
    """A deposit that names nobody, from a wallet of its own."""
    world.wallet(usd=700_000).pay(world.chain.treasury, USD, 700_000, 4_000_000_000)
    await funding.read_deposits(world.context, CHAIN)
    return (await funding.suspense(world.context))[-1].id


async def ask(context: Context, town: Town, waiting: str) -> list[str]:
    """A withdrawal, and the refund of a deposit."""
    request = sha256(b"a request").digest()
    taken = await withdrawals.withdraw(context, town.buyer.party, amount=500_000_001, request=request)
    return [taken.id, (await refunds.refund(context, waiting)).id]


async def go_on(context: Context, town: Town, next_number: int) -> None:
    """What the operator does when everything is explained."""
    await recovery.release(context, CHAIN, town.world.chain.treasury, next_number)
    for halt in await halts.open_halts(context):
        await halts.clear(context, halt.no, "operator")
    assert (await chains.run_until_idle(context, CHAIN)).idle
    report = verified(parsed(await exported(context)))
    assert report.fault is None, report.fault


@pytest.mark.parametrize("known", ["asked", "ordered", "neither"])
async def test_withdrawals_and_refunds_are_found_by_what_was_asked_for(
    world: World, database_url: str, known: str, village: Town
) -> None:
    """The backup knows them, or has lost them and they are asked for again: they have the ids that the chain has seen,
    however they were put together there. What nobody has paid yet is paid, and nothing twice."""
    await chains.run_until_idle(world.context, CHAIN)
    await world.payable(village.buyer, world.wallet())
    waiting = await in_suspense(world)
    ids = await ask(world.context, village, waiting) if known != "neither" else []
    if known == "ordered":
        await chains.make_orders(world.context, CHAIN)
    async with backup(world, database_url) as restored:
        if known == "neither":
            taken = await withdrawals.withdraw(
                world.context, village.buyer.party, amount=500_000_001, request=sha256(b"a request").digest()
            )
            await chains.run_until_idle(world.context, CHAIN)
            ids = [taken.id, (await refunds.refund(world.context, waiting)).id]
        await chains.run_until_idle(world.context, CHAIN)
        before = paid(village)
        await chains.run_once(restored, CHAIN)
        assert [halt.code for halt in await halts.open_halts(restored)] == ["slots_unaccounted"]
        other = await withdrawals.withdraw(
            restored, village.buyer.party, amount=300_000_000, request=sha256(b"b").digest()
        )
        assert await ask(restored, village, waiting) == ids, "taken in while the history is unmatched"
        found = await recovery.match(restored, CHAIN)
        assert found.adopted
        assert not [sent for sent in found.foreign if sent.transfers]
        assert paid(village) == before
        await go_on(restored, village, found.next_numbers[world.chain.treasury])
        assert paid(village) == before - other.amount


async def test_what_was_asked_for_after_the_backup_is_named_until_it_comes_again(
    world: World, database_url: str, village: Town
) -> None:
    await chains.run_until_idle(world.context, CHAIN)
    await world.payable(village.buyer, world.wallet())
    waiting = await in_suspense(world)
    async with backup(world, database_url) as restored:
        request = sha256(b"all").digest()
        await withdrawals.withdraw(world.context, village.buyer.party, amount=None, request=request)
        await chains.run_until_idle(world.context, CHAIN)
        await refunds.refund(world.context, waiting)
        await chains.run_until_idle(world.context, CHAIN)
        before = paid(village)
        assert (await chains.run_once(restored, CHAIN)).signed == 0
        found = await recovery.match(restored, CHAIN)
        taken, given_back = (found.reasons[sent.tx.id] for sent in found.foreign if sent.transfers)
        assert village.buyer.id in taken
        assert "Idempotency-Key" in taken
        assert f"settlement deposits refund {waiting}" in given_back
        with pytest.raises(Conflict, match=f"history_unmatched.*{village.buyer.id}"):
            await recovery.release(restored, CHAIN, world.chain.treasury, found.next_numbers[world.chain.treasury])
        await refunds.refund(restored, waiting)
        found = await recovery.match(restored, CHAIN)
        assert len(found.adopted) == len(found.reasons) == 1
        assert (await chains.run_until_idle(restored, CHAIN)).signed == 0
        assert paid(village) == before


@pytest.mark.network
async def test_payees_are_told_apart_by_tag_and_id_and_known_in_every_form() -> None:
    """A custodian's one account, its customers' ids: who was paid is account and id, however the order wrote it."""
    xrpl, stellar = await XrplPeer.start(), await StellarPeer.start(history=True)
    try:
        for peer, combined in ((xrpl, x_address), (stellar, m_address)):
            to = await peer.payee()
            forms = [(combined(to, 7), None), (combined(to, 7), 7), (combined(to, 8), None), (to, 9), (to, None)]
            for number, (address, reference) in enumerate(forms):
                order = PayoutOrder(f"pay_{number}", (Transfer(address, peer.stable, 100, reference),))
                await peer.adapter.submit(await peer.adapter.prepare(order, slot=None, busy=()))
                await peer.close_ledgers()
                sent = (await peer.adapter.sent(None)).sent[-1]
                assert sent.marks == peer.adapter.marks(order)
                asked = [replace(order, transfers=(Transfer(one, peer.stable, 100, id_),)) for one, id_ in forms]
                same = {index for index, each in enumerate(asked) if recovery.same(peer.adapter, sent, each)}
                assert same == ({0, 1} if number < 2 else {number})
    finally:
        await xrpl.stop()
        await stellar.stop()


def x_address(account: str, tag: int) -> str:
    return classic_address_to_xaddress(account, tag, True)


def m_address(account: str, number: int) -> str:
    return MuxedAccount(account, number).universal_account_id


async def test_deposits_of_after_the_backup_are_credited_once(world: World, database_url: str, village: Town) -> None:
    async with backup(world, database_url) as restored:
        intent = await funding.create_intent(restored, party=village.buyer.id, chain=CHAIN, asset=USD.text, amount=None)
        world.wallet(usd=1_000_000).pay_uri(intent.payment_uri, 1_000_000)
        assert await funding.read_deposits(restored, CHAIN) == 1
        assert await funding.read_deposits(restored, CHAIN) == 0


async def test_books_that_are_complete_have_nothing_to_match(world: World, town: Town) -> None:
    found = await recovery.match(town.context, CHAIN)
    assert (found.adopted, found.foreign) == ((), ())
    assert found.seen == found.known > 0
    await send(world, town.plain, [world.record(town.buyer)])
