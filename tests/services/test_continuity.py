"""Books that lack a payment sign nothing, also where no slot shows it; complete ones are asked once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from adapters.xrpl.account_setup import Wanted
from settlement.chain import SentPage, Unreachable
from settlement.services import chains, continuity, funding, halts, recovery, refunds
from settlement.services.context import Context
from tests.rippled.peer import XrplPeer
from tests.services.test_recovery import backup
from tests.stellarnet.peer import StellarPeer
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]


async def test_tickets_that_the_books_think_free_pay_nobody_twice(world: World, database_url: str) -> None:
    """On tickets the account's next number tells nothing: the history is read before a process signs."""
    peer = await XrplPeer.start(wanted=Wanted(tickets=20), sources=world.sources)
    peer.wallet.send(peer.engine, TransactionType="TicketCreate", TicketCount=20)
    peer.engine.close()
    there = replace(world, context=replace(world.context, chains={"xrpl": peer.adapter}))
    try:
        await funding.open_chain(there.context, "xrpl")
        async with refunded_since("xrpl", peer, there, database_url) as restored:
            held = (await peer.adapter.holdings()).amounts[peer.stable]
            found = await recovery.match(restored, "xrpl")
            assert len(found.adopted) == 1
            await recovery.release(restored, "xrpl", peer.wallet.address, found.next_numbers[peer.wallet.address])
            for halt in await halts.open_halts(restored):
                await halts.clear(restored, halt.no, "operator")
            await until_idle("xrpl", peer, restored)
            assert (await peer.adapter.holdings()).amounts[peer.stable] == held
    finally:
        await peer.stop()


@pytest.mark.parametrize("history", [False, True])
async def test_channels_that_are_new_to_the_books_pay_nobody_twice(
    world: World, database_url: str, history: bool
) -> None:
    """They were made after the chain was opened and had not signed: no number of theirs is on record."""
    peer = await StellarPeer.start(history=history, sources=world.sources)
    before = peer.second(channels=())
    there = replace(world, context=replace(world.context, chains={"stellar": peer.adapter}))
    try:
        await funding.open_chain(replace(world.context, chains={"stellar": before}), "stellar")
        async with refunded_since("stellar", peer, there, database_url):
            pass
    finally:
        await before.close()
        await peer.stop()


@asynccontextmanager
async def refunded_since(
    chain: str, peer: XrplPeer | StellarPeer, there: World, database_url: str
) -> AsyncIterator[Context]:
    """A backup from before a refund, which is asked for again there: it halts, and nobody is paid a second time."""
    await peer.pay_in(peer.stable, 5_000_000, None)
    await peer.close_ledgers()
    await funding.read_deposits(there.context, chain)
    (waiting,) = [each.id for each in await funding.suspense(there.context)]
    async with backup(there, database_url) as restored:
        await refunds.refund(there.context, waiting)
        await until_idle(chain, peer, there.context)
        held = (await peer.adapter.holdings()).amounts[peer.stable]
        await refunds.refund(restored, waiting)
        await until_idle(chain, peer, restored)
        assert (await peer.adapter.holdings()).amounts[peer.stable] == held
        assert [halt.code for halt in await halts.open_halts(restored)] == ["slots_unaccounted"]
        yield restored


async def until_idle(chain: str, peer: XrplPeer | StellarPeer, context: Context) -> None:
    for _ in range(4):
        await chains.run_once(context, chain)
        await peer.close_ledgers()


async def test_the_history_is_read_once_and_again_when_the_books_go_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, read = "simulated", list[str | None]()
    inner = world.chain.sent

    async def sent(after: str | None) -> SentPage:
        read.append(after)
        if len(read) == 1:
            raise Unreachable("no answer")
        return await inner(after)

    monkeypatch.setattr(world.chain, "sent", sent)
    await funding.open_chain(world.context, chain)
    with pytest.raises(Unreachable):
        await continuity.holds(world.context, chain)
    assert await continuity.holds(world.context, chain)
    assert await continuity.holds(world.context, chain)
    assert len(read) == 2
    async with world.context.database.begin() as connection:
        await connection.execute(text("UPDATE chain_state SET complete = 100, tip = 500"))
    assert await continuity.holds(world.context, chain)
    assert await continuity.holds(world.context, chain)
    async with world.context.database.begin() as connection:
        assert (await connection.execute(text("SELECT complete FROM chain_state"))).scalar_one() == 500
        await connection.execute(text("UPDATE chain_state SET complete = 99"))
    assert await continuity.holds(world.context, chain)
    assert read[2:] == ["99"]
