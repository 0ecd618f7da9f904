"""The evidence of leaves: what streams in journal order, what one record's is, and reports that lost a record."""

from __future__ import annotations

from uuid import UUID

import pytest

from settlement.core.errors import Broken
from settlement.core.ids import uuid7
from settlement.services import metering
from settlement.storage import usage_leaves
from settlement.storage.usage_leaves import ReportLines
from tests.storage.books import damage
from tests.world import Member, World

pytestmark = pytest.mark.database


async def send(world: World, provider: Member, records: list[dict[str, object]]) -> dict[str, object]:
    body, signature = world.report(provider, records)
    return (await metering.submit(world.context, body=body, signature=signature)).document


async def streamed(world: World, window: int = 1) -> list[ReportLines]:
    async with world.context.database.begin() as connection:
        return [each async for each in usage_leaves.stream(connection, window)]


async def market(world: World) -> tuple[Member, Member, list[dict[str, object]]]:
    """A report of three records of which the second is refused, one that is refused whole, and one more."""
    consumer = await world.consumer(micro=10**9)
    provider = await world.provider()
    nobody = "acc_" + "0" * 26
    records = [world.record(consumer), world.record(nobody), world.record(consumer)]
    await send(world, provider, records)
    await send(world, provider, [world.record(nobody)])
    later = world.record(consumer)
    await send(world, provider, [later])
    return consumer, provider, [*records, later]


async def test_charged_lines_stream_in_journal_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, provider, records = await market(world)
    first, second = await streamed(world)
    assert (first.body, second.body) == (provider.sent[0], provider.sent[2])
    assert [line.line for line in first.lines] == [0, 2]
    assert [UUID(bytes=line.record_id) for line in first.lines] == [UUID(str(records[at]["id"])) for at in (0, 2)]
    assert all(line.charge_pico > 0 for line in (*first.lines, *second.lines))
    assert await streamed(world, 2) == []
    monkeypatch.setattr(usage_leaves, "BATCH_RECORDS", 1)
    monkeypatch.setattr(usage_leaves, "_PAGE", 1)
    assert await streamed(world) == [first, second], "the size of a batch changes nothing"


async def test_a_report_that_lost_a_record_is_broken(world: World, database_url: str) -> None:
    await market(world)
    damage(database_url, "DELETE FROM usage_record WHERE line = 2")
    with pytest.raises(Broken, match="evidence_mismatch"):
        await streamed(world)


async def test_the_evidence_of_one_record(world: World) -> None:
    consumer, provider, records = await market(world)
    other = await world.provider()
    async with world.context.database.begin() as connection:
        keys = await usage_leaves.make_salt_keys(connection, 1, world.sources.entropy)
        found = await usage_leaves.find(connection, provider.id, UUID(str(records[2]["id"])))
        last = await usage_leaves.find(connection, provider.id, UUID(str(records[3]["id"])))
        assert found is not None
        assert last is not None
        assert await usage_leaves.leaves_before(connection, 1, found.journal_seq) == 0
        assert await usage_leaves.leaves_before(connection, 1, last.journal_seq) == 2
        assert (found.before, last.before) == (0, 2), "of windows that have no checkpoint there is nothing to count"
        strangers = (
            (other.id, UUID(str(records[2]["id"]))),
            (provider.id, UUID(str(records[1]["id"]))),
            (provider.id, UUID(bytes=uuid7(world.sources.clock(), world.sources.entropy))),
        )
        assert [await usage_leaves.find(connection, *each) for each in strangers] == [None] * 3
    assert (found.consumer, found.refused_before, found.report.lines[0].line) == (consumer.id, 1, 2)
    assert keys == {consumer.id: found.key}


async def test_before_the_checkpoint_a_record_has_no_salt(world: World) -> None:
    _, provider, records = await market(world)
    async with world.context.database.begin() as connection:
        found = await usage_leaves.find(connection, provider.id, UUID(str(records[0]["id"])))
        assert found is not None
        assert found.key is None
        assert await usage_leaves.make_salt_keys(connection, 2, world.sources.entropy) == {}
