"""What a usage report leaves in the tables: signed bytes, records as they were charged, the provider's chain."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from settlement.core.errors import Conflict, NotFound
from settlement.core.signatures import sign_detached
from settlement.services import metering
from settlement.storage import usage
from tests.world import Member, World

pytestmark = pytest.mark.database
RECORDS = """
SELECT r.id, r.line, r.at, r.window_no, r.charge_pico, r.rates_version, m.name AS model, c.id AS consumer, r.report_no
FROM usage_record r JOIN model m ON m.no = r.model_no JOIN party c ON c.no = r.consumer_no ORDER BY r.report_no, r.line
"""


async def submit(world: World, body: bytes, signature: str) -> None:
    await metering.submit(world.context, body=body, signature=signature)


async def stream(world: World, provider: Member) -> tuple[int, bytes | None]:
    async with world.context.database.read() as connection:
        query = text("SELECT seq, digest FROM provider_stream WHERE provider_no = :no")
        row = (await connection.execute(query, {"no": provider.party.no})).one()
    return row.seq, row.digest


def test_a_body_comes_out_as_it_went_in() -> None:
    for body in (b"", b"{}", bytes(range(256)) * 5_000):
        assert usage.decompress(usage.compress(body)) == body


async def test_accepted_records_are_stored_as_they_were_charged(world: World) -> None:
    """Times to the microsecond, each line with its own consumer and model, refused lines left out."""
    one, two = await world.consumer(micro=10**9), await world.consumer(micro=10**9)
    provider = await world.provider()
    now = world.sources.clock()
    records = [
        world.record(one, at=now - timedelta(days=34, microseconds=1), meters={"input_tokens": 1}),
        world.record("acc_" + "0" * 26),
        world.record(two, at=now + timedelta(seconds=299, microseconds=7), meters={"output_tokens": 3}),
        world.record(one, model="gpt-5-mini", outcome="errored"),
    ]
    await submit(world, *world.report(provider, records))
    async with world.context.database.read() as connection:
        rows = (await connection.execute(text(RECORDS))).all()
        stored = await usage.find(connection, provider.party.no, "report-1")
    assert stored.body == provider.sent[0]
    assert [row.line for row in rows] == [0, 2, 3]
    assert {row.report_no for row in rows} == {stored.no}
    assert [row.id for row in rows] == [UUID(records[at]["id"]) for at in (0, 2, 3)]
    assert [row.at for row in rows] == [
        now - timedelta(days=34, microseconds=1),
        now + timedelta(seconds=299, microseconds=7),
        now,
    ]
    assert [(row.consumer, row.model) for row in rows] == [(one.id, "gpt-5"), (two.id, "gpt-5"), (one.id, "gpt-5-mini")]
    assert [row.charge_pico for row in rows] == [277_777_778, 3 * 2_222_222_222, 0]
    assert {(row.window_no, row.rates_version) for row in rows} == {(1, 1)}


async def test_a_report_moves_its_providers_chain_alone(world: World) -> None:
    consumer = await world.consumer(micro=10**9)
    one, two = await world.provider(), await world.provider()
    await submit(world, *world.report(one, [world.record(consumer)]))
    first = await stream(world, one)
    assert first[0] == 1
    assert await stream(world, two) == (0, None)
    body = one.sent[0].replace(b'"output_tokens":211', b'"output_tokens":999')
    with pytest.raises(Conflict):
        await submit(world, body, sign_detached(one.key, body))
    assert await stream(world, one) == first, "what was refused moves nothing"
    async with world.context.database.read() as connection:
        kept = (await connection.execute(text("SELECT body FROM report_conflict"))).scalars().all()
    assert [usage.decompress(each) for each in kept] == [body]


async def test_reports_are_found_by_their_own_provider_alone(world: World) -> None:
    consumer = await world.consumer(micro=10**9)
    one, two = await world.provider(), await world.provider()
    await submit(world, *world.report(one, [world.record(consumer)]))
    async with world.context.database.read() as connection:
        assert (await usage.find(connection, one.party.no, "report-1")).digest == (await stream(world, one))[1]
        for number, report in ((two.party.no, "report-1"), (one.party.no, "report-2")):
            with pytest.raises(NotFound, match="unknown_report"):
                await usage.find(connection, number, report)
