"""Disputes on real books: who may say what until when, what moves, what a provider that is short owes, and races."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from adapters.simulated import USD
from governance import service as governance
from settlement.core import canonical, times
from settlement.core.disputes import ANSWER, ANSWER_TYPE, Ground
from settlement.core.errors import Refused
from settlement.core.signatures import SigningKey, sign_detached, sign_document
from settlement.services import chains, disputes, funding, metering, payouts, windows
from settlement.services.disputes import Claim, SignedOffer
from settlement.storage import accounts, invariants, parties
from settlement.storage.disputes import Dispute
from tests.client.town import exported, hold_back, parsed, verified
from tests.governance.chamber import Chamber, changed_document, first_council, seat
from tests.world import Member, World

pytestmark = pytest.mark.database

BIG = {"input_tokens": 1_000_000, "output_tokens": 100_000}
CHARGE = 500_000_000
"""microCU that a record of these meters costs."""
HOUR = timedelta(hours=1)


@dataclass
class Scene:
    world: World
    consumer: Member
    provider: Member
    records: list[dict[str, Any]] = field(default_factory=list)

    async def use(self, *records: dict[str, Any], provider: Member | None = None) -> None:
        body, signature = self.world.report(provider or self.provider, records)
        taken = await metering.submit(self.world.context, body=body, signature=signature)
        assert taken.document["refused"] == []
        self.records += records

    def record(self, **more: Any) -> dict[str, Any]:
        return self.world.record(self.consumer, **{"meters": BIG, **more})

    async def open(self, record: int = 0, ground: Ground = "not_requested", **more: Any) -> Dispute:
        claim = Claim(self.provider.id, ground, record=UUID(self.records[record]["id"]), **more)
        return await disputes.open_dispute(self.world.context, self.consumer.party, claim)

    def answer(self, dispute: Dispute, answer: str, **more: Any) -> bytes:
        return json.dumps({"type": ANSWER, "dispute": dispute.id, "answer": answer, **more}).encode()

    async def say(self, dispute: Dispute, answer: str, by: Member | None = None, **more: Any) -> Dispute:
        body = self.answer(dispute, answer, **more)
        signature = sign_detached((by or self.provider).key, body, ANSWER_TYPE)
        return await disputes.answer(self.world.context, body, signature)

    def ruling(self, dispute: Dispute, award: int, penalty: int = 0, **more: Any) -> bytes:
        now = times.text(self.world.sources.clock())
        found = {"dispute": dispute.id, "consumer": dispute.consumer, "provider": dispute.provider}
        chain = {"type": "ruling/1", "version": 1, "parent": None, "effective_from": now, "reason": "as the logs show"}
        return canonical.encode(chain | found | {"award": str(award), "penalty": str(penalty)} | more)

    async def rule(self, document: bytes) -> None:
        signatures = [sign_document(self.world.context.key, document)]
        await governance.publish_ruling(self.world.context, document, signatures)

    async def balance(self, account: str) -> int:
        async with self.world.context.database.read() as connection:
            return (await accounts.get(connection, account)).settled

    async def balances(self) -> tuple[int, int, int]:
        """Consumer, provider, fees."""
        consumer, provider = [await self.balance(each.id) for each in (self.consumer, self.provider)]
        return consumer, provider, await self.balance("fees/CU")

    async def stored(self, dispute: Dispute) -> Dispute:
        return await disputes.find(self.world.context, self.consumer.party, dispute.id)

    async def settle(self) -> None:
        await windows.close(self.world.context)
        await windows.advance(self.world.context, payouts.plan)
        await chains.run_until_idle(self.world.context, "simulated")

    async def paid(self, window: int) -> int:
        return sum(each.micro for each in await payouts.of_window(self.world.context, window))

    async def is_sound(self) -> None:
        async with self.world.context.database.read() as connection:
            assert await invariants.first_violation(connection) is None
        report = verified(parsed(await exported(self.world.context)))
        assert report.fault is None

    async def head(self) -> Any:
        query = (
            "SELECT j.seq, (SELECT count(*) FROM dispute), (SELECT count(*) FROM governance_entry) FROM journal_head j"
        )
        async with self.world.context.database.read() as connection:
            return (await connection.execute(text(query))).one()


@pytest.fixture
async def scene(world: World) -> Scene:
    await funding.open_chain(world.context, "simulated")
    await hold_back(world)
    consumer, wallet = await world.consumer(), world.wallet(usd=300_000_000)
    intent = await funding.create_intent(
        world.context, party=consumer.id, chain="simulated", asset=USD.text, amount=None
    )
    wallet.pay_uri(intent.payment_uri, 100_000_000)
    await funding.read_deposits(world.context, "simulated")
    return Scene(world, consumer, await world.provider("provider", wallet=world.wallet()))


async def refused(call: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(Refused) as found:
        await call()
    return found.value.code


async def test_what_the_provider_signed_itself_is_credited_at_once(scene: Scene) -> None:
    empty = scene.record(meters={"input_tokens": 1_000_000, "output_tokens": 0})
    priced, full = scene.record(), scene.record()
    await scene.use(empty, priced, full)
    before = await scene.balances()
    found = await scene.open(0, "empty")
    moved = found.charged
    assert (found.state, found.cause, found.award, found.paid) == ("upheld", "empty_answer", moved, moved)
    assert await scene.balances() == (before[0] + moved, before[1] - moved, before[2])
    offer = {
        "type": "offer/1",
        "provider": scene.provider.id,
        "version": 1,
        "parent": None,
        "effective_from": times.text(scene.world.sources.clock()),
        "usual": "0.75",
        "asks": [],
    }
    body = json.dumps(offer).encode()
    given = SignedOffer(body, sign_detached(scene.provider.key, body, "offer+jws"))
    found = await scene.open(1, "price", offer=given)
    assert (found.cause, found.award) == ("price_mismatch", CHARGE // 4)
    found = await scene.open(2, "empty")
    assert found.state == "open", "the provider says that it did answer, so it is heard"
    assert found.claimed == CHARGE
    await scene.is_sound()


async def test_a_price_that_was_kept_or_is_not_the_providers_gives_nothing(scene: Scene) -> None:
    await scene.use(scene.record())
    before = await scene.head()
    later = times.text(scene.world.sources.clock() + HOUR)
    document = {"type": "offer/1", "provider": scene.provider.id, "version": 1, "parent": None,
                "effective_from": times.text(scene.world.sources.clock()), "usual": "0.75", "asks": []}  # fmt: skip
    codes = []
    for change, key in (
        ({}, scene.consumer.key),
        ({"effective_from": later}, scene.provider.key),
        ({"usual": "1.5"}, scene.provider.key),
        ({"provider": scene.consumer.id}, scene.provider.key),
    ):
        body = json.dumps(document | change).encode()
        offer = SignedOffer(body, sign_detached(key, body, "offer+jws"))
        # mypy infers no type for a lambda with a default
        codes.append(await refused(lambda offer=offer: scene.open(0, "price", offer=offer)))  # type: ignore[misc]
    codes.append(await refused(lambda: scene.open(0, "price")))
    assert codes == ["key_unknown", "claim_unfounded", "claim_unfounded", "offer_malformed", "claim_malformed"]
    assert await scene.head() == before


async def test_silence_is_consent_and_not_before_its_time(scene: Scene) -> None:
    await scene.use(scene.record())
    before = await scene.balances()
    dispute = await scene.open(amount=7)
    scene.world.sources.settable.advance(minutes=59)
    assert await disputes.end_overdue(scene.world.context) == []
    scene.world.sources.settable.advance(minutes=1)
    assert await refused(lambda: scene.say(dispute, "contest")) == "answer_too_late"
    (ended,) = await disputes.end_overdue(scene.world.context)
    assert (ended.id, ended.state, ended.cause, ended.award) == (dispute.id, "upheld", "no_answer", 7)
    assert await disputes.end_overdue(scene.world.context) == []
    assert await scene.balances() == (before[0] + 7, before[1] - 7, before[2])
    await scene.is_sound()


async def test_a_provider_answers_once_for_itself(scene: Scene) -> None:
    await scene.use(scene.record(), scene.record())
    dispute, other = await scene.open(0), await scene.open(1)
    stranger = await scene.world.provider("stranger")
    assert await refused(lambda: scene.say(dispute, "accept", by=stranger)) == "unknown_dispute"
    assert await refused(lambda: scene.say(dispute, "accept", by=scene.consumer)) == "providers_only"
    assert await refused(lambda: scene.say(dispute, "maybe")) == "answer_malformed"
    found = await scene.say(dispute, "contest", counts={"output_tokens": 3}, evidence=["sha256:" + "a" * 64])
    assert (found.state, found.rule_by) == ("answered", scene.world.sources.clock() + HOUR)
    before = await scene.head()
    again = await scene.say(dispute, "contest", counts={"output_tokens": 3}, evidence=["sha256:" + "a" * 64])
    assert again == found
    assert await refused(lambda: scene.say(dispute, "accept")) == "dispute_answered"
    assert await scene.head() == before
    ended = await scene.say(other, "accept")
    assert (ended.cause, ended.award, ended.paid) == ("accepted", CHARGE, CHARGE)
    assert await refused(lambda: scene.say(other, "contest")) == "dispute_ended"
    scene.world.sources.settable.advance(hours=1)
    (lapsed,) = await disputes.end_overdue(scene.world.context)
    assert (lapsed.id, lapsed.state, lapsed.cause, lapsed.award) == (dispute.id, "rejected", "no_ruling", 0)
    await scene.is_sound()


async def test_what_may_not_be_disputed(scene: Scene) -> None:
    tiny = scene.record(meters={"input_tokens": 0})
    await scene.use(scene.record(), tiny, scene.record())
    await scene.open(2)
    other = await scene.world.consumer("other")
    before = await scene.head()
    claim = Claim(scene.provider.id, "not_requested", record=UUID(scene.records[0]["id"]))
    context, party = scene.world.context, scene.consumer.party
    asked: dict[str, Sequence[Callable[[], Awaitable[object]]]] = {
        "record_unknown": [
            lambda: disputes.open_dispute(context, other.party, claim),
            lambda: disputes.open_dispute(context, party, Claim(scene.provider.id, "count", record=UUID(int=7))),
        ],
        "unknown_party": [lambda: disputes.open_dispute(context, party, Claim("prv_x", "count", record=UUID(int=7)))],
        "nothing_charged": [lambda: scene.open(1)],
        "dispute_exists": [lambda: scene.open(2)],
        "claim_above_charge": [lambda: scene.open(0, amount=CHARGE + 1), lambda: scene.open(0, amount=0)],
        "claim_unfounded": [lambda: scene.open(0, "count", counts=BIG)],
        "claim_malformed": [
            lambda: scene.open(0, "count", counts={"no_such_meter": 1}),
            lambda: scene.open(0, window=1),
            lambda: disputes.open_dispute(context, party, Claim(scene.provider.id, "count")),
            lambda: disputes.open_dispute(context, party, Claim(scene.provider.id, "empty", window=1)),
        ],
        "window_not_netted": [
            lambda: disputes.open_dispute(context, party, Claim(scene.provider.id, "count", window=1))
        ],
        "unknown_window": [lambda: disputes.open_dispute(context, party, Claim(scene.provider.id, "count", window=9))],
    }
    for code, calls in asked.items():
        for call in calls:
            assert await refused(call) == code
    assert await scene.head() == before
    await windows.close(context)
    scene.world.sources.settable.advance(hours=1)
    assert await refused(lambda: scene.open(0)) == "dispute_too_late"


async def test_own_counts_say_how_much_and_a_dispute_that_was_taken_back_may_come_again(scene: Scene) -> None:
    await scene.use(scene.record(), scene.record(flags=["estimated"]))
    half = {"input_tokens": 1_000_000, "output_tokens": 50_000}
    found = await scene.open(1, "count", counts=half)
    assert (found.claimed, list(found.flags)) == (111_111_111, ["estimated"])
    context = scene.world.context
    stranger = await scene.world.consumer("stranger")
    assert await refused(lambda: disputes.withdraw(context, stranger.party, found.id)) == "unknown_dispute"
    taken = await disputes.withdraw(context, scene.consumer.party, found.id)
    assert (taken.state, taken.cause, taken.award) == ("withdrawn", "consumer", 0)
    assert await refused(lambda: disputes.withdraw(context, scene.consumer.party, found.id)) == "dispute_ended"
    again = await scene.open(1, "not_requested")
    await scene.say(again, "accept")
    assert await refused(lambda: scene.open(1)) == "dispute_exists"
    assert [each.id for each in await disputes.page(context, scene.provider.party, before=None, limit=9)] == [
        again.id,
        found.id,
    ]
    await scene.is_sound()


async def test_the_operator_rules_while_it_governs_alone(scene: Scene) -> None:
    await scene.use(scene.record())
    dispute = await scene.open()
    before = await scene.balances()
    assert await refused(lambda: scene.rule(scene.ruling(dispute, 5))) == "dispute_not_answered"
    await scene.say(dispute, "contest")
    head = await scene.head()
    for award, penalty, change in (
        (CHARGE + 1, 0, {}),
        (5, 6, {}),
        (5, 0, {"consumer": "acc_" + "0" * 26}),
    ):
        ruling = scene.ruling(dispute, award, penalty, **change)
        # mypy infers no type for a lambda with a default
        assert await refused(lambda ruling=ruling: scene.rule(ruling)) == "ruling_out_of_bounds"  # type: ignore[misc]
    unsigned = scene.ruling(dispute, 5)
    assert (
        await refused(lambda: governance.publish_ruling(scene.world.context, unsigned, [])) == "not_enough_signatures"
    )
    assert await refused(lambda: scene.rule(scene.ruling(dispute, 0, 1))) == "proposal_malformed"
    assert await scene.head() == head
    await scene.rule(scene.ruling(dispute, 40, 30))
    found = await scene.stored(dispute)
    assert (found.state, found.cause, found.award, found.penalty) == ("upheld", "council", 40, 30)
    assert await scene.balances() == (before[0] + 40, before[1] - 70, before[2] + 30)
    again = scene.ruling(dispute, 1, version=2, parent=canonical.digest(scene.ruling(dispute, 40, 30)))
    assert await refused(lambda: scene.rule(again)) == "dispute_ended"
    await scene.is_sound()


async def test_the_council_rules_and_who_is_concerned_does_not(scene: Scene) -> None:
    await scene.use(scene.record(), scene.record())
    chamber = await _seated_with_interest(scene)
    dispute = await scene.open()
    await scene.say(dispute, "contest")
    own = scene.ruling(dispute, 5)
    assert await refused(lambda: scene.rule(own)) == "council_governs"
    bad = chamber.proposal("ruling", scene.ruling(dispute, CHARGE + 1))
    signature = sign_detached(chamber.keys[0], bad, "proposal+jws")
    assert await refused(lambda: governance.propose(scene.world.context, bad, signature)) == "ruling_out_of_bounds"
    first = await chamber.propose("ruling", scene.ruling(dispute, 100, 50))
    rival = await chamber.propose("ruling", scene.ruling(dispute, 0), by=1)
    assert await refused(lambda: chamber.decide("approve", first, 3)) == "member_recused"
    assert await chamber.decide("approve", first, 0, 1) == "enacted"
    found = await scene.stored(dispute)
    assert (found.cause, found.award, found.penalty) == ("council", 100, 50)
    assert await refused(lambda: chamber.decide("approve", rival, 0)) == "version_not_next"
    await governance.enact_due(scene.world.context)
    await scene.is_sound()


async def test_a_ruling_after_its_time_is_refused_and_changes_nothing(scene: Scene) -> None:
    await scene.use(scene.record())
    chamber = await _seated_with_interest(scene)
    dispute = await scene.open()
    await scene.say(dispute, "contest")
    proposal = await chamber.propose("ruling", scene.ruling(dispute, 100))
    await chamber.decide("approve", proposal, 0)
    scene.world.sources.settable.advance(hours=1)
    head = await scene.head()
    assert await refused(lambda: chamber.decide("approve", proposal, 1)) == "dispute_ended"
    assert await scene.head() == head
    await disputes.end_overdue(scene.world.context)
    assert (await scene.stored(dispute)).cause == "no_ruling"
    await scene.is_sound()


async def _seated_with_interest(scene: Scene) -> Chamber:
    """A council of four, the last of whom has to do with the provider."""
    world = scene.world
    keys = [SigningKey(world.sources.entropy(32)) for _ in range(4)]
    at = world.sources.clock()
    interest = [{"party": scene.provider.id, "what": "it pays her"}]
    members = [seat(key, f"member {no}", at, interests=interest if no == 3 else []) for no, key in enumerate(keys)]
    document = changed_document(first_council(keys, at), members=members)
    signatures = [sign_document(key, document) for key in (world.context.key, *keys)]
    await governance.found_council(world.context, document, signatures)
    world.sources.settable.advance(hours=1)
    return Chamber(world, keys, document)


async def test_a_provider_that_was_paid_owes_and_its_next_earnings_pay_first(scene: Scene) -> None:
    """A tenth was held back: that is taken at once, the rest is owed, and no payout overtakes it.

    What was taken doesn't shrink the tranche: other charges of window 1 can still be disputed.
    """
    await scene.use(scene.record(), scene.record())
    await scene.settle()
    assert await scene.paid(1) == pytest.approx(9 * CHARGE * 2 // 10, abs=2_000)
    left = (await scene.balances())[1]
    before = await scene.balances()
    dispute = await scene.open()
    ended = await scene.say(dispute, "accept")
    assert (ended.award, ended.paid) == (CHARGE, left)
    assert await scene.balances() == (before[0] + left, 0, before[2])
    assert await disputes.collect(scene.world.context) == 0
    await scene.use(scene.record(), scene.record())
    await scene.settle()
    owed = CHARGE - left
    assert await scene.paid(2) == pytest.approx(CHARGE * 2 * 8 // 10 - owed, abs=2_000)
    assert await disputes.collect(scene.world.context) == 1
    assert await disputes.collect(scene.world.context) == 0
    found = await scene.stored(dispute)
    assert (found.paid, found.payments) == (CHARGE, 1)
    assert (await scene.balances())[0] == before[0] + CHARGE - 2 * CHARGE
    await scene.is_sound()


async def test_the_tranche_is_paid_when_nothing_can_be_disputed_any_more(scene: Scene) -> None:
    await scene.use(scene.record(), scene.record())
    await scene.settle()
    tranche = 2 * CHARGE // 10
    scene.world.sources.settable.advance(minutes=59)
    dispute = await scene.open()
    await scene.say(dispute, "contest")
    scene.world.sources.settable.advance(minutes=30)
    await scene.settle()
    assert await scene.paid(2) == 0, "the window has passed, and a charge of it is disputed"
    scene.world.sources.settable.advance(minutes=30)
    await disputes.end_overdue(scene.world.context)
    await scene.settle()
    assert await scene.paid(3) == pytest.approx(tranche, abs=2_000)
    await scene.is_sound()


async def test_all_of_a_pairs_window_is_disputed_once_and_never_given_back_twice(scene: Scene) -> None:
    await scene.use(scene.record(), scene.record())
    await scene.settle()
    context, party = scene.world.context, scene.consumer.party
    some = await scene.open(0, amount=CHARGE // 2)
    await scene.say(some, "accept")
    claim = Claim(scene.provider.id, "not_received", window=1)
    line = await disputes.open_dispute(context, party, claim)
    assert (line.charged, line.claimed) == (2 * CHARGE, 2 * CHARGE - CHARGE // 2)
    assert await refused(lambda: disputes.open_dispute(context, party, claim)) == "dispute_exists"
    other = await scene.open(1)
    await scene.say(line, "accept")
    ended = await scene.say(other, "accept")
    assert (ended.state, ended.award) == ("rejected", 0), "the line has given everything back"
    await scene.is_sound()


async def test_what_a_company_nets_with_itself_is_not_taken_before(scene: Scene) -> None:
    world = scene.world
    own = await world.consumer("own")
    linked = await world.provider("linked", account=own.id, wallet=world.wallet())
    other = await world.provider("other")
    scene.provider = linked
    await scene.use(scene.record())
    ended = await scene.say(await scene.open(), "accept")
    assert (ended.award, ended.paid) == (CHARGE, 0), "the open window may net all of it with the company's own usage"
    await world.credit(own.id, CHARGE)
    await scene.use(world.record(own, meters=BIG), provider=other)
    await windows.close(world.context)
    await windows.advance(world.context, payouts.plan)
    assert await scene.balance(own.id) == CHARGE, "netting gave back what the company spent"
    assert await disputes.collect(world.context) == 0


async def test_whoever_is_suspended_is_still_paid_for_what_it_earned(scene: Scene) -> None:
    await scene.use(scene.record(), scene.record())
    async with scene.world.context.database.begin() as connection:
        await parties.set_status(connection, scene.provider.id, "suspended")
    await scene.settle()
    assert await scene.paid(1) > CHARGE
    await scene.is_sound()


async def test_at_once_one_opens_one_ends_and_nothing_is_paid_twice(scene: Scene) -> None:
    await scene.use(*[scene.record() for _ in range(4)])
    context = scene.world.context
    found = await asyncio.gather(*[scene.open(0) for _ in range(4)], return_exceptions=True)
    assert [type(each).__name__ for each in found].count("Dispute") == 1
    assert {each.code for each in found if isinstance(each, Refused)} == {"dispute_exists"}
    (dispute,) = [each for each in found if isinstance(each, Dispute)]
    await scene.say(dispute, "contest")
    scene.world.sources.settable.advance(minutes=59)
    rulings = [scene.rule(scene.ruling(dispute, award)) for award in (3, 5)]
    taken = await asyncio.gather(*rulings, disputes.withdraw(context, scene.consumer.party, dispute.id),
                                 return_exceptions=True)  # fmt: skip
    assert len([each for each in taken if not isinstance(each, Exception)]) == 1
    before = await scene.balances()
    silent = await scene.open(1)
    scene.world.sources.settable.advance(hours=1)
    ended = await asyncio.gather(*[disputes.end_overdue(context) for _ in range(4)], scene.say(silent, "contest"),
                                 return_exceptions=True)  # fmt: skip
    assert isinstance(ended[-1], Refused)
    assert sum(len(each) for each in ended if isinstance(each, list)) == 1
    assert (await scene.balances())[0] == before[0] + CHARGE
    await scene.is_sound()


async def test_a_payout_and_an_award_at_once_never_take_the_same_money(scene: Scene) -> None:
    """Whichever comes first: the window pays what is there, and the rest of the award is owed."""
    context = scene.world.context
    for turn in range(3):
        await scene.use(scene.record(), scene.record())
        dispute = await scene.open(2 * turn)
        await windows.close(context)
        results = await asyncio.gather(windows.advance(context, payouts.plan), scene.say(dispute, "accept"))
        assert isinstance(results[1], Dispute)
        await chains.run_until_idle(context, "simulated")
        scene.world.sources.settable.advance(minutes=5)
    await asyncio.gather(*[disputes.collect(context) for _ in range(3)])
    await scene.is_sound()
