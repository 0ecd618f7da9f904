"""Balance rules: told once each time the balance gets low, with a fresh way to pay where one is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.simulated import USD
from settlement.core.errors import Conflict, NotFound
from settlement.services import balance_rules, funding
from settlement.storage import accounts
from tests.client.town import CHAIN
from tests.hearing import told
from tests.holding import Till, amount, open_till
from tests.services.test_events import listen, told_to
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.database]

MARK = 2 * amount(256)


async def till_with_rule(world: World, **top_up: Any) -> Till:
    """Money for four holds and a rule that fires below two."""
    till = await open_till(world, micro=4 * amount(256))
    await listen(world, till.consumer)
    await balance_rules.create(world.context, till.consumer.party, MARK, **top_up)
    return till


async def test_it_fires_once_until_the_balance_has_recovered(world: World) -> None:
    till = await till_with_rule(world)
    assert await balance_rules.watch(world.context) == 0
    held = [await till.place(output_tokens=256) for _ in range(2)]
    assert await balance_rules.watch(world.context) == 0  # exactly at the mark is not below it
    held.append(await till.place(output_tokens=256))
    assert [await balance_rules.watch(world.context) for _ in range(3)] == [1, 0, 0]
    await till.release(held.pop())
    assert await balance_rules.watch(world.context) == 0
    await till.place(output_tokens=256)
    assert await balance_rules.watch(world.context) == 0  # it was never a tenth above
    await world.credit(till.consumer.id, MARK)
    assert await balance_rules.watch(world.context) == 0
    for _ in range(2):
        await till.place(output_tokens=256)
    assert await balance_rules.watch(world.context) == 1
    (rule,) = await balance_rules.listed(world.context, till.consumer.party)
    assert (rule.fired, rule.times, rule.intent_id) == (True, 2, None)
    found = await told_to(world, till.consumer, "balance.low")
    assert found == [{"rule": rule.id, "below": "1.779446", "available": "0.889723"}] * 2


async def test_workers_fire_it_once(world: World) -> None:
    till = await till_with_rule(world)
    for _ in range(3):
        await till.place(output_tokens=256)
    counts = await asyncio.gather(*(balance_rules.watch(world.context) for _ in range(8)))
    assert sum(counts) == 1
    assert len(await told(world.context)) == 1


async def test_a_payment_is_asked_for_with_a_reference_that_credits_the_account(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    till = await till_with_rule(world, chain=CHAIN, asset=USD.text, amount=25_000_000)
    for _ in range(3):
        await till.place(output_tokens=256)
    await balance_rules.watch(world.context)
    (low,) = await told_to(world, till.consumer, "balance.low")
    (asked,) = await told_to(world, till.consumer, "topup.requested")
    (rule,) = await balance_rules.listed(world.context, till.consumer.party)
    assert asked["rule"] == low["rule"] == rule.id
    assert (asked["intent"], asked["amount"], asked["asset"]) == (rule.intent_id, "25", USD.text)
    shown = await funding.intent_of(world.context, till.consumer.party, str(asked["intent"]))
    assert (str(shown.reference), shown.address) == (asked["reference"], asked["address"])
    world.wallet(usd=25_000_000).pay_uri(shown.payment_uri, 25_000_000)
    await funding.read_deposits(world.context, CHAIN)
    async with world.context.database.read() as connection:
        assert (await accounts.get(connection, till.consumer.id)).settled > 5_000_000_000
    await balance_rules.watch(world.context)
    (rule,) = await balance_rules.listed(world.context, till.consumer.party)
    assert not rule.fired


async def test_a_chain_that_is_not_served_any_more_leaves_the_alert(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    till = await till_with_rule(world, chain=CHAIN, asset=USD.text, amount=25_000_000)
    for _ in range(3):
        await till.place(output_tokens=256)
    assert await balance_rules.watch(replace(world.context, chains={})) == 1
    assert [event["type"] for _, event in await told(world.context)] == ["balance.low"]


async def test_what_is_no_rule_of_ones_own(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    owner, other = await world.consumer(), await world.consumer()
    made = [await balance_rules.create(world.context, owner.party, MARK) for _ in range(10)]
    with pytest.raises(Conflict, match="too_many_balance_rules"):
        await balance_rules.create(world.context, owner.party, MARK)
    with pytest.raises(NotFound, match="unknown_balance_rule"):
        await balance_rules.remove(world.context, other.party, made[0].id)
    await balance_rules.remove(world.context, owner.party, made[0].id)
    for chain, asset, code in (("nowhere", USD.text, "unknown_chain"), (CHAIN, "EUR:x", "unknown_asset")):
        with pytest.raises(NotFound, match=code):
            await balance_rules.create(world.context, owner.party, MARK, chain=chain, asset=asset, amount=1)
