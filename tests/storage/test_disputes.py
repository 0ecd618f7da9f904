"""What the database itself refuses of disputes, and what of a provider's balance is spoken for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from settlement.services import metering
from settlement.storage import disputes, positions, windows
from settlement.storage.disputes import Dispute
from settlement.storage.positions import Decided
from tests.world import START, Member, World

pytestmark = pytest.mark.database


def dispute(consumer: Member, provider: Member, **more: Any) -> Dispute:
    made = Dispute(
        id="dsp_1",
        consumer_no=consumer.party.no,
        consumer=consumer.id,
        provider_no=provider.party.no,
        provider=provider.id,
        window_no=1,
        record=UUID(int=7),
        entry_seq=3,
        ground="count",
        charged=100,
        claimed=80,
        evidence=[],
        counts=None,
        flags=[],
        opened_at=START,
        answer_by=START,
    )
    return replace(made, **more)


async def test_a_charge_has_one_dispute_that_was_not_withdrawn(world: World) -> None:
    consumer, provider = await world.consumer(), await world.provider()
    first = dispute(consumer, provider)
    line: dict[str, Any] = {"record": None, "entry_seq": None}
    async with world.context.database.begin() as connection:
        await disputes.add(connection, first)
        await disputes.add(connection, dispute(consumer, provider, id="dsp_2", **line))
    for again in (dispute(consumer, provider, id="dsp_3"), dispute(consumer, provider, id="dsp_3", **line)):
        with pytest.raises(IntegrityError, match="uq_dispute"):
            async with world.context.database.begin() as connection:
                await disputes.add(connection, again)
    async with world.context.database.begin() as connection:
        await disputes.change(connection, "dsp_1", state="withdrawn", ended_at=START, cause="consumer")
        await disputes.add(connection, dispute(consumer, provider, id="dsp_3"))
        assert await disputes.get(connection, "dsp_3") == dispute(consumer, provider, id="dsp_3")
        assert await disputes.count_waiting(connection, consumer.party.no) == 2


@pytest.mark.parametrize(
    ("check", "columns"),
    [
        ("claimed", {"claimed": 101}),
        ("award", {"award": 81, "state": "upheld", "ended_at": START, "cause": "council"}),
        ("award", {"state": "upheld", "ended_at": START, "cause": "council"}),
        ("penalty", {"penalty": 1}),
        ("paid", {"paid": 1}),
        (
            "penalty_paid",
            {"award": 5, "penalty": 5, "penalty_paid": 1, "state": "upheld", "ended_at": START, "cause": "council"},
        ),
        ("ended_at", {"state": "rejected"}),
        ("cause", {"cause": "council"}),
        ("rule_by", {"state": "answered"}),
        ("answer", {"answered_at": START}),
        ("entry_seq", {"entry_seq": None}),
    ],
)
async def test_amounts_and_states_that_can_not_be(world: World, check: str, columns: dict[str, Any]) -> None:
    made = dispute(await world.consumer(), await world.provider())
    with pytest.raises(IntegrityError, match=f"ck_dispute_{check}"):
        async with world.context.database.begin() as connection:
            await disputes.add(connection, made)
            await disputes.change(connection, "dsp_1", **columns)


async def test_what_is_decided_or_may_be_netted_is_spoken_for(world: World) -> None:
    own = await world.consumer("own", micro=10**9)
    plain, linked = await world.provider("plain"), await world.provider("linked", account=own.id)
    for provider in (plain, linked):
        body, signature = world.report(provider, [world.record(own, meters={"output_tokens": 100_000})])
        await metering.submit(world.context, body=body, signature=signature)
    async with world.context.database.begin() as connection:
        earned = await disputes.posted(connection, own.party.no, linked.party.no, 1)
        assert earned > 0
        assert await disputes.spoken_for(connection, plain.party.no) == 0
        assert await disputes.spoken_for(connection, linked.party.no) == earned
        await windows.close_open(connection, START)
        decided = [
            Decided(1, member.id, 0, earned, earned, 0, 50, "simulated", "USD:x", 1, bytes(16))
            for member in (plain, linked)
        ]
        await positions.store(connection, decided)
        await windows.advance(connection, 1, "netted")
        for member in (plain, linked):
            assert await disputes.spoken_for(connection, member.party.no) == 50
        await windows.advance(connection, 1, "planned")
        assert await disputes.spoken_for(connection, linked.party.no) == 0
