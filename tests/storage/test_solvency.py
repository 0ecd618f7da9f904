"""Measurements on file: one a window, never changed, due for the newest checkpoint alone."""

from __future__ import annotations

import pytest

from settlement.core.errors import NotFound
from settlement.storage import solvency
from tests.client.town import Town
from tests.world import World

pytestmark = pytest.mark.database


async def test_a_window_is_measured_once(world: World, town: Town) -> None:
    async with world.context.database.begin() as connection:
        two, one = await solvency.newest(connection, 9)
        assert (two.window_no, one.window_no) == (2, 1)
        assert await solvency.of_window(connection, 1) == one
        assert await solvency.due(connection) is None
        assert not await solvency.publish(connection, one)
        with pytest.raises(NotFound, match="solvency_unknown"):
            await solvency.of_window(connection, 3)
