"""What a pause stops stands still until the time is over, and nothing else does; rates that run out stop holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core import budgets, times
from settlement.core.errors import Unavailable
from settlement.core.governing import GovernanceRules
from settlement.services import chains, funding, pauses, payouts, windows
from settlement.storage import holds
from tests.client.town import CHAIN, fund, send
from tests.governance.chamber import DAY, Chamber, seated
from tests.holding import open_till
from tests.world import World

pytestmark = pytest.mark.database


async def pause(chamber: Chamber, *stop: str) -> None:
    until = times.text(chamber.now + DAY)
    document = await chamber.chained("pause", stop=list(stop), until=until, reason="a stolen key")
    assert await chamber.decide("approve", await chamber.propose("pause", document), 0) == "enacted"


async def stopped(world: World) -> tuple[Unavailable | None, Unavailable | None]:
    async with world.context.database.begin() as connection:
        now = world.sources.clock()
        standing = (await holds.arrive(connection, [], budgets.periods(now), now, with_budgets=False)).standing
        return pauses.holds_stopped(standing, now), await pauses.payouts_stopped(connection, now)


async def test_paused_payouts_wait_and_leave_when_the_pause_is_over(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    chamber = await seated(world)
    consumer, provider = await world.consumer(), await world.provider(wallet=world.wallet())
    await fund(world, consumer, 50_000_000)
    await send(world, provider, [world.record(consumer, meters={"input_tokens": 10_000_000})])
    await pause(chamber, "payouts")
    world.sources.settable.advance(minutes=10)
    await windows.close(world.context)
    with pytest.raises(Unavailable, match="paused"):
        steps = await windows.advance(world.context, payouts.plan)
        assert [step.name for step in steps] == ["net", "checkpoint"]
        await payouts.plan(world.context, 1)
    assert await payouts.of_window(world.context, 1) == []
    world.sources.settable.advance(days=1)
    await windows.advance(world.context, payouts.plan)
    (payout,) = await payouts.of_window(world.context, 1)
    world.sources.settable.advance(days=4)
    await pause(chamber, "payouts")
    assert (await chains.run_until_idle(world.context, CHAIN)).signed == 0, "what was planned is not signed either"
    world.sources.settable.advance(days=1)
    await chains.run_until_idle(world.context, CHAIN)
    assert [each.state for each in await payouts.of_window(world.context, 1)] == ["settled"]
    assert payout.state == "planned"


async def test_paused_holds_wait_and_payouts_do_not(world: World) -> None:
    chamber = await seated(world)
    assert await stopped(world) == (None, None)
    till = await open_till(world, micro=10**9)
    before = await till.place()
    await pause(chamber, "holds")
    holds, others = await stopped(world)
    assert holds is not None
    assert (holds.code, others) == ("paused", None)
    with pytest.raises(Unavailable, match="paused"):
        await till.place()
    extended = await till.extend(before, 2)
    assert extended.stored.hold.amount > before.stored.hold.amount, "an answer that runs is not cut off"
    assert (await till.extend(before, 2)).replayed
    record = world.record(till.consumer, hold=before.stored.id)
    await send(world, till.provider, [record])
    assert await till.count("captured") == 1
    world.sources.settable.advance(days=1)
    assert await stopped(world) == (None, None)


async def test_rates_that_ran_out_stop_new_holds_after_the_grace(world: World) -> None:
    rules = GovernanceRules()
    since = world.sources.clock() - timedelta(days=36)
    world.sources.settable.now = since + rules.rates_valid + rules.rates_grace - timedelta(seconds=1)
    assert await stopped(world) == (None, None)
    world.sources.settable.advance(seconds=1)
    holds, _ = await stopped(world)
    assert holds is not None
    assert holds.code == "rates_expired"
