"""A process knows a rate table as soon as it is published, also when another process published it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from governance import service
from settlement.core.signatures import sign_document
from settlement.services import metering, ratebook
from settlement.services.context import Context
from settlement.storage.database import Database
from tests.governance.tables import following
from tests.world import Member, World, first_rates

pytestmark = pytest.mark.database


async def charged(world: World, context: Context, provider: Member, consumer: Member) -> str:
    """What a process charges for a million tokens now."""
    body, signature = world.report(provider, [world.record(consumer, meters={"output_tokens": 1_000_000})])
    total: str = (await metering.submit(context, body=body, signature=signature)).document["total"]
    return total


async def test_a_table_that_another_process_published_is_in_force_here(world: World, database_url: str) -> None:
    consumer, provider = await world.consumer(micro=10**12), await world.provider()
    here = world.context
    there = Context(Database(database_url), here.sources, here.key, here.chains)
    try:
        assert await charged(world, here, provider, consumer) == "2222.222222"
        assert await charged(world, there, provider, consumer) == "2222.222222"
        document = following(first_rates(), world.sources.clock() + timedelta(hours=1))
        await service.publish_rates(there, document, [sign_document(there.key, document)])
        assert await charged(world, here, provider, consumer) == "2222.222222", "its time has not come"
        world.sources.settable.advance(hours=1)
        assert await charged(world, here, provider, consumer) == "4444.444444"
        assert await charged(world, there, provider, consumer) == "4444.444444"
    finally:
        await there.database.close()


async def test_it_is_compiled_once_for_a_version(world: World) -> None:
    async with world.context.database.read() as connection:
        first = await ratebook.current(world.context, connection, 1)
        assert await ratebook.current(world.context, connection, 1) is first
    assert first.newest == 1
    assert {table.version for table in first.rates.tables} == {1}
    assert "gpt-5" in first.model_numbers
    document = following(first_rates(), world.sources.clock() + timedelta(hours=1))
    await service.publish_rates(world.context, document, [sign_document(world.context.key, document)])
    async with world.context.database.read() as connection:
        second = await ratebook.current(world.context, connection, 2)
    assert {table.version for table in second.rates.tables} == {1, 2}
    assert "twice" in second.model_numbers
    assert "twice" not in first.model_numbers
