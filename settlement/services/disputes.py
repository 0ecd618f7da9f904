"""Disputes: a consumer contests a charge, its provider answers, a rule or the council decides, and the books follow.

Each step is one commit with its journal entry: ``dispute_opened``, ``dispute_answered``, ``dispute_ruled``, and, when
the provider's balance did not suffice, ``dispute_paid`` for what it owed. Locks in this order: the gate, the dispute,
the accounts of both sides, the journal's head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from settlement.core import disputes as core
from settlement.core import offers, rates, rating, signatures, times
from settlement.core.demand import as_multipliers
from settlement.core.disputes import ANSWER_TYPE, WAITING, Cause, Ground, Ruling, Share
from settlement.core.errors import Conflict, Forbidden, Malformed, NotFound, Unauthenticated
from settlement.core.journal import CU, Entry, Posting
from settlement.core.keys import public_key
from settlement.core.standing import day_of
from settlement.core.units import PICO_PER_MICRO, cu_text
from settlement.services import demand, events, standing
from settlement.services import evidence as signed_usage
from settlement.services.authentication import by_signature
from settlement.services.context import Context
from settlement.storage import accounts, disputes, governance, journal, pages, parties, windows
from settlement.storage import offers as offer_storage
from settlement.storage.accounts import Account, system_account
from settlement.storage.database import Connection
from settlement.storage.disputes import Dispute
from settlement.storage.parties import Party

FEES = system_account("fees")
BATCH = 50


@dataclass(frozen=True, slots=True)
class SignedOffer:
    """An offer/1 as the consumer got it from its provider: the signed bytes and the detached JWS."""

    body: bytes
    signature: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a consumer says: which charge of which provider is wrong, why, and by how much.

    Either `record` is a usage record's id, or `window` the number of a window, of which all is meant that the provider
    charged. `amount` is microCU. `evidence` are digests, `counts` what the consumer counted itself, by meter.
    """

    provider: str
    ground: Ground
    record: UUID | None = None
    window: int | None = None
    amount: int | None = None
    evidence: Sequence[str] = ()
    counts: Mapping[str, int] | None = None
    offer: SignedOffer | None = None


@dataclass(frozen=True, slots=True)
class _Charge:
    """What is disputed, as the books have it."""

    window_no: int
    micro: int
    pico: int = 0
    entry_seq: int | None = None
    rates: int = 0
    record: Mapping[str, Any] | None = None


async def open_dispute(context: Context, consumer: Party, claim: Claim) -> Dispute:
    """Open a dispute, and end it at once when the provider's own signed bytes decide it.

    Raises NotFound ``unknown_party``, ``record_unknown``, ``unknown_window``; Conflict ``window_not_netted``,
    ``nothing_charged``, ``dispute_too_late``, ``dispute_exists``, ``too_many_disputes``, ``claim_above_charge``,
    ``claim_unfounded``; Malformed ``claim_malformed``, ``offer_malformed``; Unauthenticated for an offer's signature.
    """

    async def use_case(connection: Connection) -> Dispute:
        window = await windows.enter(connection)
        now = context.sources.clock()
        provider = await parties.get(connection, claim.provider)
        locked = await _lock(connection, [consumer.id, provider.id])
        charge = await _charge(context, connection, consumer, provider, claim)
        await _check_open(connection, consumer, provider, charge, claim, now)
        made = await _made(context, connection, consumer, provider, charge, claim)
        await disputes.add(connection, made)
        await journal.append(connection, Entry("dispute_opened", made.id, window, now, (), _facts(made, claim)))
        await events.dispute_changed(connection, made, now)
        cause = _by_rule(made, charge)
        return made if cause is None else await _end(connection, made, locked, cause, made.claimed, now)

    return await context.database.run(use_case)


async def answer(context: Context, body: bytes, signature: str, *, about: str | None = None) -> Dispute:
    """Take a provider's signed `answer/1`: it accepts the claim, or contests it. The same bytes again change nothing.

    With `about`, only an answer to that dispute. Raises Unauthenticated, Malformed ``answer_malformed``, Forbidden
    ``providers_only``, NotFound ``unknown_dispute``, Conflict ``answer_of_another``, ``dispute_answered``,
    ``dispute_ended`` or ``answer_too_late``.
    """

    async def use_case(connection: Connection) -> Dispute:
        party, key = await by_signature(context, connection, signature, body)
        signatures.verify_detached(signature, body, public_key(key.public), ANSWER_TYPE)
        if party.kind != "provider":
            raise Forbidden("providers_only", "only providers answer disputes")
        said = core.parse_answer(body)
        if about is not None and said.dispute != about:
            raise Conflict("answer_of_another", f"this is an answer to {said.dispute}")
        window = await windows.enter(connection)
        found = await disputes.get(connection, said.dispute, lock=True)
        if found.provider_no != party.no:
            raise NotFound("unknown_dispute", f"there is no dispute {said.dispute}")
        if found.answer == body:
            return found
        now = context.sources.clock()
        if found.state != "open":
            _refuse(found)
        if now >= found.answer_by:
            raise Conflict("answer_too_late", f"the answer was due by {times.text(found.answer_by)}")
        locked = await _lock(connection, [found.consumer, found.provider])
        given = replace(found, answered_at=now, answer=body, answer_signature=signature)
        facts = {"document": body.decode(), "signature": signature}
        if not said.accepts:
            rules = (await governance.policy_at(connection, now)).disputes
            given = replace(given, state="answered", rule_by=now + rules.rule_within)
            facts["rule_by"] = times.text(now + rules.rule_within)
        await journal.append(connection, Entry("dispute_answered", found.id, window, now, (), facts))
        names = ("answered_at", "answer", "answer_signature", "state", "rule_by")
        await disputes.change(connection, found.id, **{name: getattr(given, name) for name in names})
        if said.accepts:
            return await _end(connection, given, locked, "accepted", given.claimed, now)
        await events.dispute_changed(connection, given, now)
        return given

    return await context.database.run(use_case)


async def withdraw(context: Context, consumer: Party, dispute_id: str) -> Dispute:
    """The consumer takes its dispute back. Raises NotFound ``unknown_dispute``, Conflict ``dispute_ended``."""

    async def use_case(connection: Connection) -> Dispute:
        await windows.enter(connection)
        found = await disputes.get(connection, dispute_id, lock=True)
        if found.consumer_no != consumer.no:
            raise NotFound("unknown_dispute", f"there is no dispute {dispute_id}")
        if found.state not in WAITING:
            _refuse(found)
        locked = await _lock(connection, [found.consumer, found.provider])
        return await _end(connection, found, locked, "consumer", 0, context.sources.clock())

    return await context.database.run(use_case)


async def end_overdue(context: Context) -> list[Dispute]:
    """End the disputes whose answer or ruling did not come in time: the first is upheld, the second rejected."""
    async with context.database.read() as connection:
        waiting = await disputes.overdue(connection, context.sources.clock(), BATCH)

    ended = [await context.database.run(partial(_end_overdue, context, dispute_id)) for dispute_id in waiting]
    return [found for found in ended if found is not None]


async def _end_overdue(context: Context, dispute_id: str, connection: Connection) -> Dispute | None:
    await windows.enter(connection)
    found = await disputes.get(connection, dispute_id, lock=True)
    now = context.sources.clock()
    due = found.answer_by if found.state == "open" else found.rule_by
    if found.state not in WAITING or due is None or now < due:
        return None
    locked = await _lock(connection, [found.consumer, found.provider])
    if found.state == "open":
        return await _end(connection, found, locked, "no_answer", found.claimed, now)
    return await _end(connection, found, locked, "no_ruling", 0, now)


async def collect(context: Context) -> int:
    """Pay what providers owe of disputes, as far as their balances go now; returns how many payments were booked."""
    async with context.database.read() as connection:
        providers = await disputes.owing(connection)

    return sum([await context.database.run(partial(_collect, context, number)) for number in providers])


async def _collect(context: Context, provider_no: int, connection: Connection) -> int:
    window = await windows.enter(connection)
    owed = await disputes.owed_by(connection, provider_no)
    if not owed:
        return 0
    provider = owed[0].provider
    locked = await _lock(connection, [provider, *(each.consumer for each in owed)])
    await journal.hold_head(connection)
    drawable = await _drawable(connection, locked[provider], provider_no)
    booked = 0
    for each in owed:
        share = core.next_share(each.owed, drawable)
        if not share.total:
            break
        drawable -= share.total
        subject = f"{each.id}/{each.payments + 1}"
        entry = Entry("dispute_paid", subject, window, context.sources.clock(), _legs(each, share), {})
        await journal.append_locked(connection, entry, _numbers(locked))
        await _paid(connection, each, share, payments=each.payments + 1)
        booked += 1
    return booked


async def find(context: Context, party: Party, dispute_id: str) -> Dispute:
    """A dispute of a party, on either side. Raises NotFound ``unknown_dispute``."""
    async with context.database.read() as connection:
        found = await disputes.get(connection, dispute_id)
    if party.no not in (found.consumer_no, found.provider_no):
        raise NotFound("unknown_dispute", f"there is no dispute {dispute_id}")
    return found


async def page(context: Context, party: Party | None, *, before: int | None, limit: int) -> list[Dispute]:
    """Disputes from the newest down: a party's, on either side, or all."""
    async with context.database.read() as connection:
        return await disputes.page(connection, None if party is None else party.no, before=before, limit=limit)


def document(found: Dispute) -> dict[str, Any]:
    """A dispute as it is shown: amounts in CU, times as text."""
    moments = ("opened_at", "answer_by", "answered_at", "rule_by", "ended_at")
    at = {name: getattr(found, name) for name in moments}
    return {
        "id": found.id,
        "consumer": found.consumer,
        "provider": found.provider,
        "window": f"win_{found.window_no}",
        "record": None if found.record is None else str(found.record),
        "ground": found.ground,
        "charged": cu_text(found.charged),
        "claimed": cu_text(found.claimed),
        "evidence": list(found.evidence),
        "counts": None if found.counts is None else dict(found.counts),
        "flags": list(found.flags),
        "state": found.state,
        "cause": found.cause,
        "answer": None if found.answer is None else found.answer.decode(),
        "award": cu_text(found.award),
        "penalty": cu_text(found.penalty),
        "owed": cu_text(found.owed.total),
        **{name: None if value is None else times.text(value) for name, value in at.items()},
    }


async def evidence(context: Context, dispute_id: str) -> dict[str, Any]:
    """A dispute with the signed record that it is about: what those who rule look at. Raises NotFound."""
    async with context.database.read() as connection:
        found = await disputes.get(connection, dispute_id)
        signed = None
        if found.record is not None:
            seen = await signed_usage.record(context, connection, found.provider, found.record)
            assert seen is not None, "a charged record is never lost"
            signed = seen.record
    return {**document(found), "signed_record": signed}


# --- rulings: called by `governance.service`, inside of the commit that puts them on the log -------------------------


async def check_ruling(context: Context, connection: Connection, ruling: Ruling, at: datetime) -> None:
    """Refuse a ruling that could not take effect now.

    Raises NotFound ``unknown_dispute``, Conflict ``dispute_ended``, ``dispute_not_answered``, ``ruling_out_of_bounds``.
    """
    found = await disputes.get(connection, ruling.dispute, lock=True)
    if found.state == "open":
        raise Conflict("dispute_not_answered", f"the provider may answer until {times.text(found.answer_by)}")
    if found.state != "answered" or found.rule_by is None:
        _refuse(found)
    elif at >= found.rule_by:
        raise Conflict("dispute_ended", f"a ruling was due by {times.text(found.rule_by)}")
    if (ruling.consumer, ruling.provider) != (found.consumer, found.provider):
        raise Conflict("ruling_out_of_bounds", f"it is between {found.consumer} and {found.provider}")
    rules = (await governance.policy_at(connection, at)).disputes
    if ruling.award > found.claimed or ruling.penalty > rules.most_penalty(ruling.award):
        most = min(ruling.award, found.claimed)
        detail = f"at most {found.claimed} microCU are awarded, with a penalty of at most {rules.most_penalty(most)}"
        raise Conflict("ruling_out_of_bounds", detail)


async def rule(connection: Connection, ruling: Ruling, digest: str, at: datetime) -> None:
    """Carry an enacted ruling out. One that comes when the dispute has ended changes nothing."""
    found = await disputes.get(connection, ruling.dispute, lock=True)
    if found.state != "answered" or found.rule_by is None or at >= found.rule_by:
        return
    locked = await _lock(connection, [found.consumer, found.provider])
    await _end(connection, found, locked, "council", ruling.award, at, penalty=ruling.penalty, ruling=digest)


# --- the charge and the claim ----------------------------------------------------------------------------------------


async def _charge(context: Context, connection: Connection, consumer: Party, provider: Party, claim: Claim) -> _Charge:
    if (claim.record is None) == (claim.window is None):
        raise Malformed("claim_malformed", "name a record or a window, and not both")
    if claim.record is not None:
        found = await signed_usage.record(context, connection, provider.id, claim.record)
        if found is None or found.consumer != consumer.id:
            raise NotFound("record_unknown", f"you have no charged usage record {claim.record} of {provider.id}")
        micro = core.whole_micro(found.charge_pico)
        return _Charge(found.window_no, micro, found.charge_pico, found.journal_seq, found.rates, found.record)
    assert claim.window is not None
    if claim.ground in core.OF_RECORDS or claim.counts is not None:
        raise Malformed("claim_malformed", "that is said of a record, not of a window")
    window = await windows.get(connection, claim.window)
    if window.state in ("open", "closed"):
        raise Conflict("window_not_netted", f"{window.id} is {window.state}; dispute its records until it is netted")
    return _Charge(window.no, await disputes.posted(connection, consumer.no, provider.no, window.no))


async def _check_open(
    connection: Connection, consumer: Party, provider: Party, charge: _Charge, claim: Claim, now: datetime
) -> None:
    if charge.micro <= 0:
        raise Conflict("nothing_charged", "less than a microCU was charged; there is nothing to give back")
    window = await windows.get(connection, charge.window_no)
    if window.closed_at is not None:
        until = window.closed_at + (await governance.policy_at(connection, window.closed_at)).disputes.open_for
        if now >= until:
            raise Conflict("dispute_too_late", f"what {window.id} charged could be disputed until {times.text(until)}")
    earlier = await disputes.standing(connection, provider.no, consumer.no, charge.window_no, claim.record)
    if earlier is not None:
        raise Conflict("dispute_exists", f"{earlier.id} is about the same charge and is {earlier.state}")
    rules = (await governance.policy_at(connection, now)).disputes
    if await disputes.count_waiting(connection, consumer.no) >= rules.most_open:
        raise Conflict("too_many_disputes", f"a consumer has at most {rules.most_open} disputes open at once")


async def _made(
    context: Context, connection: Connection, consumer: Party, provider: Party, charge: _Charge, claim: Claim
) -> Dispute:
    now = context.sources.clock()
    where = (consumer.no, provider.no, charge.window_no)
    left = await disputes.posted(connection, *where) - await disputes.awarded(connection, *where)
    most = min(charge.micro, left, core.whole_micro(await _too_much(connection, provider, charge, claim)))
    if most <= 0:
        raise Conflict("claim_unfounded", "by what you say, nothing is left that was charged too much")
    if claim.amount is not None and not 0 < claim.amount <= most:
        raise Conflict("claim_above_charge", f"by what you say, at most {most} microCU were charged too much")
    rules = (await governance.policy_at(connection, now)).disputes
    return Dispute(
        id=context.sources.new_id("dsp"),
        consumer_no=consumer.no,
        consumer=consumer.id,
        provider_no=provider.no,
        provider=provider.id,
        window_no=charge.window_no,
        record=claim.record,
        entry_seq=charge.entry_seq,
        ground=claim.ground,
        charged=charge.micro,
        claimed=most if claim.amount is None else claim.amount,
        evidence=list(claim.evidence),
        counts=None if claim.counts is None else dict(claim.counts),
        flags=[] if charge.record is None else charge.record.get("flags", []),
        opened_at=now,
        answer_by=now + rules.answer_within,
    )


async def _too_much(connection: Connection, provider: Party, charge: _Charge, claim: Claim) -> int:
    """By how many picoCU a charge is too high at most, if what the consumer says of it is true."""
    if claim.ground == "price" and claim.offer is None:
        raise Malformed("claim_malformed", "send the signed offer whose price was not kept")
    if charge.record is None or (claim.offer is None and claim.counts is None):
        return charge.pico if charge.record is not None else charge.micro * PICO_PER_MICRO
    record, at = charge.record, times.parse(charge.record["at"])
    table = rates.parse((await pages.rate_table_version(connection, charge.rates)).document)
    stored = [each.offer for each in await offer_storage.of_providers(connection, [provider.id])]
    published = offers.Offers([offers.parse(each.body) for each in stored])
    busy = demand.multiplier(await demand.of_hold(connection, record.get("hold")), provider.id)
    day = await standing.of_day(connection, day_of(at))
    after = (*as_multipliers(busy), *day.multipliers(record["consumer"]))
    if claim.offer is not None:
        offer = await _offer(connection, provider, claim.offer, at)
        return core.overcharged(table, record, at, charge.pico, offer, published, after)
    found = core.miscounted(table, record, claim.counts or {}, at, charge.pico, published, after)
    if isinstance(found, rating.Refusal):
        raise Malformed("claim_malformed", f"the rate table can't rate what you counted: {found.code} {found.meter}")
    return found


async def _offer(connection: Connection, provider: Party, given: SignedOffer, at: datetime) -> offers.Offer:
    """An offer that a key of the provider signed which was valid at the record's time."""
    found = await parties.find_key(connection, signatures.detached_kid(given.signature))
    if found is None or found[1].no != provider.no or not found[0].valid_at(at):
        raise Unauthenticated("key_unknown", "the offer is signed by no key that was this provider's at that time")
    signatures.verify_detached(given.signature, given.body, public_key(found[0].public), offers.SIGNATURE_TYPE)
    offer = offers.parse(given.body)
    if offer.provider != provider.id:
        raise Malformed("offer_malformed", f"it is an offer of {offer.provider}")
    return offer


def _by_rule(made: Dispute, charge: _Charge) -> Cause | None:
    """What ends a dispute as soon as it is opened: the provider's own signed bytes."""
    if made.ground == "price":
        return "price_mismatch"
    if made.ground == "empty" and charge.record is not None and core.is_empty(charge.record):
        return "empty_answer"
    return None


def _facts(made: Dispute, claim: Claim) -> dict[str, object]:
    found: dict[str, object] = {
        "consumer": made.consumer,
        "provider": made.provider,
        "window": made.window_no,
        "ground": made.ground,
        "charged": str(made.charged),
        "claimed": str(made.claimed),
        "evidence": list(made.evidence),
        "flags": list(made.flags),
        "answer_by": times.text(made.answer_by),
    }
    if made.record is not None:
        found |= {"record": str(made.record), "entry": made.entry_seq}
    if made.counts is not None:
        found["counts"] = dict(made.counts)
    if claim.offer is not None:
        found["offer"] = {"body": claim.offer.body.decode(), "signature": claim.offer.signature}
    return found


# --- the end, and the money ------------------------------------------------------------------------------------------


async def _lock(connection: Connection, ids: Sequence[str]) -> dict[str, Account]:
    await accounts.ensure(connection, FEES, "fees", CU)
    return await accounts.lock(connection, [*ids, FEES])


async def _drawable(connection: Connection, provider: Account, provider_no: int) -> int:
    """What may be taken from a provider's account now, tranche and all; never what it owes elsewhere already."""
    return max(0, provider.available - await disputes.spoken_for(connection, provider_no))


async def _end(
    connection: Connection,
    found: Dispute,
    locked: Mapping[str, Account],
    cause: Cause,
    asked: int,
    at: datetime,
    *,
    penalty: int = 0,
    ruling: str | None = None,
) -> Dispute:
    """End a dispute by `cause`, awarding what was `asked` as far as it goes, and take what can be taken at once."""
    window = await windows.enter(connection)
    where = (found.consumer_no, found.provider_no, found.window_no)
    left = await disputes.posted(connection, *where) - await disputes.awarded(connection, *where)
    award = core.bounded(asked, found.claimed, left)
    rules = (await governance.policy_at(connection, at)).disputes
    penalty = min(penalty, rules.most_penalty(award))
    state = core.ended(found.state, cause, award)
    await journal.hold_head(connection)
    share = Share(0, 0)
    if award:
        drawable = await _drawable(connection, locked[found.provider], found.provider_no)
        share = core.next_share(Share(award, penalty), drawable)
    facts: dict[str, object] = {
        "cause": cause,
        "corrects": f"win_{found.window_no}" if found.entry_seq is None else found.entry_seq,
        "award": str(award),
        "penalty": str(penalty),
    }
    if ruling is not None:
        facts["ruling"] = ruling
    entry = Entry("dispute_ruled", found.id, window, at, _legs(found, share), facts)
    await journal.append_locked(connection, entry, _numbers(locked))
    done = replace(found, state=state, cause=cause, ended_at=at, award=award, penalty=penalty)
    await events.dispute_changed(connection, done, at)
    names = ("state", "cause", "ended_at", "award", "penalty")
    return await _paid(connection, done, share, **{name: getattr(done, name) for name in names})


async def _paid(connection: Connection, found: Dispute, share: Share, **columns: Any) -> Dispute:
    done = replace(found, paid=found.paid + share.award, penalty_paid=found.penalty_paid + share.penalty)
    await disputes.change(connection, found.id, paid=done.paid, penalty_paid=done.penalty_paid, **columns)
    return done


def _legs(found: Dispute, share: Share) -> tuple[Posting, ...]:
    legs = ((found.provider, -share.total), (found.consumer, share.award), (FEES, share.penalty))
    return tuple(Posting(account, CU, amount) for account, amount in legs if amount)


def _numbers(locked: Mapping[str, Account]) -> dict[str, int]:
    return {name: account.no for name, account in locked.items()}


def _refuse(found: Dispute) -> None:
    if found.state == "answered" and found.ended_at is None:
        raise Conflict("dispute_answered", "the provider has answered; it waits for a ruling")
    raise Conflict("dispute_ended", f"{found.id} is {found.state}")
