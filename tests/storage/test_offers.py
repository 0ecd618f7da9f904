"""Offers are kept as they came, one for each version of a provider."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from settlement.storage import offers
from settlement.storage.offers import SignedOffer, StoredOffer
from tests.world import START, World

pytestmark = pytest.mark.database
HOUR = timedelta(hours=1)


def stored(no: int, kid: str, version: int = 1) -> StoredOffer:
    return StoredOffer(no, version, bytes([version]) * 32, START + version * HOUR, START, kid, "h..s", b"{}")


async def test_they_come_back_in_order_with_the_key_that_signed(world: World) -> None:
    first, second = await world.provider("a"), await world.provider("b")
    async with world.context.database.begin() as connection:
        for member, version in ((second, 1), (first, 1), (first, 2)):
            await offers.add(connection, stored(member.party.no, member.key.public.kid, version))
        assert [each.version for each in await offers.of_provider(connection, first.party.no)] == [1, 2]
        found = await offers.of_providers(connection, [first.id, second.id, "prv_nobody"])
        assert found[0] == SignedOffer(first.id, first.key.public.raw, stored(first.party.no, first.key.public.kid))
        assert [(each.provider, each.offer.version) for each in found] == [(first.id, 1), (first.id, 2), (second.id, 1)]


async def test_a_version_and_a_time_are_given_once(world: World) -> None:
    provider = await world.provider()
    offer = stored(provider.party.no, provider.key.public.kid)
    async with world.context.database.begin() as connection:
        await offers.add(connection, offer)
    with pytest.raises(IntegrityError, match="pk_offer"):
        async with world.context.database.begin() as connection:
            await offers.add(connection, offer)


async def test_an_offer_is_never_changed(world: World) -> None:
    provider = await world.provider()
    async with world.context.database.begin() as connection:
        await offers.add(connection, stored(provider.party.no, provider.key.public.kid))
    with pytest.raises(ProgrammingError, match=r"permission denied|append-only"):
        async with world.context.database.begin() as connection:
            await connection.execute(text("UPDATE offer SET version = 9"))
