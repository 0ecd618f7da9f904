"""Participants: one account each, a key that belongs to one party for good, and the address that was asked for last."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from settlement.core.errors import Conflict, NotFound, SettlementError, Unavailable
from settlement.core.signatures import SigningKey
from settlement.storage import accounts, parties
from settlement.storage.database import Connection, Database
from settlement.storage.parties import Key, NewApiKey, Party, PayoutAddress
from tests.world import START

pytestmark = pytest.mark.database
HOUR = timedelta(hours=1)
PUBLIC = SigningKey(bytes(32)).public


async def add(
    connection: Connection, party_id: str, kind: str = "provider", account: str | None = None, status: str = "active"
) -> Party:
    return await parties.add(
        connection, party_id=party_id, kind=kind, name="x", status=status, account_id=account, now=START
    )


async def test_a_party_comes_with_its_account_and_a_provider_with_its_stream(database: Database) -> None:
    async with database.begin() as connection:
        consumer, provider = await add(connection, "acc_1", "consumer"), await add(connection, "prv_1")
        found = [await accounts.get(connection, each) for each in ("acc_1", "prv_1")]
        streams = (await connection.execute(text("SELECT provider_no, seq, digest FROM provider_stream"))).all()
        assert await parties.get(connection, "prv_1") == await parties.by_number(connection, provider.no) == provider
        assert await parties.listed(connection) == [consumer, provider]
        with pytest.raises(NotFound, match="unknown_party"):
            await parties.get(connection, "prv_2")
    assert [(each.kind, each.settled) for each in found] == [("consumer", 0), ("provider", 0)]
    assert [tuple(row) for row in streams] == [(provider.no, 0, None)]


async def test_a_consumer_account_is_linked_to_one_provider(database: Database) -> None:
    async def link(party_id: str) -> Party:
        async with database.begin() as connection:
            return await add(connection, party_id, account="acc_1")

    async with database.begin() as connection:
        await add(connection, "acc_1", "consumer")
    found = await asyncio.gather(*(link(f"prv_{at}") for at in range(5)), return_exceptions=True)
    assert [each.code for each in found if isinstance(each, SettlementError)] == ["account_already_linked"] * 4
    async with database.read() as connection:
        assert len(await parties.listed(connection)) == 2
        assert len(await accounts.of_kinds(connection, "provider")) == 1


async def test_a_key_belongs_to_one_party_for_good(database: Database) -> None:
    async with database.begin() as connection:
        one, two = await add(connection, "prv_1"), await add(connection, "prv_2")
        key = Key(PUBLIC.kid, one.no, PUBLIC.raw, START, None)
        await parties.add_key(connection, key, START)
        await parties.revoke_key(connection, key.kid, START + HOUR)
        assert await parties.find_key(connection, "nobody's") is None
    for kid, owner in ((PUBLIC.kid, one), (PUBLIC.kid, two), ("another name of the same key", two)):
        with pytest.raises(Conflict, match="key_already_registered"):
            async with database.begin() as connection:
                await parties.add_key(connection, Key(kid, owner.no, PUBLIC.raw, START, None), START)
    async with database.read() as connection:
        found = await parties.find_key(connection, PUBLIC.kid)
        assert found is not None
        assert found[1] == one
        assert await parties.keys_of(connection, two.no) == []


async def test_a_key_counts_in_a_half_open_span_and_an_earlier_revocation_stands(database: Database) -> None:
    async with database.begin() as connection:
        party = await add(connection, "prv_1")
        await parties.add_key(connection, Key(PUBLIC.kid, party.no, PUBLIC.raw, START, None), START)
        for at, expected in ((2 * HOUR, 2 * HOUR), (3 * HOUR, 2 * HOUR), (HOUR, HOUR)):
            await parties.revoke_key(connection, PUBLIC.kid, START + at)
            (key,) = await parties.keys_of(connection, party.no)
            assert key.revoked_at == START + expected
    tick = timedelta(microseconds=1)
    times = (-tick, timedelta(), HOUR - tick, HOUR)
    assert [key.valid_at(START + at) for at in times] == [False, True, True, False]


async def test_a_revoked_api_key_is_nobodys(database: Database) -> None:
    async with database.begin() as connection:
        one, two = await add(connection, "prv_1"), await add(connection, "prv_2")
        await parties.add_api_key(connection, NewApiKey("key_1", one.no, b"h" * 32, ["read"]), START)
        await parties.add_api_key(connection, NewApiKey("key_2", one.no, b"i" * 32, []), START + HOUR)
        assert await parties.find_api_key(connection, "key_1") == (b"h" * 32, ["read"], one)
        assert not await parties.revoke_api_key(connection, "key_1", two.no, START), "it is somebody else's"
        assert await parties.revoke_api_key(connection, "key_1", one.no, START + HOUR)
        assert not await parties.revoke_api_key(connection, "key_1", one.no, START + 2 * HOUR)
        assert await parties.find_api_key(connection, "key_1") is None
        listed = await parties.api_keys_of(connection, one.no)
    assert [(each.id, each.scopes, each.revoked_at) for each in listed] == [
        ("key_1", ("read",), START + HOUR),
        ("key_2", (), None),
    ]


async def test_of_the_addresses_whose_time_has_come_the_last_request_counts(database: Database) -> None:
    async with database.begin() as connection:
        party = await add(connection, "prv_1")
        assert await parties.newest_payout_address(connection, party.no) is None
        asked = (("first", 0, 0), ("second", 0, 72), ("first", 1, 1), ("third", 8, 80))
        for address, requested, hours in asked:
            found = PayoutAddress("x", "USD:i", address, None, START + hours * HOUR)
            await parties.add_payout_address(connection, party.no, found, b"{}", "s", START + requested * HOUR)

        async def in_force(hours: int) -> str | None:
            found = await parties.payout_address_at(connection, party.no, START + hours * HOUR)
            return found.address if found else None

        assert [await in_force(hours) for hours in (-1, 0, 1, 72, 79, 80)] == [
            None, "first", "first", "first", "first", "third",
        ]  # fmt: skip
        newest = await parties.newest_payout_address(connection, party.no)
        assert newest is not None
        assert newest.address == "third"
        for address, requested in (("thief", 90), ("rescue", 91)):  # a theft is answered by yet another address
            found = PayoutAddress("x", "USD:i", address, None, START + (requested + 72) * HOUR)
            await parties.add_payout_address(connection, party.no, found, b"{}", "s", START + requested * HOUR)
        assert [await in_force(hours) for hours in (161, 162, 163)] == ["third", "third", "rescue"]


async def test_status_and_the_lock_of_a_party(database: Database) -> None:
    async with database.begin() as connection:
        one, two = await add(connection, "prv_1", status="pending"), await add(connection, "prv_2")
        await parties.set_status(connection, "prv_1", "suspended")
        assert [each.status for each in await parties.listed(connection)] == ["suspended", "active"]
    with pytest.raises(Exception, match="ck_party_status"):
        async with database.begin() as connection:
            await parties.set_status(connection, "prv_1", "rich")
    async with database.begin() as holder:
        await parties.lock(holder, one.no)
        with pytest.raises(Unavailable):
            async with database.begin() as other:
                await other.execute(text("SET LOCAL lock_timeout = '50ms'"))
                await parties.lock(other, two.no)
                await parties.lock(other, one.no)
