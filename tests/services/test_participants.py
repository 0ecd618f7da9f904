"""Participants below HTTP: races, and the rules that hold whoever calls."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from settlement.core.errors import Conflict, Forbidden, NotFound, Refused, SettlementError, Unauthenticated
from settlement.core.signatures import SigningKey, sign_detached
from settlement.services import authentication, metering, participants
from settlement.services.participants import Registered, SignedRequest
from settlement.storage import parties
from tests.world import World


def _signed(world: World, by: SigningKey, **members: object) -> SignedRequest:
    body = json.dumps(members).encode()
    return SignedRequest(body, sign_detached(by, body), world.sources.clock())


async def _register(world: World, key: SigningKey) -> Registered:
    request = _signed(world, key, key=key.public.jwk())
    return await participants.register_consumer(world.context, request, key=key.public.jwk(), name="x")


def _key(world: World) -> SigningKey:
    return SigningKey(world.sources.entropy(32))


async def test_of_many_registrations_of_one_key_one_wins(world: World) -> None:
    key = _key(world)
    found = await asyncio.gather(*(_register(world, key) for _ in range(8)), return_exceptions=True)
    lost = [each for each in found if isinstance(each, SettlementError)]
    assert len(lost) == len(found) - 1
    assert {(type(each), each.code) for each in lost} == {(Conflict, "key_already_registered")}
    async with world.context.database.read() as connection:
        assert len(await parties.listed(connection)) == 1


async def test_two_keys_that_revoke_each_other_leave_one(world: World) -> None:
    """Both requests are valid when they come; the second must see what the first did."""
    for turn in range(5):
        one, two = _key(world), _key(world)
        made = await _register(world, one)
        added = _signed(world, one, turn=turn)
        await participants.add_key(
            world.context,
            added,
            party_id=made.party.id,
            key=two.public.jwk(),
            possession=sign_detached(two, added.body),
            valid_from=None,
        )

        async def revoke(kid: str, by: SigningKey) -> object:
            request = _signed(world, by, kid=kid)
            return await participants.revoke_key(world.context, request, kid=kid, revoked_at=None)

        both = (revoke(two.public.kid, one), revoke(one.public.kid, two))
        found = await asyncio.gather(*both, return_exceptions=True)
        refused = [each for each in found if isinstance(each, Refused)]
        assert [each.code for each in refused] in (["key_unknown"], ["last_key"])
        keys = await participants.keys_of(world.context, made.party)
        assert sum(key.valid_at(world.sources.clock()) for key in keys) == 1


async def test_one_signed_request_of_many_takes_effect(world: World) -> None:
    key = _key(world)
    made = await _register(world, key)
    request = _signed(world, key, purpose="add-api-key")
    asked = (participants.recover_api_key(world.context, request, ["read"]) for _ in range(8))
    found = await asyncio.gather(*asked, return_exceptions=True)
    tokens = [each for each in found if isinstance(each, str)]
    assert len(tokens) == 1
    assert {each.code for each in found if isinstance(each, SettlementError)} == {"signature_replayed"}
    principal = await authentication.by_api_key(world.context, tokens[0])
    assert (principal.party.id, principal.scopes) == (made.party.id, frozenset({"read"}))
    assert len(await participants.api_keys_of(world.context, made.party)) == 2


async def test_a_refused_request_is_not_used_up(world: World) -> None:
    key = _key(world)
    made = await _register(world, key)
    request = _signed(world, key, purpose="add-api-key")
    with pytest.raises(Forbidden):
        await participants.recover_api_key(world.context, request, ["everything"])
    assert await participants.recover_api_key(world.context, request, ["read"])
    assert len(await participants.api_keys_of(world.context, made.party)) == 2


async def test_a_signature_counts_while_its_key_is_valid(world: World) -> None:
    key = _key(world)
    made = await _register(world, key)
    body = b"anything"
    signature = sign_detached(key, body)
    async with world.context.database.begin() as connection:
        party, found = await authentication.by_signature(world.context, connection, signature, body)
        assert (party.id, found.kid) == (made.party.id, made.kid)
        await parties.revoke_key(connection, made.kid, world.sources.clock() + timedelta(seconds=1))
        assert (await authentication.by_signature(world.context, connection, signature, body))[0] == party
        world.sources.settable.advance(seconds=1)
        with pytest.raises(Unauthenticated, match="key_unknown"):
            await authentication.by_signature(world.context, connection, signature, body)


async def test_an_api_key_of_another_party_cannot_be_revoked(world: World) -> None:
    one, two = await _register(world, _key(world)), await _register(world, _key(world))
    theirs = (await participants.api_keys_of(world.context, two.party))[0]
    with pytest.raises(NotFound, match="unknown_key"):
        await participants.revoke_api_key(world.context, one.party, theirs.id)
    assert (await authentication.by_api_key(world.context, two.api_key)).party == two.party
    await participants.revoke_api_key(world.context, two.party, theirs.id)
    with pytest.raises(Unauthenticated):
        await authentication.by_api_key(world.context, two.api_key)


async def test_a_suspended_consumer_is_not_charged_and_comes_back(world: World) -> None:
    consumer, provider = await world.consumer(), await world.provider()
    await world.credit(consumer.id, 10**9)

    async def accepted() -> int:
        body, signature = world.report(provider, [world.record(consumer)])
        answer = await metering.submit(world.context, body=body, signature=signature)
        return int(answer.document["accepted"])

    assert await participants.set_status(world.context, consumer.id, "suspended") == "active"
    assert await accepted() == 0
    assert await participants.set_status(world.context, consumer.id, "active", kind="consumer") == "suspended"
    assert await accepted() == 1


async def test_the_kind_that_is_meant_is_kept_to(world: World) -> None:
    consumer, provider = await world.consumer(), await world.provider()
    for party, kind in ((consumer.id, "provider"), (provider.id, "consumer"), ("prv_none", "provider")):
        with pytest.raises(NotFound, match="unknown_party"):
            await participants.set_status(world.context, party, "suspended", kind=kind)  # type: ignore[arg-type]
    consumers = await participants.listed(world.context, "consumer")
    providers = await participants.listed(world.context, "provider")
    assert [(party.id, party.status) for party in consumers] == [(consumer.id, "active")]
    assert [(party.id, party.status) for party in providers] == [(provider.id, "active")]
