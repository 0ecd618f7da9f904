"""A process knows a rate table as soon as it is published, also when another process published it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from governance import service
from settlement.core import canonical
from settlement.core.errors import Malformed
from settlement.core.holds import Ask
from settlement.core.signatures import sign_document
from settlement.services import charges, metering, quotes, ratebook
from settlement.services.context import Context
from settlement.services.quotes import Asked
from settlement.storage.database import Database
from tests.governance.tables import following
from tests.holding import BASE, INPUT, PER_TOKEN, amount, open_till
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


async def test_a_model_is_renamed_and_another_retired_while_their_holds_are_settled_as_they_were_made(
    world: World,
) -> None:
    found = json.loads(first_rates())["models"]
    other = next(name for name in sorted(found) if name != "gpt-5" and "standard" in found[name]["tiers"])
    till = await open_till(world, micro=10**9)
    old = {name: await till.place(model=name, expires_in=3600) for name in ("gpt-5", other)}
    table = json.loads(following(first_rates(), world.sources.clock() + timedelta(minutes=30)))
    renamed = {"models": {"twice": table["models"]["twice"]}, "aliases": {"gpt-5": "twice"}}
    document = canonical.encode(table | renamed)
    await service.publish_rates(world.context, document, [sign_document(world.context.key, document)])
    ask = Asked("gpt-5", "standard", INPUT, None, 211, Ask(), None)
    assert (await quotes.quote(world.context, ask)).quote.expected.amount == amount(211), "its time has not come"
    world.sources.settable.advance(minutes=30)
    quoted = await quotes.quote(world.context, ask)
    assert (quoted.model, quoted.rates) == ("twice", 2)
    assert quoted.quote.expected.amount == -(-2 * (BASE + 211 * PER_TOKEN) // 10**6)
    assert (await till.place()).stored.model == "twice"
    for asking in (till.place(model=other), quotes.quote(world.context, replace(ask, model=other))):
        with pytest.raises(Malformed, match="unknown_model"):
            await asking
    assert (await till.extend(old[other], 2)).stored.hold.grants == 2
    records = [
        world.record(till.consumer, model=name, hold=hold.stored.id, meters={"input_tokens": 1155, "output_tokens": 9})
        for name, hold in old.items()
    ]
    late = world.record(till.consumer, model=other)
    body, signature = world.report(till.provider, [*records, late])
    answer = (await metering.submit(world.context, body=body, signature=signature)).document
    assert [(each["pointer"], each["code"]) for each in answer["refused"]] == [("/records/2", "unknown_model")]
    explained = await charges.explain(world.context, till.consumer.party, till.provider.id, records[0]["id"])
    assert (explained["rates"]["version"], explained["charge_pico"]) == (1, str(BASE + 9 * PER_TOKEN))


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
