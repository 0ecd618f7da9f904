"""Obligations: sums by party, and the audit that finds one which isn't what its records or its postings say."""

from __future__ import annotations

import pytest

from settlement.services import metering
from settlement.storage import obligations
from tests.storage.books import balance, damage
from tests.world import Member, World

pytestmark = pytest.mark.database


async def send(world: World, provider: Member, *consumers: Member) -> None:
    body, signature = world.report(provider, [world.record(consumer) for consumer in consumers])
    await metering.submit(world.context, body=body, signature=signature)


async def market(world: World) -> tuple[Member, Member, Member, Member]:
    """Two consumers and two providers with three reports in window 1."""
    one, two = await world.consumer(micro=10**8), await world.consumer(micro=10**8)
    left, right = await world.provider(account=one.id), await world.provider()
    await send(world, left, two, two)
    await send(world, right, one, two)
    await send(world, left, two)
    return one, two, left, right


async def test_what_each_owes_and_is_owed(world: World) -> None:
    one, two, left, right = await market(world)
    async with world.context.database.read() as connection:
        owed, earned = await obligations.by_party(connection, 1)
        sums = await obligations.sums(connection, 1)
        assert await obligations.by_party(connection, 2) == ({}, {})
        assert await obligations.links(connection) == {one.id: left.id}
    assert owed == {each.id: 10**8 - await balance(world, each.id) for each in (one, two)}
    assert earned == {each.id: await balance(world, each.id) for each in (left, right)}
    assert (sums.reports, sums.records) == (3, 5)
    assert sums.posted == sum(owed.values()) == sum(earned.values())
    assert 0 <= sums.pico - sums.posted * 10**6 < 3 * 10**6, "what isn't posted is carried, less than 1 microCU a pair"


async def test_an_empty_window_sums_to_nothing(world: World) -> None:
    async with world.context.database.read() as connection:
        assert await obligations.sums(connection, 1) == obligations.Sums(0, 0, 0, 0)
        assert await obligations.mismatch(connection, 1) is None
        assert await obligations.unposted(connection, 1, 1, 0) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE obligation SET pico = pico + 1 WHERE provider_no = {provider} AND consumer_no = {consumer}",
        "ALTER TABLE obligation DROP CONSTRAINT ck_obligation_carry;"
        "UPDATE obligation SET posted = posted + 1 WHERE provider_no = {provider} AND consumer_no = {consumer}",
        "UPDATE obligation SET records = records - 1 WHERE provider_no = {provider} AND consumer_no = {consumer}",
        "DELETE FROM obligation WHERE provider_no = {provider} AND consumer_no = {consumer}",
        "DELETE FROM usage_record WHERE provider_no = {provider} AND consumer_no = {consumer}",
    ],
)
async def test_a_pair_that_is_not_the_sum_of_its_records(world: World, database_url: str, statement: str) -> None:
    _, consumer, provider, _ = await market(world)
    async with world.context.database.read() as connection:
        assert await obligations.mismatch(connection, 1) is None
    damage(database_url, statement.format(provider=provider.party.no, consumer=consumer.party.no))
    async with world.context.database.read() as connection:
        assert await obligations.mismatch(connection, 1) == (provider.party.no, consumer.party.no)
        assert await obligations.mismatch(connection, 2) is None


async def test_an_account_whose_postings_are_not_its_obligations(world: World, database_url: str) -> None:
    _, _, _, right = await market(world)
    async with world.context.database.read() as connection:
        assert await obligations.unposted(connection, 1, 1, 5) is None
        assert await obligations.unposted(connection, 1, 1, 4) is not None, "the last report's entry is left out"
    damage(
        database_url,
        "UPDATE posting SET amount = amount + 1 WHERE account_no = "
        f"(SELECT no FROM account WHERE id = '{right.id}') AND entry_seq = 4",
    )
    async with world.context.database.read() as connection:
        assert await obligations.unposted(connection, 1, 1, 5) == right.id
