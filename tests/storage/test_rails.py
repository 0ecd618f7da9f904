"""Fallback addresses: which one is in force at a time."""

from __future__ import annotations

from datetime import timedelta

from settlement.storage import rails
from settlement.storage.parties import PayoutAddress
from tests.world import START, World

DAY = timedelta(days=1)


async def test_a_later_request_calls_off_what_waits_and_replaces_what_is_in_force_when_its_time_comes(
    world: World,
) -> None:
    provider = await world.provider()
    requests = [("one", 0, 7), ("two", 3, 10), ("three", 12, 19)]
    async with world.context.database.begin() as connection:
        for name, asked, valid in requests:
            address = PayoutAddress("stellar", "XLM", name, None, START + valid * DAY)
            await rails.add_fallback(connection, provider.party.no, address, b"{}", "test", START + asked * DAY)
    async with world.context.database.read() as connection:
        seen = []
        for day in (6, 8, 10, 12, 18, 19):
            found = await rails.fallbacks(connection, START + day * DAY)
            seen.append(found[provider.id].address if found else None)
        newest = await rails.newest_fallback(connection, provider.party.no)
    assert seen == [None, None, "two", "two", "two", "three"], "the first was called off before its time came"
    assert newest is not None
    assert newest.address == "three"
