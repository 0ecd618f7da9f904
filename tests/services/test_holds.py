"""Holds through the real use cases on a real database, one process and two."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace as changed
from sqlalchemy import select, text

from governance import service as governance
from settlement.core import canonical, times
from settlement.core.errors import (
    Conflict,
    Forbidden,
    Insufficient,
    Malformed,
    NotFound,
    Unauthenticated,
)
from settlement.core.holds import Ask
from settlement.core.policy import Policy
from settlement.core.signatures import sign_document
from settlement.core.units import cu_text
from settlement.services import authentication, holds, metering, participants, quotes
from settlement.services.authentication import Credential, Principal
from settlement.services.holds import Answer
from settlement.storage import governance as governed
from settlement.storage.database import Database
from settlement.storage.tables import api_key, hold, party
from tests.holding import PER_TOKEN, amount, attempt, key_of, open_till
from tests.world import World, first_rates

pytestmark = [pytest.mark.anyio, pytest.mark.database]


async def test_a_hold_reserves_input_and_the_first_slice(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    answer = await till.place()
    found = holds.document(answer.stored)
    assert not answer.replayed
    assert found["amount"] == "0.889723"
    assert (found["output_tokens"], found["report_at"], found["grant"]) == (256, 205, 1)
    assert (found["consumer"], found["rates"], found["final"]) == (till.consumer.id, "1", None)
    assert await till.balance() == (5_000_000, 889_723, 5_000_000 - 889_723)


async def test_the_same_request_is_the_same_hold_and_another_body_a_conflict(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    placing = till.placing()
    first, again = [await holds.place(world.context, placing) for _ in range(2)]
    assert again.replayed
    assert again.stored == first.stored
    with pytest.raises(Conflict, match="hold_conflict"):
        await holds.place(world.context, changed(placing, fingerprint=bytes(32)))
    together = await asyncio.gather(*(holds.place(world.context, till_placing) for till_placing in [placing] * 5))
    assert {each.stored.id for each in together} == {first.stored.id}
    assert (await till.balance())[1] == 889_723


async def test_two_hundred_at_once_on_a_balance_for_a_hundred_gives_exactly_a_hundred(world: World) -> None:
    """Half of them through a second process's connections."""
    till = await open_till(world, micro=100 * amount(256))
    other = Database(world.context.database.engine.url.render_as_string(hide_password=False))
    contexts = [world.context, replace(world.context, database=other)]
    asked = [holds.place(contexts[n % 2], till.placing(output_tokens=256)) for n in range(200)]
    outcomes = await asyncio.gather(*map(attempt, asked))
    await other.close()
    given = [each for each in outcomes if isinstance(each, Answer)]
    refused = [each for each in outcomes if isinstance(each, Insufficient)]
    assert (len(given), len(refused)) == (100, 100)
    assert {each.code for each in refused} == {"insufficient_balance"}
    assert await till.balance() == (100 * amount(256), 100 * amount(256), 0)


async def test_a_refusal_says_how_much_is_missing(world: World) -> None:
    till = await open_till(world, micro=amount(0) + 100)
    with pytest.raises(Insufficient) as caught:
        await till.place(output_tokens=256)
    assert caught.value.missing == amount(256) - amount(0) - 100
    with pytest.raises(Insufficient):
        await till.place()  # not even ten tokens
    assert (await till.balance())[1] == 0


async def test_an_adaptive_first_slice_shrinks_to_what_is_there(world: World) -> None:
    till = await open_till(world, micro=amount(40))
    found = holds.document((await till.place()).stored)
    assert (found["output_tokens"], found["amount"]) == (40, cu_text(amount(40)))
    assert found["final"] == {"action": "stop"}


async def test_slices_are_extended_once_for_each_number_until_the_balance_ends(world: World) -> None:
    till = await open_till(world, micro=amount(600))
    placed = await till.place(final_action="absorb", absorb=1_000_000)
    second = await till.extend(placed, 2)
    assert (second.stored.hold.output_tokens, second.stored.hold.amount) == (512, amount(512))
    again = await till.extend(placed, 2)
    assert again.stored.hold.output_tokens == 512
    with pytest.raises(Conflict, match="grant_out_of_order"):
        await till.extend(placed, 4)
    third = await till.extend(placed, 3)
    assert third.stored.hold.output_tokens == 600
    assert holds.document(third.stored)["final"] == {"action": "absorb", "output_tokens": 10**12 // PER_TOKEN}
    assert await till.balance() == (amount(600), amount(600), 0)
    fourth = await till.extend(placed, 4)
    assert fourth.stored.hold.output_tokens == 600
    await world.credit(till.consumer.id, 10_000_000)
    fifth = await till.extend(placed, 5)
    assert fifth.stored.hold.output_tokens == 1112
    assert holds.document(fifth.stored)["final"] is None


async def test_nothing_beyond_the_most_output_is_granted(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place(max_output_tokens=300)
    assert placed.stored.hold.output_tokens == 256
    assert (await till.extend(placed, 2)).stored.hold.output_tokens == 300
    assert (await till.extend(placed, 3)).stored.hold.amount == amount(300)


async def test_meters_of_a_hold_grow_with_an_extension(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = await till.place()
    grown = await till.extend(placed, 2, meters={"input_tokens": 5_000})
    expected = -(-(5_000 * 277_777_778 + 512 * PER_TOKEN) // 10**6)
    assert grown.stored.hold.amount == expected
    with pytest.raises(Malformed, match="only grow"):
        await till.extend(placed, 3, meters={"input_tokens": 4_999})
    assert (await till.extend(placed, 3)).stored.hold.amount == expected + -(-256 * PER_TOKEN // 10**6)


async def test_a_heartbeat_spares_a_silent_stream_and_expiry_frees_a_dead_one(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    alive, dead = await till.place(expires_in=60), await till.place(expires_in=60)
    world.sources.settable.advance(seconds=59)
    await till.extend(alive, 1)
    world.sources.settable.advance(seconds=1)
    assert await holds.expire(world.context) == 1
    assert await till.count("open") == 1
    assert (await till.balance())[1] == amount(256)
    with pytest.raises(Conflict, match="hold_ended"):
        await till.extend(dead, 2)
    assert (await till.release(dead)).stored.hold.state == "expired"
    assert await holds.expire(world.context) == 0


async def test_a_release_gives_everything_back_and_may_be_repeated(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    placed = await till.place()
    for _ in range(2):
        assert (await till.release(placed)).stored.hold.state == "released"
    assert await till.balance() == (5_000_000, 0, 5_000_000)


async def test_release_extension_and_expiry_at_once_end_a_hold_once(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    for _ in range(5):
        placed = await till.place(expires_in=10)
        world.sources.settable.advance(seconds=10)
        await asyncio.gather(
            *(attempt(till.release(placed)) for _ in range(3)),
            *(attempt(till.extend(placed, 2)) for _ in range(3)),
            *(attempt(holds.expire(world.context)) for _ in range(2)),
        )
        await attempt(till.release(placed))
        assert (await till.balance())[1] == 0
    assert await till.count("open") == 0


async def test_a_lease_reserves_for_all_its_requests_and_is_not_extended(world: World) -> None:
    till = await open_till(world, micro=100_000_000)
    lease = await till.place(requests=100)
    assert lease.stored.hold.amount == 100 * amount(256)
    with pytest.raises(Conflict, match="hold_is_lease"):
        await till.extend(lease, 2)
    assert (await till.extend(lease, 1)).replayed


async def test_keys_are_read_in_the_transaction(world: World) -> None:
    """A revoked key reserves nothing, and neither does one that may do more than spend."""
    till = await open_till(world, micro=5_000_000)
    async with world.context.database.begin() as connection:
        await connection.execute(
            text("UPDATE api_key SET revoked_at = now() WHERE id = :id"), {"id": till.consumer_key.key_id}
        )
    with pytest.raises(Unauthenticated, match="consumer_key_unknown"):
        await till.place()
    till.consumer_key = await key_of(world, till.consumer, "read", "spend")
    with pytest.raises(Forbidden, match="consumer_key_scope"):
        await till.place()
    till.consumer_key = await key_of(world, till.provider, "spend")
    with pytest.raises(Forbidden, match="consumer_key_scope"):
        await till.place()
    till.consumer_key = await key_of(world, till.consumer, "spend")
    for wrong, code in (
        (await key_of(world, till.provider, "read"), "scope_missing"),
        (till.consumer_key, "providers_only"),
    ):
        till.provider_key = wrong
        with pytest.raises(Forbidden, match=code):
            await till.place()
    till.provider_key = Credential(till.consumer_key.key_id, bytes(32))
    with pytest.raises(Unauthenticated, match="key_unknown"):
        await till.place()
    assert (await till.balance())[1] == 0


async def test_suspended_consumers_and_providers_reserve_nothing(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    for member, code in ((till.consumer, "consumer_suspended"), (till.provider, "provider_suspended")):
        async with world.context.database.begin() as connection:
            await connection.execute(party.update().where(party.c.no == member.party.no).values(status="suspended"))
        with pytest.raises(Forbidden, match=code):
            await till.place()


@pytest.mark.parametrize("stopped", ["key", "consumer"])
async def test_a_stopped_spender_reserves_nothing_more_for_a_stream_that_runs(world: World, stopped: str) -> None:
    """A stolen key that was revoked spends no further slice; what was granted can still be used up and captured."""
    till = await open_till(world, micro=50_000_000)
    placed = await till.place(final_action="redirect")
    if stopped == "key":
        await participants.revoke_api_key(world.context, till.consumer.party, till.consumer_key.key_id)
    else:
        await participants.set_status(world.context, till.consumer.party.id, "suspended")
    for grant, size in ((2, None), (3, 4_096)):
        hold = (await till.extend(placed, grant, output_tokens=size)).stored.hold
        assert (hold.output_tokens, hold.amount, hold.at_end) == (256, amount(256), True)
    world.sources.settable.advance(minutes=1)
    kept = (await till.extend(placed, 3)).stored.hold
    assert kept.expires_at == world.sources.clock() + timedelta(minutes=5), "a stream that runs is not cut off"


async def test_a_slice_is_reserved_for_what_the_model_makes(world: World) -> None:
    """Speech costs more than text: a record of it is paid whole, and a quote's ceiling is one."""
    till = await open_till(world, micro=50_000_000)
    model = {"model": "gpt-audio", "meters": {"input_tokens": 100}}
    placed = await till.place(**model)
    spoken = {"input_tokens": 100, "output_tokens": 256, "output_audio_tokens": 256}
    record = world.record(till.consumer, model="gpt-audio", meters=spoken, hold=placed.stored.id)
    body, signature = world.report(till.provider, [record])
    await metering.submit(world.context, body=body, signature=signature)
    settled = (await till.balance())[0]
    assert 50_000_000 - settled == (100 * 555_555_556 + 256 * 14_222_222_222) // 10**6
    ceiling = await quotes.quote(
        world.context,
        quotes.Asked("gpt-audio", "standard", {"input_tokens": 100}, None, None, Ask(max_output_tokens=256)),
    )
    assert ceiling.quote.ceiling is not None
    assert ceiling.quote.ceiling.amount == placed.stored.hold.amount > ceiling.quote.expected.amount


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("unknown_model", {"model": "no-such"}),
        ("unknown_tier", {"tier": "no-such"}),
        ("unknown_meter", {"meters": {"no_such": 1}}),
        ("unknown_meter", {"meters": {"output_tokens": 1}}),
        ("subset_above_whole", {"meters": {"input_tokens": 1, "cache_read_tokens": 2}}),
        ("request_too_large", {"meters": {"input_tokens": 10**7 + 1}}),
    ],
)
async def test_what_the_table_does_not_price_is_not_reserved(world: World, code: str, change: dict[str, Any]) -> None:
    till = await open_till(world, micro=5_000_000)
    with pytest.raises(Malformed, match=code):
        await till.place(**change)


async def test_holds_of_others_are_unknown(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    placed = await till.place()
    other = await world.provider("other")
    till.provider_key = await key_of(world, other, "holds")
    with pytest.raises(NotFound, match="unknown_hold"):
        await till.release(placed)
    for member, sees in ((till.provider, True), (till.consumer, True), (other, False)):
        principal = Principal(member.party, "key", frozenset({"read"}))
        if sees:
            assert (await holds.get(world.context, principal, placed.stored.id)).id == placed.stored.id
        else:
            with pytest.raises(NotFound, match="unknown_hold"):
                await holds.get(world.context, principal, placed.stored.id)


async def test_one_bad_request_does_not_spoil_those_that_share_its_transaction(world: World) -> None:
    till = await open_till(world, micro=5_000_000)
    outcomes = await asyncio.gather(
        *(attempt(till.place(**change)) for change in ({}, {"model": "no-such"}, {}, {"output_tokens": 4_096}))
    )
    assert [type(each) for each in outcomes] == [Answer, Malformed, Answer, Insufficient]


async def test_secrets_are_in_no_repr(world: World) -> None:
    till = await open_till(world, micro=1)
    assert till.consumer_key.secret_hash.hex() not in repr(till.placing())
    assert authentication.credential("cu_nonsense") is None
    async with world.context.database.read() as connection:
        kept = (await connection.execute(select(api_key.c.secret_hash))).scalars().all()
    assert till.consumer_key.secret_hash in kept


async def test_what_is_held_is_the_sum_of_open_holds(world: World) -> None:
    till = await open_till(world, micro=50_000_000)
    placed = [await till.place() for _ in range(4)]
    await till.extend(placed[0], 2)
    await till.release(placed[1])
    async with world.context.database.read() as connection:
        query = select(hold.c.amount - hold.c.captured - hold.c.released).where(hold.c.state == "open")
        reserved = sum((await connection.execute(query)).scalars())
    settled, held, available = await till.balance()
    assert held == reserved == 3 * amount(256) + amount(512) - amount(256)
    assert settled - held == available
    assert timedelta(seconds=300) == placed[0].stored.hold.expires_at - placed[0].stored.hold.created_at


async def ruled(world: World, **rules: Any) -> None:
    """A policy with other rules of holds, in force from now on."""
    async with world.context.database.read() as connection:
        (first,) = await governed.policies(connection)
    policy = Policy.parse(first.document)
    following = replace(
        policy,
        version=2,
        effective_from=world.sources.clock() + timedelta(minutes=10),
        parent=canonical.digest(first.document),
        holds=replace(policy.holds, **rules),
    ).document()
    await governance.publish_policy(world.context, following, [sign_document(world.context.key, following)])
    world.sources.settable.advance(minutes=10)


async def test_the_policy_in_force_says_how_holds_are_given(world: World) -> None:
    """A hold that was made before is extended by the new rules, and keeps what it has."""
    till = await open_till(world, micro=100_000_000)
    old = await till.place(expires_in=3_600)
    await ruled(world, first_slice=32, largest_slice=64, steady_grants=1, most_requests=2, usual=timedelta(minutes=1))
    placed = (await till.place()).stored.hold
    assert (placed.output_tokens, placed.expires_at - placed.created_at) == (32, timedelta(minutes=1))
    assert (await till.place(requests=2, output_tokens=64)).stored.hold.output_tokens == 64
    for wrong in ({"output_tokens": 65}, {"requests": 3}):
        with pytest.raises(Malformed, match="hold_out_of_bounds") as caught:
            await till.place(**wrong)
        assert [each.pointer for each in caught.value.problems] == [f"/{next(iter(wrong))}"]
    assert (await till.extend(old, 2)).stored.hold.output_tokens == 256 + 64
    assert (await till.extend(old, 3, output_tokens=4_096)).stored.hold.output_tokens == 256 + 2 * 64


async def limited(world: World, **bounds: int) -> None:
    """A rate table that says what gpt-5 takes and gives, in force from now on."""
    document = json.loads(first_rates())
    document |= {"version": 2, "parent": canonical.digest(first_rates())}
    document["effective_from"] = times.text(world.sources.clock() + timedelta(minutes=10))
    document["models"]["gpt-5"]["bounds"] = bounds
    second = canonical.encode(document)
    await governance.publish_rates(world.context, second, [sign_document(world.context.key, second)])
    world.sources.settable.advance(minutes=10)


async def test_a_models_context_and_output_bound_a_hold(world: World) -> None:
    till = await open_till(world, micro=100_000_000)
    before = await till.place(expires_in=3_600)
    await limited(world, context_tokens=2_000, max_output_tokens=300)
    with pytest.raises(Malformed, match="context_exceeded"):
        await till.place(meters={"input_tokens": 2_001})
    placed = await till.place(meters={"input_tokens": 2_000})
    assert placed.stored.hold.max_output_tokens == 300
    grown = await till.extend(placed, 2)
    assert (grown.stored.hold.output_tokens, grown.stored.hold.at_end) == (300, False)
    assert (await till.extend(placed, 3)).stored.hold.output_tokens == 300
    with pytest.raises(Malformed, match="context_exceeded"):
        await till.extend(placed, 4, meters={"input_tokens": 2_001})
    assert (await till.place(max_output_tokens=100)).stored.hold.max_output_tokens == 100
    assert (await till.place(max_output_tokens=1_000)).stored.hold.max_output_tokens == 300
    old = await till.extend(before, 2, meters={"input_tokens": 5_000})
    assert old.stored.hold.output_tokens == 512, "the table that it was made under knows no limit"
