"""Budget rows: what is written is read, and impossible ones are refused."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import NotFound
from settlement.storage import budgets
from settlement.storage.budgets import Limits
from tests.world import START, World

pytestmark = [pytest.mark.anyio, pytest.mark.database]

LIMITS = Limits("team", 1, 2, 3, ["gpt-5"], ["prv_1"], (50, 80))


async def test_what_is_written_is_read(world: World) -> None:
    owner = (await world.consumer()).party
    async with world.context.database.begin() as connection:
        root = await budgets.add(connection, budget_id="bud_1", party_no=owner.no, path=(), limits=LIMITS, now=START)
        leaf = await budgets.add(
            connection, budget_id="bud_2", party_no=owner.no, path=(root.no,), limits=LIMITS, now=START
        )
    async with world.context.database.read() as connection:
        assert await budgets.get(connection, owner.no, "bud_2") == leaf
        assert await budgets.listed(connection, owner.no) == [root, leaf]
        assert (leaf.per_day, list(leaf.alert_at), list(leaf.path)) == (2, [50, 80], [root.no])
        assert await budgets.uses(connection, [root.no], ["2026-11"]) == {}
        with pytest.raises(NotFound, match="unknown_budget"):
            await budgets.get(connection, owner.no + 1, "bud_2")


@pytest.mark.parametrize("change", ["per_day = -1", "path = '{1,2,3,4}'"])
async def test_impossible_budgets_are_refused(world: World, change: str) -> None:
    owner = (await world.consumer()).party
    async with world.context.database.begin() as connection:
        await budgets.add(connection, budget_id="bud_1", party_no=owner.no, path=(), limits=LIMITS, now=START)
    with pytest.raises(IntegrityError):
        async with world.context.database.begin() as connection:
            await connection.execute(text(f"UPDATE budget SET {change}"))
