"""What goes wrong on Stellar for longer than a moment: no ledgers for an hour, a balance that a node makes up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from sqlalchemy import text

from settlement.core.errors import Unavailable
from settlement.services import chains, halts, payouts, solvency
from tests.simulation.stellar import StellarInstallation
from tests.stellarnet.peer import TREASURY, USDC

pytestmark = pytest.mark.network


async def test_an_hour_without_ledgers_doubles_nothing_and_a_made_up_balance_halts(
    new_database: Callable[[], str],
) -> None:
    found = await StellarInstallation.begin(new_database(), 7)
    try:
        number, due = await found.window(random.Random(1))
        await payouts.plan(found.process(), number)
        before = len(found.peer.net.order)
        await found.stand_still()
        async with found.database.read() as connection:
            signed = "SELECT count(*), count(DISTINCT order_id) FROM attempt"
            count, orders = (await connection.execute(text(signed))).one()
        assert count == orders > 1, "nothing is signed twice while nothing can be proven"
        assert len(found.peer.net.order) == before
        assert (await chains.run_until_idle(found.process(), found.chain, pause=found._pause)).idle
        assert {party: found._balance(wallet) for party, _, wallet in found.payees} == due
        assert await solvency.reconcile_holdings(found.process(), found.chain) is not None
        assert await halts.open_halts(found.process()) == []
        await found.audit()
        found.peer.net.accounts[TREASURY.public_key].lines[USDC.text][0] -= 1
        assert await solvency.reconcile_holdings(found.process(), found.chain) is not None
        assert [each.code for each in await halts.open_halts(found.process())] == ["holdings_mismatch"]
        number, _ = await found.window(random.Random(2))
        with pytest.raises(Unavailable, match="halted"):
            await payouts.plan(found.process(), number)
    finally:
        await found.close()
