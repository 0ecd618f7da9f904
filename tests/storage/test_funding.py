"""What storage keeps of money that comes in: a chain once, a reference once, a payment once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from settlement.storage import accounts, funding
from settlement.storage.funding import ChainState, Intent, StoredDeposit
from tests.storage.books import entry
from tests.world import START, Member, World

pytestmark = pytest.mark.database
CHAIN = ChainState("x", "net", "treasury", None, 0, START, b"secret key of tags")


async def deposits(world: World, member: Member, count: int) -> list[StoredDeposit]:
    """Deposits of 10, 11, ... units in ledgers 1, 2, ...; all but the first belong to the member."""
    rows = []
    async with world.context.database.begin() as connection:
        await accounts.ensure(connection, "conversion/CU", "conversion", "CU")
        for at in range(count):
            head = await entry(connection, f"dep_{at}", ("conversion/CU", -1), (member.id, 1))
            owner = member.party.no if at else None
            worth = ("5/2", 25 + at) if at else (None, 0)
            found = StoredDeposit(
                f"dep_{at}", "x", f"tx{at}", 0, "USD:i", 10 + at, "sender", None, at + 1, START, owner, worth[1],
                worth[0], head.seq,
            )  # fmt: skip
            await funding.add_deposit(connection, found)
            rows.append(found)
    return rows


async def test_a_chain_is_recorded_once_and_its_tip_never_goes_back(world: World) -> None:
    hour = timedelta(hours=1)
    async with world.context.database.begin() as connection:
        assert await funding.state(connection, "x") is None
        assert await funding.add_state(connection, CHAIN)
        assert not await funding.add_state(connection, replace(CHAIN, treasury="thief"))
        assert await funding.state(connection, "x", lock=True) == CHAIN
        await funding.move_cursor(connection, "x", "c1", 9, START + hour)
        await funding.move_cursor(connection, "x", "c2", 7, START)
        found = await funding.state(connection, "x")
    assert found == replace(CHAIN, cursor="c2", tip=9, tip_at=START + hour)
    assert "secret" not in repr(found)


async def test_a_reference_belongs_to_one_intent(world: World) -> None:
    one, two = await world.consumer(), await world.consumer()
    first = Intent("fnd_1", one.party.no, one.id, "x", "USD:i", None, 77, START)
    async with world.context.database.begin() as connection:
        assert await funding.add_intent(connection, first)
        assert not await funding.add_intent(connection, replace(first, id="fnd_2", party_no=two.party.no))
        assert await funding.add_intent(connection, replace(first, id="fnd_3", chain="y", amount=5))
        assert await funding.intents(connection, "x", [77, 78]) == {77: first}
        assert await funding.intents(connection, "x", []) == {}


async def test_a_number_of_an_intent_is_never_given_out_again(world: World) -> None:
    """A reference is made from it: after a rollback the number is lost, and no two intents can have the same."""
    seen = []
    for rolled_back in (True, False, True, False):
        try:
            async with world.context.database.begin() as connection:
                seen.append(await funding.next_intent(connection))
                if rolled_back:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            continue
    assert seen == sorted(set(seen))


async def test_a_payment_is_on_record_once(world: World) -> None:
    member = await world.consumer()
    first, _ = await deposits(world, member, 2)
    async with world.context.database.begin() as connection:
        assert await funding.known(connection, "x", [("tx0", 0), ("tx1", 1), ("tx9", 0)]) == {("tx0", 0)}
        assert await funding.known(connection, "y", [("tx0", 0)]) == set()
        assert await funding.known(connection, "x", []) == set()
    with pytest.raises(IntegrityError, match="uq_deposit_chain"):
        async with world.context.database.begin() as connection:
            head = await entry(connection, "dep_again", ("conversion/CU", -1), (member.id, 1))
            await funding.add_deposit(connection, replace(first, id="dep_again", entry_seq=head.seq))
    async with world.context.database.begin() as connection:
        head = await entry(connection, "dep_again", ("conversion/CU", -1), (member.id, 1))
        await funding.add_deposit(connection, replace(first, id="dep_again", tx_index=1, entry_seq=head.seq))


async def test_out_of_suspense(world: World) -> None:
    member = await world.consumer()
    first, second = await deposits(world, member, 2)
    async with world.context.database.begin() as connection:
        assert await funding.in_suspense(connection) == [first]
        assert await funding.lock_deposit(connection, "dep_9") is None
        assert await funding.lock_deposit(connection, "dep_0") == first
        await funding.credit(connection, "dep_0", member.party.no, 25, "5/2", None)
        assert await funding.in_suspense(connection) == []
        credited = replace(first, party_no=member.party.no, credited=25, micro_per_unit="5/2")
        assert await funding.of_party(connection, member.party.no, before=None, limit=5) == [second, credited]


async def test_pages_of_a_consumers_deposits(world: World) -> None:
    member, other = await world.consumer(), await world.consumer()
    rows = await deposits(world, member, 5)
    async with world.context.database.read() as connection:
        page = await funding.of_party(connection, member.party.no, before=None, limit=3)
        assert page == rows[:1:-1]
        assert await funding.of_party(connection, member.party.no, before=page[-1].id, limit=3) == [rows[1]]
        assert await funding.of_party(connection, other.party.no, before=None, limit=3) == []


async def test_what_arrived_after_a_ledger(world: World) -> None:
    await deposits(world, await world.consumer(), 4)
    async with world.context.database.read() as connection:
        assert await funding.received_after(connection, "x", 0) == {"USD:i": 10 + 11 + 12 + 13}
        assert await funding.received_after(connection, "x", 2) == {"USD:i": 12 + 13}
        assert await funding.received_after(connection, "x", 4) == {}
        assert await funding.received_after(connection, "y", 0) == {}
