"""Setting an account up on the XRP Ledger: what is missing is brought about once, what is done is left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import text

from settlement.chain import Asset, SetupOrder, Unpayable
from settlement.core.errors import NotFound, Unavailable
from settlement.services import account_setup, chains, funding, halts, solvency
from settlement.services.context import Context
from settlement.storage import invariants
from tests.rippled.peer import IMPOSTOR, STABLE, XrplPeer
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]

OTHER = Asset("EUR", IMPOSTOR.address)


@dataclass
class Scene:
    """An installation on a scripted XRP Ledger whose treasury has a line for one of two assets and no switches."""

    context: Context
    peer: XrplPeer

    async def run(self) -> None:
        for _ in range(12):
            await chains.run_once(self.context, "xrpl")
            await self.peer.close_ledgers()

    async def missing(self) -> set[str]:
        return {step.name for step in await account_setup.steps(self.context, "xrpl") if not step.done}

    async def orders(self) -> list[tuple[str, str]]:
        async with self.context.database.read() as connection:
            rows = await connection.execute(
                text("SELECT step, state FROM chain_order WHERE kind = 'setup' ORDER BY id")
            )
            return [(row.step, row.state) for row in rows]


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    peer = await XrplPeer.start(sources=world.sources, assets={STABLE: 6, OTHER: 6})
    context = replace(world.context, chains={"xrpl": peer.adapter})
    await funding.open_chain(context, "xrpl")
    yield Scene(context, peer)
    await peer.stop()


async def test_what_is_missing_is_brought_about_and_its_fees_are_booked(scene: Scene) -> None:
    before = await scene.missing()
    assert {"require_tag", f"line:{OTHER.text}", "regular_key"} <= before
    assert f"line:{STABLE.text}" not in before
    planned = await account_setup.plan(scene.context, "xrpl", await account_setup.steps(scene.context, "xrpl"))
    assert planned == len(before) - 1, "the key is for a person"
    await scene.run()
    assert await scene.missing() == {"regular_key"}
    assert {state for _, state in await scene.orders()} == {"settled"}
    assert await solvency.reconcile_holdings(scene.context, "xrpl") is not None
    assert await halts.open_halts(scene.context) == []
    async with scene.context.database.read() as connection:
        assert await invariants.first_violation(connection) is None


async def test_asking_again_orders_nothing_twice(scene: Scene) -> None:
    steps = await account_setup.steps(scene.context, "xrpl")
    first = await account_setup.plan(scene.context, "xrpl", steps)
    assert await account_setup.plan(scene.context, "xrpl", steps) == 0
    await scene.run()
    assert await account_setup.plan(scene.context, "xrpl", await account_setup.steps(scene.context, "xrpl")) == 0
    assert len(await scene.orders()) == first


async def test_an_unknown_chain_and_a_halt_are_refused(scene: Scene) -> None:
    with pytest.raises(NotFound, match="unknown_chain"):
        await account_setup.steps(scene.context, "stellar")
    steps = await account_setup.steps(scene.context, "xrpl")
    await halts.raise_halt(scene.context, "holdings_mismatch", "for a test")
    with pytest.raises(Unavailable, match="halted"):
        await account_setup.plan(scene.context, "xrpl", steps)
    assert await scene.orders() == []


@pytest.mark.parametrize("step", ["", "funded", "regular_key", "line:", "line:XRP", "line:USD:r123"])
async def test_a_step_that_no_transaction_brings_about_is_refused(scene: Scene, step: str) -> None:
    with pytest.raises(Unpayable, match="step_unknown"):
        await scene.peer.adapter.prepare_step(SetupOrder("ord_1", step), slot=None, busy=())
