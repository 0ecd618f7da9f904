"""What the database itself refuses about holds, whoever writes."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import Broken
from settlement.storage import holds as storage
from settlement.storage.database import Restart
from settlement.storage.holds import Changes
from tests.holding import Till, open_till
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.database]


async def broken(till: Till, change: str) -> None:
    with pytest.raises(IntegrityError):
        async with till.world.context.database.begin() as connection:
            await connection.execute(text(change))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE hold SET amount = 0",
        "UPDATE hold SET captured = amount, released = 1",
        "UPDATE hold SET captured = -1",
        "UPDATE hold SET state = 'released'",
        "UPDATE hold SET state = 'released', ended_at = now()",
        "UPDATE hold SET uses = 2",
        "UPDATE hold SET late = amount + 1",
        "UPDATE hold SET state = 'nonsense'",
        "UPDATE account SET held = settled + 1 WHERE kind = 'consumer'",
        "UPDATE budget_use SET used = -1",
    ],
)
async def test_impossible_rows_are_refused(world: World, change: str) -> None:
    till = await open_till(world, micro=5_000_000)
    await till.place()
    async with world.context.database.begin() as connection:
        await connection.execute(text("INSERT INTO budget_use (budget_no, period) VALUES (1, '2026-11')"))
    await broken(till, change)


async def test_a_request_of_a_provider_has_one_hold(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    stored = (await till.place()).stored
    await broken(till, 'INSERT INTO hold SELECT (json_populate_record(h, \'{"id": "hld_x"}\')).* FROM hold h')
    with pytest.raises(Restart):
        async with world.context.database.begin() as connection:
            await storage.store_new(connection, [stored], Changes(), commit=False)


async def test_more_than_is_available_is_not_reserved_even_if_asked_for(world: World) -> None:
    """The guard behind the decision: it never runs, as long as the decision is made under the lock."""
    till = await open_till(world, micro=1_000_000)
    stored = (await till.place()).stored
    changes = Changes()
    async with world.context.database.begin() as connection:
        query = text("SELECT no FROM account WHERE party_no = :no")
        changes.reserve((await connection.execute(query, {"no": stored.consumer_no})).scalar_one(), 1_000_000)
    with pytest.raises(Broken, match="hold_not_covered"):
        async with world.context.database.begin() as connection:
            await storage.store_changes(connection, [(stored.id, stored.hold, None)], changes)


async def test_what_is_read_is_what_was_written(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    ask: dict[str, Any] = {"final_action": "redirect", "max_output_tokens": 4_000, "expires_in": 77}
    stored = (await till.place(**ask)).stored
    async with world.context.database.read() as connection:
        assert await storage.find(connection, stored.id) == stored
        assert await storage.find(connection, "hld_none") is None
