"""Setting accounts up on Stellar with the real services: round by round, each step once, its fee in the books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from settlement.chain import Asset
from settlement.services import account_setup, chains, funding, halts, refunds, solvency
from settlement.services.context import Context
from settlement.storage import accounts, invariants
from settlement.storage.database import Connection, Database
from tests.adapters.test_stellar_setup import CU_ISSUER, OPERATOR, issuing
from tests.stellarnet.peer import ISSUER, TREASURY, USDC, StellarPeer
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]

EUR = Asset("EUR", ISSUER.public_key)


async def run(context: Context, peer: StellarPeer) -> None:
    for _ in range(60):
        done = await chains.run_once(context, "stellar")
        peer.net.close()
        if done.idle:
            return


async def test_accounts_are_set_up_round_by_round_and_each_step_is_an_order_once(world: World) -> None:
    peer = await StellarPeer.start(sources=world.sources)
    peer.key = OPERATOR
    peer.net.accounts[TREASURY.public_key].signers.add(OPERATOR.public_key)
    peer.net.create(CU_ISSUER.public_key)
    await peer.adapter.close()
    peer.adapter = peer.second(channels=(), derived=2, assets=(USDC, EUR), issuing=issuing())
    context = replace(world.context, chains={"stellar": peer.adapter})
    try:
        await funding.open_chain(context, "stellar")
        before = peer.net.balance(TREASURY.public_key, "XLM")
        peer.arm("request_lost", 2)
        peer.arm("reply_lost")
        wanted = 0
        for _ in range(5):
            planned = await account_setup.plan(context, "stellar", await account_setup.steps(context, "stellar"))
            assert await account_setup.plan(context, "stellar", await account_setup.steps(context, "stellar")) == 0
            wanted += planned
            if not planned:
                break
            await run(context, peer)
        assert all(step.done for step in await account_setup.steps(context, "stellar"))
        async with context.database.read() as connection:
            states = (await connection.execute(text("SELECT step, state FROM chain_order"))).all()
            fees = (await accounts.get(connection, "fees/stellar/XLM")).settled
            assert await invariants.first_violation(connection) is None
        assert {row.state for row in states} == {"settled"}
        assert len({row.step for row in states}) == len(states) == wanted
        assert fees == peer.net.balance(TREASURY.public_key, "XLM") - before < 0
        await funding.read_deposits(context, "stellar")
        assert await solvency.reconcile_holdings(context, "stellar") is not None
        assert await halts.open_halts(context) == []
    finally:
        await peer.stop()


class Slow(Database):
    """Takes its time between what it has done and the commit of it, once it has put a signed transaction on record."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        async with super().begin() as connection:
            yield connection
            if (await connection.execute(text("SELECT 1 FROM attempt"))).first():
                self.reached.set()
                await self.go_on.wait()


async def _waits_for_a_lock(connection: Connection) -> bool:
    found = await connection.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"))
    return found.first() is not None


async def test_a_step_is_alone_also_beside_a_payout_that_another_process_is_just_signing(
    world: World, database_url: str
) -> None:
    """The payout is on a channel's sequence and the step on the treasury's: no account's lock keeps them apart."""
    peer = await StellarPeer.start(sources=world.sources)
    slow = Slow(database_url)
    context = replace(world.context, chains={"stellar": peer.adapter})
    try:
        await funding.open_chain(context, "stellar")
        await peer.pay_in(USDC, 500, 77)
        peer.net.close()
        await funding.read_deposits(context, "stellar")
        (stray,) = await funding.suspense(context)
        await refunds.refund(context, stray.id)
        paying = asyncio.create_task(chains.run_once(replace(context, database=slow), "stellar"))
        await slow.reached.wait()
        steps = [each for each in await account_setup.steps(context, "stellar") if each.name == "memo_required"]
        assert await account_setup.plan(context, "stellar", steps) == 1
        setting_up = asyncio.create_task(chains.run_once(context, "stellar"))
        async with context.database.begin() as connection:
            while not setting_up.done() and not await _waits_for_a_lock(connection):
                await asyncio.sleep(0.01)
        slow.go_on.set()
        await asyncio.gather(paying, setting_up)
        async with context.database.read() as connection:
            rows = await connection.execute(text("SELECT kind, state FROM chain_order"))
            states = {row.kind: row.state for row in rows}
        assert states == {"payout": "submitted", "setup": "planned"}
        await run(context, peer)
        assert (await account_setup.steps(context, "stellar"))[0].done
    finally:
        slow.go_on.set()
        await slow.close()
        await peer.stop()
