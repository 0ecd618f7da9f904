"""What a proposal may be besides refused: withdrawn, commented on, vetoed in its time-lock."""

from __future__ import annotations

import pytest

from governance import service
from governance.service.proposing import LONGEST_COMMENT, MOST_COMMENTS
from settlement.core.errors import SettlementError
from settlement.services import metering, participants
from settlement.storage import governance_log
from tests.governance.chamber import DAY, seated
from tests.governance.tables import following
from tests.world import World, first_rates

pytestmark = pytest.mark.database


async def test_the_proposer_withdraws_what_is_open(world: World) -> None:
    chamber = await seated(world)
    proposal = await chamber.propose("rates", following(first_rates(), chamber.now + 20 * DAY))
    assert await chamber.decide("withdraw", proposal, 0) == "withdrawn"
    with pytest.raises(SettlementError, match="proposal_closed"):
        await chamber.decide("approve", proposal, 1)


async def test_what_was_adopted_is_stopped_by_a_veto_in_its_time_lock(world: World) -> None:
    chamber = await seated(world)
    proposal = await chamber.propose("rates", following(first_rates(), chamber.now + 20 * DAY))
    assert await chamber.decide("approve", proposal, 0, 1, 2) == "adopted"
    assert await chamber.decide("veto", proposal, 2) == "adopted", "one veto of two"
    assert await chamber.decide("veto", proposal, 3) == "vetoed"
    world.sources.settable.advance(days=2)
    assert await service.enact_due(world.context) == []
    newest = (await chamber.register()).newest("rates")
    assert newest is not None
    assert newest.version == 1


async def test_participants_comment_a_few_times(world: World) -> None:
    chamber = await seated(world)
    consumer = await world.consumer()
    proposal = await chamber.propose("rates", following(first_rates(), chamber.now + 20 * DAY))
    for number in range(MOST_COMMENTS):
        await service.comment(world.context, consumer.party, proposal.id, f"comment {number}")
    malformed = [(text, "comment_malformed") for text in (" ", "x" * (LONGEST_COMMENT + 1))]
    for text, code in [("once more", "too_many_comments"), *malformed]:
        with pytest.raises(SettlementError, match=code):
            await service.comment(world.context, consumer.party, proposal.id, text)
    async with world.context.database.read() as connection:
        found = await governance_log.comments(connection, proposal.id)
        head = await governance_log.head(connection)
    assert [each.text for each in found] == [f"comment {number}" for number in range(MOST_COMMENTS)]
    assert {each.party for each in found} == {consumer.id}
    assert head == (await chamber.register()).head


async def test_whom_the_council_has_suspended_the_operator_cannot_admit(world: World) -> None:
    chamber = await seated(world)
    provider = await world.provider()
    await participants.set_status(world.context, provider.id, "suspended")
    await participants.set_status(world.context, provider.id, "active")

    async def decide(status: str) -> None:
        members = {"party": provider.id, "status": status, "reason": "counts that were never served"}
        proposal = await chamber.propose("participant", await chamber.chained("participant", provider.id, **members))
        assert await chamber.decide("approve", proposal, 0, 1) == "enacted"

    await decide("suspended")
    body, signature = world.report(provider, [world.record(await world.consumer(micro=10**9))])
    with pytest.raises(SettlementError, match="provider_suspended"):
        await metering.submit(world.context, body=body, signature=signature)
    with pytest.raises(SettlementError, match="council_suspended"):
        await participants.set_status(world.context, provider.id, "active")
    await decide("active")
    assert (await metering.submit(world.context, body=body, signature=signature)).document["accepted"] == 1
    await participants.set_status(world.context, provider.id, "suspended")
    assert await participants.set_status(world.context, provider.id, "active") == "suspended"
