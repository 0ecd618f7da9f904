"""Writing derived rows anew, and saying how many were wrong."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from settlement.storage import rebuild
from tests.client.town import Town
from tests.world import World

pytestmark = pytest.mark.database


async def test_balances_that_are_right_are_left_alone(world: World, village: Town) -> None:
    async with world.context.database.begin() as connection:
        rows = await connection.execute(text("SELECT id, settled FROM account"))
        settled = {row.id: int(row.settled) for row in rows}
        assert await rebuild.balances(connection, settled) == 0
        assert await rebuild.balances(connection, {**settled, village.buyer.id: settled[village.buyer.id] + 5}) == 1
        assert await rebuild.streams(connection) == 0
        tiles = await rebuild.tree(connection)
        assert await rebuild.forget_tree(connection) == tiles
        assert await rebuild.tree(connection) == {}
