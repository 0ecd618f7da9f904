"""Once for each key: whatever the act does, and wherever the process dies."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from settlement.core.errors import Conflict, Insufficient, Malformed
from settlement.services import idempotency
from settlement.services.idempotency import ABANDONED, KEPT
from settlement.storage import idempotency as storage
from settlement.storage.idempotency import Claim, Reply
from tests.world import World

pytestmark = pytest.mark.database
CLAIM = Claim("key_1", "POST /v1/x", "k", b"f" * 32)


class Act:
    """Something that is done, counted, and answered with its number; `fails` is raised instead."""

    def __init__(self, fails: BaseException | None = None) -> None:
        self.done = 0
        self.fails = fails

    async def __call__(self) -> Reply:
        self.done += 1
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        return Reply(201, b"%d" % self.done)


async def test_it_is_done_once_and_answered_alike(world: World) -> None:
    act = Act()
    assert await idempotency.once(world.context, CLAIM, act) == (Reply(201, b"1"), False)
    world.sources.settable.advance(days=20)
    assert await idempotency.once(world.context, CLAIM, act) == (Reply(201, b"1"), True)
    with pytest.raises(Malformed, match="idempotency_key_reused"):
        await idempotency.once(world.context, replace(CLAIM, fingerprint=b"g" * 32), act)
    assert act.done == 1
    assert await idempotency.once(world.context, replace(CLAIM, key="l"), act) == (Reply(201, b"2"), False)


async def test_many_at_once_do_it_once(world: World) -> None:
    act = Act()
    found = await asyncio.gather(
        *(idempotency.once(world.context, CLAIM, act) for _ in range(8)), return_exceptions=True
    )
    assert act.done == 1
    assert (Reply(201, b"1"), False) in found
    assert all(each[0] == Reply(201, b"1") for each in found if isinstance(each, tuple))
    assert {each.code for each in found if isinstance(each, Conflict)} <= {"request_in_flight"}


@pytest.mark.parametrize(
    "error", [Insufficient("insufficient_balance", "x"), ZeroDivisionError(), asyncio.CancelledError()]
)
async def test_a_refusal_gives_the_key_back(world: World, error: BaseException) -> None:
    """Also an error that nobody meant, and a caller who went away: nothing was done under this key."""
    with pytest.raises(type(error)):
        await idempotency.once(world.context, CLAIM, Act(error))
    act = Act()
    assert await idempotency.once(world.context, replace(CLAIM, fingerprint=b"g" * 32), act) == (
        Reply(201, b"1"),
        False,
    )


async def test_a_process_that_died_blocks_the_key_for_a_minute(world: World) -> None:
    now = world.sources.clock()
    async with world.context.database.begin() as connection:
        assert await storage.claim(connection, CLAIM, now, now - ABANDONED) is None
    act = Act()
    world.sources.settable.now = now + ABANDONED
    with pytest.raises(Conflict, match="request_in_flight"):
        await idempotency.once(world.context, CLAIM, act)
    assert act.done == 0
    world.sources.settable.now += timedelta(microseconds=1)
    assert await idempotency.once(world.context, CLAIM, act) == (Reply(201, b"1"), False)


async def test_old_replies_are_forgotten(world: World) -> None:
    act = Act()
    await idempotency.once(world.context, CLAIM, act)
    world.sources.settable.now += KEPT
    assert await idempotency.forget_old(world.context) == 0
    world.sources.settable.now += timedelta(microseconds=1)
    assert await idempotency.forget_old(world.context) == 1
    assert await idempotency.once(world.context, CLAIM, act) == (Reply(201, b"2"), False)
