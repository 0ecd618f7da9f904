"""What statements are made of: a party's own rows of one window, adding up to its balance."""

from __future__ import annotations

import pytest

from settlement.storage import statements, windows
from settlement.storage.windows import Window
from tests.client.town import Town
from tests.storage.books import balance
from tests.world import Member, World

pytestmark = pytest.mark.database


async def window(world: World, number: int) -> Window:
    async with world.context.database.read() as connection:
        return await windows.get(connection, number)


async def test_openings_and_postings_add_up_to_the_balance(world: World, town: Town) -> None:
    for member in (town.own, town.buyer, town.linked, town.plain):
        running = 0
        for number in (1, 2, 3):
            span = await window(world, number)
            async with world.context.database.read() as connection:
                assert await statements.opening(connection, member.party.no, span.first_seq) == running
                last = span.last_seq or 10**9
                posted = await statements.postings(connection, member.party.no, span.first_seq, last)
            assert [each.seq for each in posted] == sorted({each.seq for each in posted})
            running += sum(each.amount for each in posted)
        assert running == await balance(world, member.id)


async def records(town: Town, number: int, member: Member) -> list[tuple[str, int]]:
    """(provider, line) of a member's records of a window."""
    async with town.context.database.read() as connection:
        parts = [part async for part in statements.reports(connection, number, member.party.no)]
        assert [part.journal_seq for part in parts] == sorted(part.journal_seq for part in parts)
        return [(part.provider, line.line) for part in parts for line in part.lines]


async def test_records_are_the_partys_own_of_that_window(village: Town) -> None:
    """Lines 0, 2 of the first report of `plain` are the buyer's, 1, 3 `own`'s; the last of `linked` names holds."""
    linked, plain = village.linked.id, village.plain.id
    bought = [(linked, 0), (linked, 1), (linked, 2), (linked, 3), (linked, 4), (plain, 0), (plain, 2), (plain, 0)]
    held = [(linked, line) for line in (0, 1, 2, 4, 5, 6)]  # line 3 names a hold that was released
    assert await records(village, 1, village.buyer) == [*bought, (plain, 4), *held]
    assert await records(village, 1, village.own) == [(plain, 1), (plain, 3), (plain, 3)]
    assert {provider for provider, _ in await records(village, 1, village.linked)} == {linked}
    assert await records(village, 3, village.buyer) == []


async def test_a_salt_key_comes_with_the_checkpoint(world: World, village: Town) -> None:
    async with world.context.database.read() as connection:
        for number, made in ((1, True), (2, False)):
            async for part in statements.reports(connection, number, village.buyer.party.no):
                assert {line.key is not None for line in part.lines} == {made}


async def test_pairs_position_and_payouts(world: World, village: Town) -> None:
    async with world.context.database.read() as connection:
        pairs = await statements.pairs(connection, 1, village.buyer.party.no)
        assert {(pair["consumer"], pair["provider"]) for pair in pairs} == {
            (village.buyer.id, village.linked.id),
            (village.buyer.id, village.plain.id),
        }
        mine = await statements.position(connection, 1, village.buyer.party.no)
        company = await statements.position(connection, 1, village.own.party.no)
        assert mine is not None
        assert company is not None
        assert (mine["party"], mine["linked"], company["party"], company["linked"]) == (
            village.buyer.id, False, village.linked.id, True,
        )  # fmt: skip
        assert mine["spent"] == sum(pair["posted"] for pair in pairs)
        assert await statements.position(connection, 2, village.buyer.party.no) is None
        (payout,) = await statements.payouts(connection, 1, village.plain.party.no)
        assert payout["state"] == "settled"
        assert payout["tx_id"] is not None
        assert await statements.payouts(connection, 1, village.buyer.party.no) == []


async def test_a_deposit_is_shown_where_it_was_credited(world: World, town: Town) -> None:
    """One waited in suspense over a close: it belongs to the window of its crediting entry."""
    first, second = await window(world, 1), await window(world, 2)
    async with world.context.database.read() as connection:
        (early,) = await statements.deposits(connection, town.buyer.party.no, first.first_seq, first.last_seq or 0)
        (late,) = await statements.deposits(connection, town.buyer.party.no, second.first_seq, second.last_seq or 0)
        tables = await statements.rate_tables(connection, [1, 7])
    assert early["amount"] == 70_000_001
    assert late["id"] == town.suspense[0] != early["id"]
    assert second.first_seq <= late["seq"] <= (second.last_seq or 0)
    assert [row["version"] for row in tables] == [1]
