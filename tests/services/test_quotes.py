"""Quotes from the rate table in force."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core.errors import Malformed, NotFound
from settlement.core.holds import Ask
from settlement.services import offers, quotes
from settlement.services.quotes import Asked
from tests.holding import BASE, INPUT, PER_TOKEN, amount, open_till
from tests.services.test_holds import limited, ruled
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.database]


async def test_a_quote_is_what_a_hold_then_reserves(world: World) -> None:
    ask = Ask(max_output_tokens=4_096)
    found = await quotes.quote(world.context, Asked("gpt-5", "standard", INPUT, None, None, ask))
    till = await open_till(world, micro=50_000_000)
    placed = await till.place(max_output_tokens=4_096)
    assert (found.model, found.rates) == ("gpt-5", 1)
    assert found.quote.slices[0].amount == placed.stored.hold.amount == amount(256)
    assert found.quote.expected.amount == amount(211)


async def test_a_size_in_bytes_is_expected_at_four_and_bounded_at_two(world: World) -> None:
    found = await quotes.quote(world.context, Asked("gpt-5", "standard", {}, 4 * 1155, 0, Ask(max_output_tokens=0)))
    assert found.quote.expected.amount == amount(0)
    assert found.quote.ceiling is not None
    assert found.quote.ceiling.amount == -(-2 * 1155 * 277_777_778 // 10**6)


async def test_an_unknown_model_is_refused(world: World) -> None:
    with pytest.raises(Malformed, match="unknown_model"):
        await quotes.quote(world.context, Asked("no-such", "standard", {}, None, None, Ask()))


async def test_a_providers_ask_counts_where_it_is_named(world: World) -> None:
    """And the hold that it then places is the first slice of the quote."""

    def dearer(output: int) -> int:
        exact = (BASE + PER_TOKEN * output) * 3 // 2
        return -(-exact // 10**6)

    till = await open_till(world, micro=50_000_000)
    body, signature = world.offer(till.provider, world.sources.clock() + timedelta(minutes=10), usual="1.5")
    await offers.publish(world.context, body, signature)
    world.sources.settable.advance(minutes=11)
    asked = Asked("gpt-5", "standard", INPUT, None, None, Ask(max_output_tokens=4_096), till.provider.id)
    found = (await quotes.quote(world.context, asked)).quote
    par = (await quotes.quote(world.context, Asked(*[getattr(asked, n) for n in Asked.__slots__[:-1]]))).quote
    assert par.slices[0].amount == amount(256)
    assert found.slices[0].amount == (await till.place()).stored.hold.amount == dearer(256)
    assert found.expected.amount == dearer(211)
    for stranger in (till.consumer.id, "prv_" + "0" * 26):
        with pytest.raises(NotFound, match="unknown_party"):
            await quotes.quote(world.context, Asked("gpt-5", "standard", INPUT, None, None, Ask(), stranger))


async def test_rules_and_limits_hold_for_quotes_too(world: World) -> None:
    await ruled(world, first_slice=32, largest_slice=64)
    await limited(world, context_tokens=2_000, max_output_tokens=300)
    found = (await quotes.quote(world.context, Asked("gpt-5", "standard", INPUT, None, None, Ask()))).quote
    assert found.slices[0].output_tokens == 32
    assert found.ceiling is not None
    assert found.ceiling.output_tokens == 300
    with pytest.raises(Malformed, match="hold_out_of_bounds"):
        await quotes.quote(world.context, Asked("gpt-5", "standard", INPUT, None, None, Ask(output_tokens=65)))
    with pytest.raises(Malformed, match="context_exceeded"):
        await quotes.quote(world.context, Asked("gpt-5", "standard", {}, 8_001, None, Ask()))
    assert (await quotes.quote(world.context, Asked("gpt-5", "standard", {}, 8_000, None, Ask()))).quote.ceiling
