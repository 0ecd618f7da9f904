"""Observations and fixings are kept once and never changed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from settlement.storage import fixings
from settlement.storage.database import Database
from settlement.storage.fixings import StoredFixing, StoredObservation
from tests.world import START

pytestmark = pytest.mark.database
DAY = timedelta(days=1)


def seen(source: str, day: int, body: bytes = b"{}") -> StoredObservation:
    return StoredObservation(source, START + day * DAY, START, bytes(32), "h..s", body)


def fixed(number: int) -> StoredFixing:
    return StoredFixing(
        number, START + number * DAY, bytes([number]) * 32, b"{}", [{"protected": "p", "signature": "s"}]
    )


async def test_what_a_source_said_first_about_a_time_stays(database: Database) -> None:
    async with database.begin() as connection:
        assert await fixings.observe(connection, seen("a", 1)) == seen("a", 1)
        assert await fixings.observe(connection, seen("a", 1, b"[]")) == seen("a", 1)
        await fixings.observe(connection, seen("b", 0))
        assert [each.source for each in await fixings.since(connection, START)] == ["b", "a"]
        assert [each.source for each in await fixings.since(connection, START + DAY)] == ["a"]


async def test_fixings_follow_one_another_and_one_of_two_wins(database: Database) -> None:
    async with database.begin() as connection:
        assert await fixings.newest(connection) is None
        for number in (1, 2):
            await fixings.add(connection, fixed(number))
        assert await fixings.newest(connection) == fixed(2)
        assert await fixings.every(connection) == [fixed(1), fixed(2)]
    with pytest.raises(IntegrityError, match="pk_fixing"):
        async with database.begin() as connection:
            await fixings.add(connection, fixed(2))


@pytest.mark.parametrize("table", ["observation", "fixing"])
async def test_nothing_of_it_is_changed(database: Database, table: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|append-only"):
        async with database.begin() as connection:
            await connection.execute(text(f"UPDATE {table} SET at = now()"))
