"""Setting accounts up on Stellar with the real services: round by round, each step once, its fee in the books."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from settlement.chain import Asset
from settlement.services import account_setup, chains, funding, halts, solvency
from settlement.services.context import Context
from settlement.storage import accounts, invariants
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
