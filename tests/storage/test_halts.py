"""Halts: one row for one trouble, open until a person has looked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from settlement.storage import halts
from settlement.storage.database import Database
from settlement.storage.halts import Halt
from tests.world import START

pytestmark = pytest.mark.database


async def add(database: Database, code: str, detail: str) -> Halt:
    async with database.begin() as connection:
        return await halts.add(connection, code, detail, START)


async def test_the_same_trouble_seen_by_many_is_one_row(database: Database) -> None:
    found = await asyncio.gather(*(add(database, "foreign_slot", "slot 7") for _ in range(6)))
    other = await add(database, "foreign_slot", "slot 8")
    assert len({each.no for each in found}) == 1
    async with database.read() as connection:
        assert await halts.open_halts(connection) == [found[0], other]


async def test_what_was_cleared_may_be_raised_again(database: Database) -> None:
    first = await add(database, "broken", "x")
    async with database.begin() as connection:
        cleared = await halts.clear(connection, first.no, "anna", START + timedelta(hours=1))
    assert cleared is not None
    assert (cleared.no, cleared.cleared_by, cleared.cleared_at) == (first.no, "anna", START + timedelta(hours=1))
    again = await add(database, "broken", "x")
    assert again.no != first.no
    async with database.read() as connection:
        assert await halts.open_halts(connection) == [again]


async def test_a_halt_is_cleared_once(database: Database) -> None:
    """Who cleared it first stays on record."""
    first = await add(database, "broken", "x")
    async with database.begin() as connection:
        assert await halts.clear(connection, first.no, "anna", START) is not None
        assert await halts.clear(connection, first.no, "otto", START) is None
        assert await halts.clear(connection, 99, "anna", START) is None
        assert await halts.open_halts(connection) == []
