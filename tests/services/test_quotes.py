"""Quotes from the rate table in force."""

from __future__ import annotations

import pytest

from settlement.core.errors import Malformed
from settlement.core.holds import Ask
from settlement.services import quotes
from settlement.services.quotes import Asked
from tests.holding import INPUT, amount, open_till
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
