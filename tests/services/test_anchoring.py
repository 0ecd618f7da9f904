"""Anchors: one order for each chain and window, over the digest of its checkpoint, whoever asks."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from settlement.core.errors import Conflict, NotFound
from settlement.services import anchoring, chains, payouts, windows
from settlement.storage import checkpoints
from settlement.storage import windows as stored_windows
from tests.client.town import CHAIN, Town
from tests.world import World

pytestmark = pytest.mark.database


async def test_every_settled_window_carries_its_own_digest(world: World, town: Town) -> None:
    async with world.context.database.read() as connection:
        for number in (1, 2):
            stored = await checkpoints.get(connection, number)
            (found,) = await checkpoints.anchors(connection, number)
            (order,) = await anchoring.of_window(world.context, number)
            assert (order.state, order.digest, order.kind) == ("settled", stored.digest, "anchor")
            assert (found.chain, found.network) == (CHAIN, world.chain.facts.network)
            assert (await stored_windows.get(connection, number)).anchored_at == found.closed_at
    assert await anchoring.of_window(world.context, 3) == []


async def test_a_window_is_anchored_once_on_a_chain_that_was_added_later(world: World, village: Town) -> None:
    context = replace(world.context, chains={**world.context.chains, "later": world.chain})
    assert await anchoring.plan(world.context, 1) == 0
    assert sorted(await asyncio.gather(*(anchoring.plan(context, 1) for _ in range(5)))) == [0, 0, 0, 0, 1]
    orders = await anchoring.of_window(context, 1)
    assert [(order.chain, order.state) for order in orders] == [(CHAIN, "settled"), ("later", "planned")]
    assert orders[0].digest == orders[1].digest


async def test_nothing_is_anchored_before_its_time(world: World, village: Town) -> None:
    for number in (2, 9):
        with pytest.raises((Conflict, NotFound)) as refused:
            await anchoring.plan(world.context, number)
        assert refused.value.code == ("window_not_planned" if number == 2 else "unknown_window")
    await windows.close(world.context)
    await windows.settle_net(world.context, 2)
    with pytest.raises(NotFound, match="unknown_checkpoint"):
        async with world.context.database.begin() as connection:
            await anchoring.add_missing(world.context, connection, 2)
    await windows.settle_checkpoint(world.context, 2)
    with pytest.raises(Conflict, match="window_not_planned"):
        await anchoring.plan(world.context, 2)
    await payouts.plan(world.context, 2)
    await chains.run_until_idle(world.context, CHAIN)
    assert [order.state for order in await anchoring.of_window(world.context, 2)] == ["settled"]
