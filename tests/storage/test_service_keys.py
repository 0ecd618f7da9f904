"""The service's keys as rows: one founding key, each next key once, and the head says who signs."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import Unavailable
from settlement.core.signatures import SigningKey
from settlement.storage import service_keys
from settlement.storage.service_keys import ServiceKey
from tests.world import START, World

pytestmark = pytest.mark.database
NEXT = SigningKey(bytes([7]) * 32).public


async def test_the_founding_key_is_recorded_once(world: World) -> None:
    async with world.context.database.begin() as connection:
        await service_keys.found(connection, NEXT, START)
        assert [key.kid for key in await service_keys.every(connection)] == [world.context.key.public.kid]
        assert await service_keys.signer(connection) == world.context.key.public.kid


async def test_the_last_key_signs_and_no_other(world: World) -> None:
    async with world.context.database.begin() as connection:
        await service_keys.add(connection, ServiceKey(NEXT.kid, NEXT, 3, b"{}", ()), START)
        assert await service_keys.signer(connection) == NEXT.kid
    service_keys.check_signer(NEXT.kid, NEXT)
    with pytest.raises(Unavailable, match="signer_retired"):
        service_keys.check_signer(NEXT.kid, world.context.key.public)


async def test_a_key_comes_once(world: World) -> None:
    ours = world.context.key.public
    with pytest.raises(IntegrityError, match="pk_service_key"):
        async with world.context.database.begin() as connection:
            await service_keys.add(connection, ServiceKey(ours.kid, ours, 3, b"{}", ()), START)
