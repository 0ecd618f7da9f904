"""Disputes redone: who said what in time, what was awarded by which rule or ruling, and what was given back.

Disputes come before the windows, so that the charges they are about are noticed as they are read. Memory: a row each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from settlement.client.books import CU, EntryLine, legs
from settlement.client.governing import GovernanceLog
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.reports import Reports, Seen
from settlement.client.rules import Rules
from settlement.client.settling import Windows
from settlement.core import disputes, offers, rating, signatures, times
from settlement.core.demand import as_multipliers
from settlement.core.disputes import DisputeRules, Ruling, Share
from settlement.core.errors import Malformed, Unauthenticated
from settlement.core.offers import Offer
from settlement.core.rates import RateTable

FEES = f"fees/{CU}"


@dataclass(slots=True)
class _Dispute:
    """A dispute as its line states it at the end, and as the journal has taken it so far."""

    line: Fields
    state: str = ""
    ground: str = ""
    claimed: int = 0
    opened_at: datetime | None = None
    by: datetime | None = None
    """When the next word is due."""
    accepts: bool = False
    due: str | None = None
    """The rule that must have ended it as it was opened."""
    owed: Share = field(default_factory=lambda: Share(0, 0))
    paid: Share = field(default_factory=lambda: Share(0, 0))
    payments: int = 0
    span: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"dispute {self.line.text('id')}"

    @property
    def pair(self) -> tuple[str, str, int]:
        return self.line.text("consumer"), self.line.text("provider"), self.line.whole("window")


class Disputes:
    """Every dispute, held to the records, the rules and the governance log."""

    def __init__(self, rules: Rules, log: GovernanceLog, windows: Windows, reports: Reports) -> None:
        self._rules = rules
        self._log = log
        self._windows = windows
        self._reports = reports
        self._all: dict[str, _Dispute] = {}
        self._about: set[tuple[object, ...]] = set()
        self._awarded: dict[tuple[str, str, int], int] = {}

    def add(self, line: Fields) -> None:
        """A dispute, before the windows."""
        found = _Dispute(line)
        require(line.text("id") not in self._all, "dispute_repeated", found.name, "this id came before")
        self._all[line.text("id")] = found
        self._windows.pairs[found.pair] = 0
        record = line.text_or_none("record")
        if record is not None:
            self._reports.watched[line.text("provider"), record] = None

    # --- entries ---

    def open(self, entry: EntryLine) -> None:
        """``dispute_opened``: a charge that was made, disputed once and in time, for no more than it."""
        found, facts = self._of(entry), entry.facts
        equal(found.state, "", "dispute_entry", found.name, "its state before it is opened")
        equal(dict(entry.net), {}, "dispute_postings", entry.name, "what it posts")
        for member, whose in zip(("consumer", "provider", "window"), found.pair, strict=True):
            equal(facts[member], whose, "dispute_facts", entry.name, f"its {member}")
        equal(facts.plain().get("record"), found.line["record"], "dispute_facts", entry.name, "its record")
        record = found.line.text_or_none("record")
        seen = None if record is None else self._reports.watched[found.pair[1], record]
        about = (found.pair[1], record) if record is not None else found.pair
        require(about not in self._about, "dispute_repeated", found.name, "this charge was disputed before")
        self._about.add(about)
        charged = self._charge(found, seen, facts, entry.name)
        left = self._windows.posted(*found.pair) - self._awarded.get(found.pair, 0)
        found.ground, found.claimed = facts.text("ground"), facts.amount("claimed")
        require(found.ground in disputes.GROUNDS, "dispute_facts", entry.name, f"there is no ground {found.ground}")
        most = min(charged, left, self._too_much(found, seen, facts, entry.name))
        require(0 < found.claimed <= most, "dispute_claim", found.name, f"{found.claimed} is claimed, of {most}")
        rules = self._rules_at(entry.at, entry.name)
        closed_at = self._windows.closed.get(found.pair[2])
        if closed_at is not None:
            until = closed_at + self._rules_at(closed_at, entry.name).open_for
            require(entry.at < until, "dispute_time", found.name, f"it could be opened until {until.isoformat()}")
        found.by = entry.at + rules.answer_within
        equal(facts.time("answer_by"), found.by, "dispute_time", found.name, "when an answer is due")
        found.state, found.opened_at, found.span = "open", entry.at, [entry.seq, 0]
        self._windows.disputed.setdefault(found.pair[1:], []).append(found.span)

    def answer(self, entry: EntryLine) -> None:
        """``dispute_answered``: signed by the provider, in time."""
        found, facts = self._of(entry), entry.facts
        equal(found.state, "open", "dispute_entry", found.name, "its state before it is answered")
        equal(dict(entry.net), {}, "dispute_postings", entry.name, "what it posts")
        body = facts.text("document").encode()
        try:
            kid = signatures.detached_kid(facts.text("signature"))
            key = self._rules.party_keys.get(kid)
            if key is None or not key.valid_at(entry.at) or key.party != found.pair[1]:
                raise Wrong("dispute_signature", entry.name, f"key {kid} was not the provider's then")
            signatures.verify_detached(facts.text("signature"), body, key.key, disputes.ANSWER_TYPE)
            said = disputes.parse_answer(body)
        except (Unauthenticated, Malformed) as error:
            raise Wrong("dispute_signature", entry.name, error.detail) from None
        equal(said.dispute, found.line.text("id"), "dispute_facts", entry.name, "the dispute that it answers")
        assert found.by is not None
        require(entry.at < found.by and not found.accepts, "dispute_time", found.name, "it was answered too late")
        found.accepts = said.accepts
        expected = {"document", "signature"} if said.accepts else {"document", "signature", "rule_by"}
        equal(set(facts), expected, "dispute_facts", entry.name, "its facts")
        if not said.accepts:
            found.state, found.by = "answered", entry.at + self._rules_at(entry.at, entry.name).rule_within
            equal(facts.time("rule_by"), found.by, "dispute_time", found.name, "when a ruling is due")

    def rule(self, entry: EntryLine) -> None:
        """``dispute_ruled``: by a cause that its state allows, for what follows from it."""
        found, facts = self._of(entry), entry.facts
        cause = facts.text("cause")
        known = next((each for each in disputes.CAUSES if each == cause), None)
        if known is None or found.state not in disputes.CAUSES[known]:
            raise Wrong(
                "dispute_entry", found.name, f"a dispute that is {found.state or 'not open'} isn't ended by {cause}"
            )
        asked, penalty = self._asked(found, entry, cause)
        left = self._windows.posted(*found.pair) - self._awarded.get(found.pair, 0)
        award = disputes.bounded(asked, found.claimed, left)
        penalty = min(penalty, self._rules_at(entry.at, entry.name).most_penalty(award))
        stated = (facts.amount("award"), facts.amount("penalty"))
        equal(stated, (award, penalty), "dispute_award", found.name, "award and penalty")
        record = found.line.text_or_none("record")
        seen = None if record is None else self._reports.watched[found.pair[1], record]
        corrects = f"win_{found.pair[2]}" if seen is None else seen.journal_seq
        equal(facts["corrects"], corrects, "dispute_facts", entry.name, "what it corrects")
        self._awarded[found.pair] = self._awarded.get(found.pair, 0) + award
        found.owed = Share(award, penalty)
        self._pay(found, entry)
        self._windows.moved(found.pair[1], entry.seq, -found.owed.total)
        found.state = "withdrawn" if cause == "consumer" else "upheld" if award else "rejected"
        if cause == "consumer":
            self._about.discard((found.pair[1], record) if record is not None else found.pair)
        found.span[1] = entry.seq

    def pay(self, entry: EntryLine) -> None:
        """``dispute_paid``: the next part of what its provider owes of it."""
        dispute_id, _, number = entry.subject.partition("/")
        found = self._all.get(dispute_id)
        if found is None:
            raise Wrong("dispute_missing", entry.name, f"there is no dispute {dispute_id}")
        found.payments += 1
        equal(number, str(found.payments), "dispute_entry", found.name, "the number of its payment")
        equal(entry.facts.plain(), {}, "dispute_facts", entry.name, "its facts")
        before = found.paid.total
        self._pay(found, entry)
        require(found.paid.total > before, "dispute_postings", entry.name, "it pays nothing")

    def finish(self) -> None:
        """What a dispute says of itself is what the journal made of it, and every ruling had its effect."""
        for found in self._all.values():
            line = found.line
            equal(line.text("state"), found.state, "dispute_state", found.name, "its state")
            stated = tuple(line.amount(name) for name in ("award", "penalty", "paid", "penalty_paid"))
            booked = (found.owed.award, found.owed.penalty, found.paid.award, found.paid.penalty)
            equal(stated, booked, "dispute_state", found.name, "what was awarded and paid")
            waits = found.state == "open" and (found.due is not None or found.accepts)
            require(
                not waits, "dispute_entry", found.name, "it was decided as it was opened or answered, and not ended"
            )
        for dispute_id in self._log.rulings():
            ruled = self._all.get(dispute_id)
            over = ruled is not None and ruled.state not in ("", *disputes.WAITING)
            require(over, "dispute_entry", f"dispute {dispute_id}", "it was ruled on, and nothing followed")

    # --- parts ---

    def _of(self, entry: EntryLine) -> _Dispute:
        found = self._all.get(entry.subject)
        if found is None:
            raise Wrong("dispute_missing", entry.name, f"there is no dispute {entry.subject}")
        return found

    def _rules_at(self, at: datetime, name: str) -> DisputeRules:
        policy = self._rules.policy_at(at)
        if policy is None:
            raise Wrong("dispute_time", name, "no policy was in force then")
        return policy[0].disputes

    def _charge(self, found: _Dispute, seen: Seen | None, facts: Fields, name: str) -> int:
        """What is disputed, in whole microCU, as it was charged."""
        flags: object = []
        if found.line["record"] is None:
            require(self._windows.is_netted(found.pair[2]), "dispute_facts", name, "its window was not netted then")
            charged = self._windows.posted(*found.pair)
        else:
            if seen is None:
                raise Wrong("dispute_facts", name, "no such record was charged before")
            where = (seen.charged.record["consumer"], seen.window)
            equal(where, (found.pair[0], found.pair[2]), "dispute_facts", name, "whom the record charged, and when")
            equal(facts["entry"], seen.journal_seq, "dispute_facts", name, "the entry that charged it")
            charged, flags = disputes.whole_micro(seen.charged.pico), seen.charged.record.get("flags", [])
        equal(facts["flags"], flags, "dispute_facts", name, "what was flagged in the record")
        equal(facts.amount("charged"), charged, "dispute_facts", name, "what was charged")
        return charged

    def _too_much(self, found: _Dispute, seen: Seen | None, facts: Fields, name: str) -> int:
        """The most microCU that were too much by what the consumer says; notes the rule that decides it at once."""
        members = {"consumer", "provider", "window", "ground", "charged", "claimed", "evidence", "flags", "answer_by"}
        given = set(facts)
        if seen is None:
            equal(given, members, "dispute_facts", name, "its facts")
            return self._windows.posted(*found.pair)
        facts.texts("evidence")
        members |= {"record", "entry"} | given & {"counts", "offer"}
        equal(given, members, "dispute_facts", name, "its facts")
        record, pico = seen.charged.record, seen.charged.pico
        at, table = times.parse(record["at"]), self._table(seen)
        day, busy = self._rules.standings(at), self._rules.busy(found.pair[1], record)
        after = (*as_multipliers(busy), *day.multipliers(record["consumer"]))
        if found.ground == "price":
            found.due = "price_mismatch"
        elif found.ground == "empty" and disputes.is_empty(record):
            found.due = "empty_answer"
        published = self._rules.asked_by(found.pair[1])
        if "offer" in facts:
            offer = self._offer(found, facts.object("offer"), at, name)
            return disputes.whole_micro(disputes.overcharged(table, record, at, pico, offer, published, after))
        require(found.ground != "price", "dispute_facts", name, "there is no offer")
        if "counts" not in facts:
            return disputes.whole_micro(pico)
        counts = {name: facts.object("counts").whole(name) for name in facts.object("counts")}
        much = disputes.miscounted(table, record, counts, at, pico, published, after)
        if isinstance(much, rating.Refusal):
            raise Wrong("dispute_claim", name, f"what was counted can't be rated: {much.code}")
        return disputes.whole_micro(much)

    def _table(self, seen: Seen) -> RateTable:
        return next(table for table in self._rules.tables if table.version == seen.charged.rates)

    def _offer(self, found: _Dispute, given: Fields, at: datetime, name: str) -> Offer:
        try:
            kid = signatures.detached_kid(given.text("signature"))
            key = self._rules.party_keys.get(kid)
            if key is None or not key.valid_at(at) or key.party != found.pair[1]:
                raise Wrong("dispute_signature", name, f"key {kid} was not the provider's at the record's time")
            body = given.text("body").encode()
            signatures.verify_detached(given.text("signature"), body, key.key, offers.SIGNATURE_TYPE)
            offer = offers.parse(body)
        except (Unauthenticated, Malformed) as error:
            raise Wrong("dispute_signature", name, error.detail) from None
        equal(offer.provider, found.pair[1], "dispute_facts", name, "whose offer it is")
        return offer

    def _asked(self, found: _Dispute, entry: EntryLine, cause: str) -> tuple[int, int]:
        """What a cause asks for, and the penalty; the cause must be so."""
        assert found.by is not None, "an open dispute has a deadline"
        expected = {"cause", "corrects", "award", "penalty"} | ({"ruling"} if cause == "council" else set())
        equal(set(entry.facts), expected, "dispute_facts", entry.name, "its facts")
        decided = found.due or ("accepted" if found.accepts else None)
        automatic = cause in ("empty_answer", "price_mismatch", "accepted")
        if decided is not None or automatic:
            equal(cause, decided, "dispute_cause", found.name, "what ended it")
        late = entry.at >= found.by
        require(late == (cause in ("no_answer", "no_ruling")) or automatic or cause == "consumer", "dispute_time",
                found.name, f"{cause} before its time or after it")  # fmt: skip
        if cause == "council":
            ruling = self._ruling(found, entry)
            return ruling.award, ruling.penalty
        return (0 if cause in ("no_ruling", "consumer") else found.claimed), 0

    def _ruling(self, found: _Dispute, entry: EntryLine) -> Ruling:
        digest = entry.facts.digest("ruling")
        for known, enacted_at, document in self._log.rulings().get(entry.subject, []):
            ruling = Ruling.of(document)
            if (known, enacted_at) == (digest, entry.at) and (ruling.consumer, ruling.provider) == found.pair[:2]:
                return ruling
        raise Wrong("dispute_cause", found.name, "the governance log has no such ruling at that time")

    def _pay(self, found: _Dispute, entry: EntryLine) -> None:
        """Hold postings to what is owed: from the provider to the consumer first, then to the fees."""
        consumer, provider, _ = found.pair
        award, penalty = entry.net.get((consumer, CU), 0), entry.net.get((FEES, CU), 0)
        parts = legs((provider, CU, -award - penalty), (consumer, CU, award), (FEES, CU, penalty))
        equal(dict(entry.net), parts, "dispute_postings", entry.name, "what it posts")
        paid = Share(found.paid.award + award, found.paid.penalty + penalty)
        within = award >= 0 <= penalty and paid.award <= found.owed.award and paid.penalty <= found.owed.penalty
        first = not paid.penalty or paid.award == found.owed.award
        require(within and first, "dispute_postings", entry.name, "it pays more than is owed, or a penalty first")
        found.paid = paid
