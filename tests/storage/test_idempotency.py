"""Keys and signatures that count once, whoever comes at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from settlement.core.errors import Conflict, Malformed, SettlementError
from settlement.storage import idempotency
from settlement.storage.database import Database
from settlement.storage.idempotency import Claim, Reply
from tests.world import START

pytestmark = pytest.mark.database
WANTED = Claim("key_1", "POST /v1/x", "k", b"f" * 32)
REPLY = Reply(201, b'{"id":1}')
MINUTE = timedelta(minutes=1)


async def claim(database: Database, wanted: Claim, after: timedelta = timedelta()) -> Reply | None:
    now = START + after
    async with database.begin() as connection:
        return await idempotency.claim(connection, wanted, now, now - MINUTE)


async def test_of_many_at_once_one_carries_it_out(database: Database) -> None:
    found = await asyncio.gather(*(claim(database, WANTED) for _ in range(8)), return_exceptions=True)
    assert found.count(None) == 1
    refused = [each for each in found if each is not None]
    assert {each.code for each in refused if isinstance(each, SettlementError)} == {"request_in_flight"}
    assert len(refused) == 7


async def test_the_reply_is_given_again_to_the_same_request_alone(database: Database) -> None:
    assert await claim(database, WANTED) is None
    async with database.begin() as connection:
        await idempotency.complete(connection, WANTED, REPLY)
    assert await claim(database, WANTED, 9 * MINUTE) == REPLY
    with pytest.raises(Malformed, match="idempotency_key_reused"):
        await claim(database, replace(WANTED, fingerprint=b"g" * 32))
    others = (replace(WANTED, principal="key_2"), replace(WANTED, route="POST /v1/y"), replace(WANTED, key="K"))
    for other in others:
        assert await claim(database, other) is None, "another caller, route or key is another request"


async def test_a_claim_is_taken_over_when_its_process_died(database: Database) -> None:
    assert await claim(database, WANTED) is None
    with pytest.raises(Conflict, match="request_in_flight"):
        await claim(database, WANTED, MINUTE)
    with pytest.raises(Malformed, match="idempotency_key_reused"):
        await claim(database, replace(WANTED, fingerprint=b"g" * 32), 2 * MINUTE)
    assert await claim(database, WANTED, MINUTE + timedelta(microseconds=1)) is None
    with pytest.raises(Conflict, match="request_in_flight"):
        await claim(database, WANTED, 2 * MINUTE)


async def test_a_key_is_given_back_unless_it_was_answered(database: Database) -> None:
    assert await claim(database, WANTED) is None
    async with database.begin() as connection:
        await idempotency.release(connection, WANTED)
    assert await claim(database, replace(WANTED, fingerprint=b"g" * 32)) is None
    async with database.begin() as connection:
        await idempotency.complete(connection, WANTED, REPLY)
        await idempotency.release(connection, WANTED)
    assert await claim(database, replace(WANTED, fingerprint=b"g" * 32)) == REPLY


async def test_a_signature_takes_effect_once_and_only_with_its_commit(database: Database) -> None:
    digest = b"d" * 32
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as connection:
            await idempotency.use_once(connection, "kid", "set-payout-address", digest, START)
            raise ZeroDivisionError
    async with database.begin() as connection:
        await idempotency.use_once(connection, "kid", "set-payout-address", digest, START)
        await idempotency.use_once(connection, "kid", "revoke-key", digest, START)
        await idempotency.use_once(connection, "other", "set-payout-address", digest, START)
    with pytest.raises(Conflict, match="signature_replayed"):
        async with database.begin() as connection:
            await idempotency.use_once(connection, "kid", "set-payout-address", digest, START + MINUTE)


async def test_forgetting_keeps_what_is_younger(database: Database) -> None:
    assert await claim(database, WANTED) is None
    assert await claim(database, replace(WANTED, key="late"), 5 * MINUTE) is None
    async with database.begin() as connection:
        assert await idempotency.forget(connection, START) == 0
        assert await idempotency.forget(connection, START + 5 * MINUTE) == 1
    assert await claim(database, WANTED, 5 * MINUTE) is None
    with pytest.raises(Conflict):
        await claim(database, replace(WANTED, key="late"), 5 * MINUTE)
