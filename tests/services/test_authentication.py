"""Who is asking: only the right secret, only the right key, only in its time."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256

import pytest

from settlement.core.errors import Unauthenticated
from settlement.core.signatures import SigningKey, sign_detached
from settlement.services import authentication
from settlement.storage import parties
from settlement.storage.database import Connection
from tests.world import Member, World

pytestmark = pytest.mark.database
BODY = b'{"purpose":"x"}'


async def issued(world: World, member: Member, *scopes: str) -> str:
    async def use_case(connection: Connection) -> str:
        return await authentication.issue_api_key(connection, world.sources, member.party.no, scopes)

    return await world.context.database.run(use_case)


async def by_signature(world: World, value: str, body: bytes = BODY) -> str:
    async with world.context.database.begin() as connection:
        return (await authentication.by_signature(world.context, connection, value, body))[0].id


async def test_an_api_key_names_its_owner_and_what_it_may_do(world: World) -> None:
    one, two = await world.consumer(), await world.provider()
    first, second = await issued(world, one, "read", "funding"), await issued(world, two, "read")
    found = await authentication.by_api_key(world.context, first)
    assert (found.party.id, found.scopes) == (one.id, frozenset({"read", "funding"}))
    assert (await authentication.by_api_key(world.context, second)).party.id == two.id
    async with world.context.database.read() as connection:
        stored = await parties.find_api_key(connection, found.key_id)
    assert stored is not None
    assert stored[0] == sha256(first.rsplit("_", 1)[1].encode()).digest(), "the secret itself is not kept"


async def test_every_other_token_is_refused_alike(world: World) -> None:
    """An unknown key, a wrong secret and a revoked key can't be told apart."""
    one, two = await world.consumer(), await world.consumer()
    first, second = await issued(world, one, "read"), await issued(world, two, "read")
    revoked = await issued(world, one, "read")
    async with world.context.database.begin() as connection:
        assert await parties.revoke_api_key(
            connection, f"key_{revoked.split('_')[1]}", one.party.no, world.sources.clock()
        )
    secret = second.rsplit("_", 1)[1]
    refused = [
        "",
        "cu_",
        revoked,
        first[:-1] + ("0" if first[-1] != "0" else "1"),
        f"{first.rsplit('_', 1)[0]}_{secret}",
        first.upper(),
        first + "\n",
        f" {first}",
        f"cu_{'0' * 26}_{secret}",
        first.replace("_", "\u005f\u0301", 1),
    ]
    said = set()
    for token in refused:
        with pytest.raises(Unauthenticated) as error:
            await authentication.by_api_key(world.context, token)
        said.add((error.value.code, error.value.detail))
        assert token not in error.value.detail or not token
    assert len(said) == 1
    assert (await authentication.by_api_key(world.context, first)).party.id == one.id


async def test_a_signature_names_the_owner_of_its_key_while_it_is_valid(world: World) -> None:
    one, two = await world.provider(), await world.consumer()
    assert await by_signature(world, sign_detached(one.key, BODY)) == one.id
    assert await by_signature(world, sign_detached(two.key, BODY)) == two.id
    hour = timedelta(hours=1)
    async with world.context.database.begin() as connection:
        await parties.revoke_key(connection, one.key.public.kid, world.sources.clock() + hour)
    value = sign_detached(one.key, BODY)
    world.sources.settable.now += hour - timedelta(microseconds=1)
    assert await by_signature(world, value) == one.id
    world.sources.settable.now += timedelta(microseconds=1)
    with pytest.raises(Unauthenticated, match="key_unknown"):
        await by_signature(world, value)


async def test_a_key_does_not_count_before_its_time(world: World) -> None:
    member, later = await world.provider(), SigningKey(world.sources.entropy(32))
    now = world.sources.clock()
    key = parties.Key(later.public.kid, member.party.no, later.public.raw, now + timedelta(seconds=1), None)
    async with world.context.database.begin() as connection:
        await parties.add_key(connection, key, now)
    with pytest.raises(Unauthenticated, match="key_unknown"):
        await by_signature(world, sign_detached(later, BODY))
    world.sources.settable.advance(seconds=1)
    assert await by_signature(world, sign_detached(later, BODY)) == member.id


async def test_what_is_no_signature_of_these_bytes(world: World) -> None:
    one, two = await world.provider(), await world.provider()
    stranger = SigningKey(world.sources.entropy(32))
    good, other = sign_detached(one.key, BODY), sign_detached(two.key, BODY)
    header = good.split("..")[0]
    cases = {
        "": "signature_missing",
        "x": "signature_malformed",
        sign_detached(stranger, BODY): "key_unknown",
        sign_detached(one.key, BODY + b" "): "signature_invalid",
        f"{header}..{other.split('..')[1]}": "signature_invalid",
        good[:-2]: "signature_malformed",
    }
    found = {}
    for value in cases:
        with pytest.raises(Unauthenticated) as error:
            await by_signature(world, value)
        found[value] = error.value.code
    assert found == cases
