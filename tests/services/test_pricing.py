"""Terms of requests by the rate tables: refusals name the member, multipliers are rounded up."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core.errors import Malformed
from settlement.core.multipliers import Multiplier
from settlement.services import pricing, ratebook
from tests.world import START, World

pytestmark = [pytest.mark.anyio, pytest.mark.database]


async def test_the_table_in_force_prices(world: World) -> None:
    book = await ratebook.latest(world.context)
    assert pricing.table_at(book, START).version == 1
    with pytest.raises(Malformed, match="rates_not_in_force"):
        pricing.table_at(book, START - timedelta(days=40))
    terms = pricing.terms(book, 1, "gpt-5", "standard", {"input_tokens": 1155}, [Multiplier("ask", 15_000)])
    assert terms.amount(0) == -(-1155 * 277_777_778 * 3 // 2 // 10**6)


@pytest.mark.parametrize(
    ("pointer", "model", "tier", "meters"),
    [
        ("/model", "no-such", "standard", {}),
        ("/tier", "gpt-5", "no-such", {}),
        ("/meters", "gpt-5", "standard", {"no_such": 1}),
        ("/meters", "gpt-5", "standard", {"input_tokens": 10**8}),
    ],
)
async def test_a_refusal_names_its_member(
    world: World, pointer: str, model: str, tier: str, meters: dict[str, int]
) -> None:
    book = await ratebook.latest(world.context)
    with pytest.raises(Malformed) as caught:
        pricing.terms(book, 1, model, tier, meters, ())
    assert [each.pointer for each in caught.value.problems] == [pointer]
