"""Row numbers of consumers: remembered, and never of anybody else."""

from __future__ import annotations

import pytest

from settlement.services import directory
from settlement.storage import parties
from tests.world import World

pytestmark = pytest.mark.database


async def test_consumers_alone_have_a_number(world: World) -> None:
    one, two, provider = await world.consumer(), await world.consumer(), await world.provider()
    unknown = "acc_" + "0" * 26
    async with world.context.database.read() as connection:
        found = await directory.party_numbers(world.context, connection, [one.id, provider.id, unknown, two.id])
        assert found == {one.id: one.party.no, two.id: two.party.no}
        assert await directory.party_numbers(world.context, connection, []) == {}


async def test_who_was_unknown_is_found_once_registered(world: World) -> None:
    """What isn't there is not remembered, and what is remembered needs no database."""
    consumer = await world.consumer()
    early = "acc_" + "0" * 26
    async with world.context.database.read() as connection:
        assert await directory.party_numbers(world.context, connection, [early]) == {}
    async with world.context.database.begin() as connection:
        late = await parties.add(
            connection, party_id=early, kind="consumer", name="x", status="active", account_id=None,
            now=world.sources.clock(),
        )  # fmt: skip
    async with world.context.database.begin() as connection:
        both = await directory.party_numbers(world.context, connection, [early, consumer.id])
        assert both == {early: late.no, consumer.id: consumer.party.no}
    async with world.context.database.engine.connect() as closed:
        pass
    assert await directory.party_numbers(world.context, closed, [early, consumer.id]) == both


async def test_a_full_directory_still_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MOST", 1)
    members = [await world.consumer() for _ in range(3)]
    async with world.context.database.read() as connection:
        for member in (*members, *members):
            found = await directory.party_numbers(world.context, connection, [member.id])
            assert found == {member.id: member.party.no}
        assert len(directory._numbers[world.context.database]) == 1
