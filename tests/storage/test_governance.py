"""Governed documents by version and by the time they are in force from."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from settlement.core.errors import NotFound, Unavailable
from settlement.core.policy import Policy
from settlement.storage import governance
from settlement.storage.database import Database
from settlement.storage.governance import Signed
from tests.world import START

pytestmark = pytest.mark.database
DAY = timedelta(days=1)
BY = [{"protected": "p", "signature": "s"}]


def table(version: int, day: int) -> Signed:
    return Signed(version, bytes([version]) * 32, START + day * DAY, b"table %d" % version, BY)


def policy(version: int, day: int) -> Signed:
    found = Policy(version, START + day * DAY, usd_per_asset={"USD": Fraction(version)})
    return Signed(version, bytes([version]) * 32, found.effective_from, found.document(), BY)


async def test_the_table_in_force_is_the_latest_whose_time_has_come(database: Database) -> None:
    async with database.begin() as connection:
        assert await governance.rate_tables(connection, lock=True) == []
        for each in (table(1, 0), table(2, 10)):
            await governance.publish_rates(connection, each, ["a"], START)
        found = [await governance.rates_at(connection, START + at) for at in (0 * DAY, 10 * DAY - DAY, 10 * DAY)]
        assert [each.version for each in found] == [1, 1, 2]
        assert await governance.rate_tables(connection) == [table(1, 0), table(2, 10)]
        with pytest.raises(NotFound, match="rates_not_in_force"):
            await governance.rates_at(connection, START - timedelta(microseconds=1))


@pytest.mark.parametrize("again", [table(1, 5), Signed(2, bytes([1]) * 32, START + DAY, b"x", BY), table(2, 0)])
async def test_version_digest_and_time_are_used_once(database: Database, again: Signed) -> None:
    async with database.begin() as connection:
        await governance.publish_rates(connection, table(1, 0), ["a"], START)
    with pytest.raises(IntegrityError):
        async with database.begin() as connection:
            await governance.publish_rates(connection, again, ["b"], START)
    async with database.read() as connection:
        assert await governance.rate_tables(connection) == [table(1, 0)]
        assert (await governance.model_numbers(connection)).keys() == {"a"}


async def test_a_name_keeps_its_number(database: Database) -> None:
    """Usage records hold it: a later table neither renumbers a model nor drops one."""
    async with database.begin() as connection:
        await governance.publish_rates(connection, table(1, 0), ["b", "a", "b"], START)
        before = await governance.model_numbers(connection)
        await governance.publish_rates(connection, table(2, 1), ["c", "a"], START)
        after = await governance.model_numbers(connection)
    assert before.keys() == {"a", "b"}
    assert after.keys() == {"a", "b", "c"}
    assert after.items() >= before.items()
    assert len(set(after.values())) == 3


async def test_one_publisher_at_a_time(database: Database) -> None:
    async with database.begin() as holder:
        await governance.rate_tables(holder, lock=True)
        async with database.begin() as reader:
            assert await governance.rate_tables(reader) == []
        with pytest.raises(Unavailable):
            async with database.begin() as other:
                await other.execute(text("SET LOCAL lock_timeout = '50ms'"))
                await governance.rate_tables(other, lock=True)


async def test_the_policy_in_force(database: Database) -> None:
    async with database.begin() as connection:
        with pytest.raises(NotFound, match="policy_not_in_force"):
            await governance.policy_at(connection, START)
        for each in (policy(1, 0), policy(2, 3)):
            await governance.publish_policy(connection, each)
        worth = [(await governance.policy_at(connection, START + day * DAY)).usd_per_asset["USD"] for day in (0, 2, 3)]
        assert worth == [1, 1, 2]
        assert await governance.policies(connection) == [policy(1, 0), policy(2, 3)]
