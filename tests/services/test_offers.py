"""Offers: who may make one, in which order, from when on it holds, and that it is what is charged."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from settlement.core.errors import SettlementError
from settlement.core.offers import SIGNATURE_TYPE
from settlement.core.signatures import sign_detached
from settlement.services import metering, offers
from settlement.services.context import Context
from settlement.storage.database import Database
from tests.world import Member, World

pytestmark = pytest.mark.database
NOTICE = timedelta(minutes=10)


async def charged(world: World, context: Context, provider: Member, consumer: Member, **more: Any) -> str:
    """What a process charges for a million tokens of output."""
    records = [world.record(consumer, meters={"output_tokens": 1_000_000}, **more)]
    body, signature = world.report(provider, records)
    total: str = (await metering.submit(context, body=body, signature=signature)).document["total"]
    return total


async def publish(world: World, member: Member, /, **changes: Any) -> None:
    since = changes.pop("since", world.sources.clock() + NOTICE)
    await offers.publish(world.context, *world.offer(member, since, **changes))


async def test_records_are_charged_by_the_offer_in_force_at_their_time_in_every_process(
    world: World, database_url: str
) -> None:
    consumer, provider, other = (
        await world.consumer(micro=10**12),
        await world.provider(),
        await world.provider("other"),
    )
    here = world.context
    there = Context(Database(database_url), here.sources, here.key, here.chains)
    try:
        assert await charged(world, there, provider, consumer) == "2222.222222"
        await publish(world, provider, usual="4", asks=[{"model": "gpt-5", "multiplier": "0.5"}])
        before = world.sources.clock()
        assert await charged(world, there, provider, consumer) == "2222.222222"
        world.sources.settable.advance(minutes=10)
        assert await charged(world, there, provider, consumer) == "1111.111111"
        assert await charged(world, here, provider, consumer, model="gpt-5-2025-08-07") == "1111.111111"
        assert await charged(world, here, provider, consumer, at=before) == "2222.222222"
        assert await charged(world, here, other, consumer) == "2222.222222"
        await publish(world, provider, usual="2")
        world.sources.settable.advance(minutes=10)
        assert await charged(world, there, provider, consumer) == "4444.444444"
    finally:
        await there.database.close()


async def test_a_price_is_charged_by_the_new_offer_when_a_report_was_read_before_it_came(world: World) -> None:
    """The report is assessed by what this process knows, and again when the newest offer is another one."""
    consumer, provider = await world.consumer(micro=10**12), await world.provider()
    await charged(world, world.context, provider, consumer)
    known = await offers.latest(world.context, provider.id)
    await publish(world, provider, usual="0.25")
    world.sources.settable.advance(minutes=10)
    assert (await offers.latest(world.context, provider.id)) is known, "nothing tells this process"
    assert await charged(world, world.context, provider, consumer) == "555.555555"
    assert (await offers.latest(world.context, provider.id)).newest == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2, "parent": "sha256:" + "0" * 64}, "version_not_next"),
        ({"provider": "prv_00000000000000000000000000"}, "key_of_another"),
        ({"since": NOTICE - timedelta(seconds=1)}, "effective_date_in_past"),
        ({"usual": "4.5"}, "ask_out_of_band"),
        ({"asks": [{"model": "gpt-5-2025-08-07", "multiplier": "1"}]}, "offer_malformed"),
        ({"asks": [{"model": "gpt-5", "tier": "nightly", "multiplier": "1"}]}, "offer_malformed"),
        ({"surprise": 1}, "offer_malformed"),
    ],
)
async def test_what_breaks_a_rule_is_refused_and_not_kept(world: World, changes: dict[str, Any], code: str) -> None:
    provider = await world.provider()
    if "since" in changes:
        changes = changes | {"since": world.sources.clock() + changes["since"]}
    with pytest.raises(SettlementError) as refusal:
        await publish(world, provider, **changes)
    assert refusal.value.code == code
    assert await offers.of_provider(world.context, provider.id) == []


async def test_versions_follow_one_another_in_number_digest_and_time(world: World) -> None:
    provider = await world.provider()
    await publish(world, provider, since=world.sources.clock() + timedelta(days=2))
    for changes, code in (
        ({"version": 3}, "version_not_next"),
        ({"parent": "sha256:" + "0" * 64}, "parent_mismatch"),
        ({"since": world.sources.clock() + timedelta(days=2)}, "effective_date_in_past"),
    ):
        with pytest.raises(SettlementError, match=code):
            await publish(world, provider, **changes)
        provider.offers.pop()
    await publish(world, provider, since=world.sources.clock() + timedelta(days=3))
    assert [each.version for each in await offers.of_provider(world.context, provider.id)] == [1, 2]


async def test_the_same_bytes_again_are_answered_and_only_providers_sign(world: World) -> None:
    provider, consumer = await world.provider(), await world.consumer()
    body, signature = world.offer(provider, world.sources.clock() + NOTICE)
    first, replayed = await offers.publish(world.context, body, signature)
    assert not replayed
    world.sources.settable.advance(hours=1)
    assert await offers.publish(world.context, body, signature) == (first, True)
    with pytest.raises(SettlementError, match="providers_only"):
        await offers.publish(world.context, body, sign_detached(consumer.key, body, SIGNATURE_TYPE))
    with pytest.raises(SettlementError, match="signature_malformed"):
        await offers.publish(world.context, body, sign_detached(provider.key, body, "usage-report+jws"))


async def test_of_two_next_versions_at_once_one_is_taken_in(world: World) -> None:
    provider = await world.provider()
    since = world.sources.clock() + NOTICE
    one = world.offer(provider, since, usual="2")
    provider.offers.pop()
    other = world.offer(provider, since, usual="3")
    outcomes = await asyncio.gather(
        *(offers.publish(world.context, *each) for each in (one, other)), return_exceptions=True
    )
    refused = [each for each in outcomes if isinstance(each, SettlementError)]
    assert [each.code for each in refused] == ["version_not_next"]
    assert len(await offers.of_provider(world.context, provider.id)) == 1
