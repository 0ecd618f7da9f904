"""Halts as use cases: raised in a commit of their own, cleared by a person, once."""

from __future__ import annotations

import asyncio

import pytest

from settlement.core.errors import NotFound, Unavailable
from settlement.services import halts, payouts
from settlement.storage import windows
from tests.client.town import Town, settle
from tests.world import World

pytestmark = pytest.mark.database


async def test_a_halt_stands_although_what_raised_it_is_rolled_back(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with world.context.database.begin():
            await halts.raise_halt(world.context, "broken", "seen inside")
            raise ZeroDivisionError
    assert [(each.code, each.detail) for each in await halts.open_halts(world.context)] == [("broken", "seen inside")]


async def test_the_same_trouble_is_one_halt_and_another_is_another(world: World) -> None:
    await asyncio.gather(*(halts.raise_halt(world.context, "broken", "x") for _ in range(5)))
    await halts.raise_halt(world.context, "broken", "y")
    found = await halts.open_halts(world.context)
    assert [each.detail for each in found] == ["x", "y"]
    world.sources.settable.advance(hours=1)
    cleared = await halts.clear(world.context, found[0].no, "anna")
    assert (cleared.cleared_by, cleared.cleared_at) == ("anna", world.sources.clock())
    assert await halts.open_halts(world.context) == found[1:]
    for number in (found[0].no, 99):
        with pytest.raises(NotFound, match="unknown_halt"):
            await halts.clear(world.context, number, "otto")


async def earned(world: World) -> list[str]:
    """States of what window 2 pays to providers; what consumers take out does not wait for a window."""
    return [each.state for each in await payouts.of_window(world.context, 2) if each.kind == "earnings"]


async def test_no_money_leaves_while_one_of_two_is_open(world: World, village: Town) -> None:
    """Windows are netted and checkpointed all the same; the treasury stands still, to the last unit of each asset."""
    found = [await halts.raise_halt(world.context, "drill", each) for each in ("one", "two")]

    def held() -> list[int]:
        return [world.chain.network.balance(world.chain.treasury, asset) for asset in world.chain.facts.assets]

    before = held()
    for halt in found:
        await settle(world)
        assert held() == before
        assert await earned(world) == []
        with pytest.raises(Unavailable, match="halted: payouts and anchors are halted: drill"):
            await payouts.plan(world.context, 2)
        await halts.clear(world.context, halt.no, "anna")
    async with world.context.database.read() as connection:
        assert [each.state for each in await windows.unfinished(connection)] == ["checkpointed"] * 2
    await settle(world)
    assert await earned(world) == ["settled", "settled"]
    assert held() != before
