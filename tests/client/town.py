"""A town: everything that an audit export can show, brought about by the real services on the simulated chain."""

from __future__ import annotations

import copy
import copyreg
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from types import MappingProxyType
from typing import Any
from uuid import UUID

from adapters.simulated import USD, Wallet
from governance import service as governance
from settlement.client.verifier import ExportVerifier, Report, verify_export
from settlement.core import canonical, times
from settlement.core.demand import DemandPoint, DemandRules
from settlement.core.disputes import ANSWER, ANSWER_TYPE, DisputeRules, Ground
from settlement.core.errors import Conflict
from settlement.core.offers import SIGNATURE_TYPE as OFFER_TYPE
from settlement.core.policy import Policy
from settlement.core.signatures import sign_detached, sign_document
from settlement.services import (
    audit,
    chains,
    demand,
    disputes,
    funding,
    holds,
    metering,
    offers,
    payouts,
    refunds,
    solvency,
    windows,
    withdrawals,
)
from settlement.services.context import Context
from settlement.services.disputes import Claim, SignedOffer
from settlement.storage import governance as stored
from settlement.storage.disputes import Dispute
from tests.holding import till_of
from tests.world import Member, World

Lines = list[dict[str, Any]]
CHAIN = "simulated"

copyreg.pickle(MappingProxyType, lambda proxy: (MappingProxyType, (dict(proxy),)))  # so that it can be copied


@dataclass
class Town:
    """Who is in it. `linked` is a provider that named the consumer `own` as its own company's account."""

    world: World
    own: Member
    buyer: Member
    linked: Member
    plain: Member
    stranger: str
    suspense: list[str]

    @property
    def context(self) -> Context:
        return self.world.context

    async def dispute(self, provider: Member, record: int, ground: Ground, *, of: int = 0, **more: Any) -> Dispute:
        """The buyer disputes a record: its place in a report of the provider."""
        found = json.loads(provider.sent[of])["records"][record]
        claim = Claim(provider.id, ground, record=UUID(found["id"]), **more)
        return await disputes.open_dispute(self.context, self.buyer.party, claim)

    async def answer(self, provider: Member, dispute: Dispute, *, accept: bool) -> Dispute:
        """The provider's signed answer."""
        said = {"type": ANSWER, "dispute": dispute.id, "answer": "accept" if accept else "contest"}
        body = json.dumps(said | ({} if accept else {"counts": {"output_tokens": 5}})).encode()
        return await disputes.answer(self.context, body, sign_detached(provider.key, body, ANSWER_TYPE))

    async def rule(self, dispute: Dispute, award: int, penalty: int) -> None:
        """The operator, who governs alone, rules on a dispute."""
        document = ruling(dispute, award, penalty, self.world.sources.clock())
        await governance.publish_ruling(self.context, document, [sign_document(self.context.key, document)])


def ruling(dispute: Dispute, award: int, penalty: int, at: datetime) -> bytes:
    """A `ruling/1`."""
    found = {
        "dispute": dispute.id,
        "consumer": dispute.consumer,
        "provider": dispute.provider,
        "reason": "counted again",
    }
    chain = {"type": "ruling/1", "version": 1, "parent": None, "effective_from": times.text(at)}
    return canonical.encode(chain | found | {"award": str(award), "penalty": str(penalty)})


BUSY = DemandRules(cap=Fraction(2), curve=(DemandPoint(100_000, Fraction(1)), DemandPoint(200_000, Fraction(3, 2))))


async def hold_back(world: World) -> None:
    """From now on a tenth of what is earned can wait an hour for disputes, which have an hour for each step; and who is
    busy is dearer."""
    hour, now = timedelta(hours=1), world.sources.clock()
    async with world.context.database.read() as connection:
        (signed,) = await stored.policies(connection)
    rules = DisputeRules(open_for=hour, answer_within=hour, rule_within=hour, hold_back=100_000)
    following = replace(
        Policy.parse(signed.document),
        version=2,
        parent=canonical.digest(signed.document),
        effective_from=now + timedelta(minutes=6),
        disputes=rules,
        demand=BUSY,
        left_out=frozenset(),
    )
    document = following.document()
    await governance.publish_policy(world.context, document, [sign_document(world.context.key, document)])
    world.sources.settable.advance(minutes=6)


async def contest(town: Town) -> None:
    """Disputes over window 1 that end in every way; one takes more than its provider has left, and a penalty."""
    world = town.world
    await town.dispute(town.plain, 4, "empty", of=1)
    cheap = json.loads(town.plain.offers[0]) | {
        "version": 9,
        "parent": "sha256:" + "0" * 64,
        "usual": "0.5",
        "asks": [],
    }
    body = json.dumps(cheap).encode()
    secret = SignedOffer(body, sign_detached(town.plain.key, body, OFFER_TYPE))
    await town.dispute(town.plain, 0, "price", offer=secret)
    counted = {"input_tokens": 1_000_003, "output_tokens": 3}
    contested = await town.dispute(town.linked, 0, "count", counts=counted, evidence=["sha256:" + "e" * 64])
    await town.answer(town.linked, contested, accept=False)
    world.sources.settable.advance(seconds=1)
    await town.rule(contested, contested.claimed, contested.claimed)
    agreed = await town.dispute(town.linked, 1, "not_received", amount=1_000)
    await town.answer(town.linked, agreed, accept=True)
    mistaken = await town.dispute(town.linked, 2, "not_requested")
    await disputes.withdraw(town.context, town.buyer.party, mistaken.id)
    undecided = await town.dispute(town.linked, 3, "not_requested")
    await town.answer(town.linked, undecided, accept=False)
    claim = Claim(town.plain.id, "not_requested", window=1, amount=2_500)
    await disputes.open_dispute(town.context, town.own.party, claim)  # never answered


async def fund(world: World, consumer: Member, usd: int) -> None:
    """An ordinary payment of `usd` millionths with the consumer's reference, read and credited."""
    intent = await funding.create_intent(world.context, party=consumer.id, chain=CHAIN, asset=USD.text, amount=None)
    world.wallet(usd=usd).pay_uri(intent.payment_uri, usd)
    await funding.read_deposits(world.context, CHAIN)


async def offer(world: World, provider: Member) -> None:
    """An offer of 0.9 times par that is in force from now on, and a next one that is not yet."""
    now = world.sources.clock()
    body, signature = world.offer(provider, now + timedelta(minutes=10), asks=[{"model": "gpt-5", "multiplier": "0.9"}])
    await offers.publish(world.context, body, signature)
    world.sources.settable.advance(minutes=11)
    body, signature = world.offer(provider, now + timedelta(days=30), usual="2.5")
    await offers.publish(world.context, body, signature)


async def send(world: World, provider: Member, records: Sequence[dict[str, Any]]) -> None:
    body, signature = world.report(provider, list(records))
    await metering.submit(world.context, body=body, signature=signature)


async def settle(world: World) -> None:
    """Close the open window, take every step, and let the chain come to rest."""
    world.sources.settable.advance(minutes=70)
    await windows.close(world.context)
    await windows.advance(world.context, payouts.plan)
    await chains.run_until_idle(world.context, CHAIN)
    await solvency.measure(world.context)


async def build(world: World, *, rounds: int = 2) -> Town:
    """Two settled windows and an open one with usage; deposits, suspense, refusals, a conflict, netting, payouts."""
    await funding.open_chain(world.context, CHAIN)
    own, buyer = await world.consumer("own"), await world.consumer("buyer")
    linked = await world.provider("linked", account=own.id, wallet=world.wallet())
    plain = await world.provider("plain", wallet=world.wallet())
    await fund(world, own, 50_000_000)
    await fund(world, buyer, 70_000_001)
    stranger = world.wallet(usd=5_000_000)
    for amount in (3_000_000, 2_000_000):
        stranger.pay(world.chain.treasury, USD, amount, 4_000_000_000)
    await funding.read_deposits(world.context, CHAIN)
    suspense = [deposit.id for deposit in await funding.suspense(world.context)]
    town = Town(world, own, buyer, linked, plain, stranger.address, suspense)
    await hold_back(world)
    body, signature = world.offer(linked, world.sources.clock() + timedelta(minutes=11), capacity="1000000")
    await offers.publish(world.context, body, signature)
    await offer(world, plain)
    for turn in range(rounds):
        await trade(town, turn)
        await settle(world)
        await demand.make_due(world.context)
        if turn == 0:
            await funding.assign_suspense(world.context, suspense[0], buyer.id)
            await contest(town)
    await disputes.end_overdue(world.context)
    await disputes.collect(world.context)
    await take_out(town)
    if rounds:
        await town.dispute(town.linked, 4, "not_requested", of=2 * (rounds - 1))
    world.sources.settable.advance(minutes=6)
    await trade(town, rounds)
    await world.fix()
    await equivocate(town)
    return town


async def take_out(town: Town) -> None:
    """Withdrawals that arrive, fail and are still on their way, and refunds that arrive and fail."""
    world, buyer = town.world, town.buyer
    elsewhere = Wallet(world.chain.network, world.sources.entropy(32))  # an address that is no account yet
    proven = world.wallet()
    for turn, wallet in enumerate((proven, elsewhere, proven)):
        await world.payable(buyer, wallet, reference=None if turn else 7)
        request = sha256(bytes([turn])).digest()
        await withdrawals.withdraw(town.context, buyer.party, amount=500_000_001, request=request)
        await chains.run_until_idle(town.context, CHAIN) if turn < 2 else None
    careful = world.wallet(usd=900_000)
    for amount, needs_reference in ((500_000, True), (400_000, False)):
        careful.pay(world.chain.treasury, USD, amount, 4_000_000_000)
        await funding.read_deposits(town.context, CHAIN)
        world.chain.network.require_reference(careful.address, needs_reference)
        await refunds.refund(town.context, (await funding.suspense(town.context))[-1].id)
        await chains.run_until_idle(town.context, CHAIN)


async def trade(town: Town, turn: int) -> None:
    """Three reports, one with refusals; the linked company buys and sells."""
    world = town.world
    big = {"input_tokens": 1_000_003 + turn, "cache_read_tokens": 17, "output_tokens": 77_777}
    await send(world, town.linked, [world.record(town.buyer, meters=big) for _ in range(5)])
    mixed = [world.record(town.own if at % 2 else town.buyer, meters=big) for at in range(4)]
    await send(world, town.plain, mixed)
    world.sources.settable.advance(seconds=30)
    refused = [
        world.record(town.buyer, flags=["estimated", "output_above_speed"]),
        world.record("acc_" + "0" * 26),
        world.record(town.buyer, model="no-such-model"),
        world.record(town.own, outcome="errored"),
        world.record(town.buyer, meters={"input_tokens": 1}),
    ]
    await send(world, town.plain, refused)
    await hold(town)


async def hold(town: Town) -> None:
    """Every way in which a hold can end, and holds that are open: a record within, above and after each."""
    world = town.world
    till = await till_of(world, town.linked, town.buyer)
    plain, over, late, released, lease, _ = [
        await till.place(**ask) for ask in ({}, {}, {"expires_in": 10}, {}, {"requests": 3}, {})
    ]
    at = world.sources.clock()
    await till.extend(plain, 2)
    await till.release(released)
    world.sources.settable.advance(seconds=10)
    await holds.expire(world.context)
    uses = [(plain, 300), (over, 5_000), (late, 77), (released, 5), (lease, 200), (lease, 211)]
    records = [
        world.record(town.buyer, at=at, hold=of.stored.id, meters={"input_tokens": 1155, "output_tokens": output})
        for of, output in uses
    ]
    await send(world, town.linked, [*records, world.record(town.buyer, outcome="errored")])


async def equivocate(town: Town) -> None:
    """The provider signs a second body for its last number; both are kept."""
    provider = town.plain
    document = json.loads(provider.sent[-1])
    body = json.dumps({**document, "report": "another"}).encode()
    try:
        await metering.submit(town.context, body=body, signature=sign_detached(provider.key, body))
    except Conflict:
        return
    raise AssertionError("a second body for one number must be refused")


async def exported(context: Context) -> list[bytes]:
    """All lines of an export."""
    return [line async for line in audit.export(context)]


def parsed(lines: Sequence[bytes]) -> Lines:
    return [json.loads(line) for line in lines]


def verified(lines: Lines) -> Report:
    return verify_export(json.dumps(line, ensure_ascii=False).encode() for line in lines)


def verdicts(raw: Sequence[bytes], changes: Iterable[tuple[int, Sequence[bytes]]]) -> Iterator[Report]:
    """What verifying comes to for each change: from that line on, others stand there.

    As `verify_export` on each whole export, but what stands before a change is read once for all of them.
    """
    standing, read = ExportVerifier(), 0
    for number, others in sorted(changes, key=lambda change: change[0]):
        for line in raw[read:number]:
            standing.feed(line)
        read = number
        branch = _branched(standing)
        for line in others:
            branch.feed(line)
            if branch.fault is not None:
                break
        yield branch.finish()


def _branched(standing: ExportVerifier) -> ExportVerifier:
    """One that goes on alone from here. Both share the rate tables, which never change and are nearly all there is."""
    return copy.deepcopy(standing, {id(table): table for table in standing._rules.tables})


def of_kind(lines: Lines, kind: str, accept: Callable[[dict[str, Any]], bool] = lambda line: True) -> int:
    """The place of the first line of a kind that is accepted."""
    return next(at for at, line in enumerate(lines) if line["kind"] == kind and accept(line))
