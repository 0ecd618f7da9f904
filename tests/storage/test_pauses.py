"""What may stop new holds, in one statement: the policy, the age of the rates, the newest pause while it lasts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core.errors import NotFound
from settlement.storage import governance_log, holds
from settlement.storage.governance_log import PauseRow
from settlement.storage.pauses import Standing
from tests.world import START, World

pytestmark = pytest.mark.database

HOUR = timedelta(hours=1)


async def standing(world: World, after: timedelta = HOUR) -> Standing:
    async with world.context.database.begin() as connection:
        return (
            await holds.arrive(connection, [], ("2026-11-22", "2026-11"), START + after, with_budgets=False)
        ).standing


async def paused(world: World, *rows: PauseRow) -> None:
    async with world.context.database.begin() as connection:
        for row in rows:
            await governance_log.add_pause(connection, row)


async def test_without_a_pause(world: World) -> None:
    found = await standing(world)
    assert (found.policy.version, found.until) == (1, None)
    assert found.rates_since is not None
    assert found.rates_since <= START


async def test_the_newest_pause_counts_until_its_end(world: World) -> None:
    await paused(world, PauseRow(1, True, False, START + 9 * HOUR, "older"), PauseRow(2, True, True, START + HOUR, "a"))
    found = await standing(world, timedelta(minutes=59))
    assert (found.until, found.reason) == (START + HOUR, "a")
    assert (await standing(world)).until is None, "over, and the older one does not come back"


async def test_a_pause_of_payouts_stops_no_holds(world: World) -> None:
    await paused(world, PauseRow(1, False, True, START + 9 * HOUR, "payouts only"))
    assert (await standing(world)).until is None


async def test_before_any_policy(world: World) -> None:
    with pytest.raises(NotFound, match="policy_not_in_force"):
        await standing(world, timedelta(days=-400))
