"""The governance log and what follows from it: who governs, what is in force, how far each proposal is.

`Register.apply` takes the entries one after another and refuses the first that the rules do not allow, so the service
asks it before it writes an entry, and a verifier asks it again about every entry of an export: one specification, in
the order of the checks below. It does no input and no output, and time is a member of each entry.

    founded           the operator begins: first policy, first rate table
    operator          the operator's key hands over to its next one
    published         the operator alone, while there is no council: rates, policies, rulings
    council_founded   signed by the operator and by every member
    proposed          by a member
    commented         by a participant; the text is kept beside the log, its digest is here
    approved          by a member, over decision/1
    adopted           follows when enough have approved
    vetoed            by a member, until a proposal is enacted
    stopped           follows when enough have vetoed
    withdrawn         by who proposed it, until it is adopted
    enacted           when its time-lock is over and its time has not come, or at once for what needs no notice
    lapsed            when it can't be enacted any more
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from governance import council, policy, proposals
from governance.council import Council
from governance.policy import Demand
from governance.proposals import Governed, Object, Proposal
from governance.tally import tally
from settlement.core import canonical, rates, service_keys, strictjson, times
from settlement.core.errors import Conflict, Forbidden, Malformed, NotFound
from settlement.core.governing import EMPTY, GovernanceRules, LogHead
from settlement.core.policy import Policy
from settlement.core.rates import RateTable
from settlement.core.signatures import PublicKey, detached_kid, parse_base64url, verify_detached

Kind = Literal[
    "founded", "operator", "published", "council_founded", "proposed", "commented", "approved", "adopted", "vetoed",
    "stopped", "withdrawn", "enacted", "lapsed",
]  # fmt: skip
KINDS = frozenset(get_args(Kind))
AHEAD = timedelta(minutes=5)
"""How far ahead a record may be dated; and by how much a member's clock may be behind ours."""

Body = Callable[[str], bytes]
"""The bytes that a digest text names. What an entry is about is looked up by it."""

State = Literal["open", "adopted", "enacted", "vetoed", "withdrawn", "lapsed"]
PROPOSAL_TYPE = "proposal+jws"
DECISION_TYPE = "decision+jws"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log."""

    kind: str
    at: datetime
    facts: Mapping[str, Any] = field(default_factory=dict)

    def payload(self) -> bytes:
        """The canonical bytes that are chained."""
        return canonical.encode({"at": times.text(self.at), "facts": dict(self.facts), "kind": self.kind})


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a proposal is. `approved` and `vetoed` are raw public keys with the time; `proposer` is a kid."""

    proposal: Proposal
    demand: Demand
    state: State
    proposer: str
    proposed_at: datetime
    approved: Mapping[bytes, datetime] = field(default_factory=dict)
    vetoed: Mapping[bytes, datetime] = field(default_factory=dict)
    changed_at: datetime | None = None
    council: Council | None = None
    """The council that this proposal would put in force."""

    @property
    def governed(self) -> Governed:
        return self.proposal.governed


@dataclass(frozen=True, slots=True)
class Head:
    """The newest version of a chain that is enacted."""

    version: int
    digest: str
    effective_from: datetime
    enacted_at: datetime
    document: bytes


def named(entry: Entry) -> list[str]:
    """The digests of the documents that an entry is about, which `Register.apply` asks for."""
    members = {"founded": ("policy", "rates"), "published": ("digest",), "council_founded": ("digest",)}
    wanted = members.get(entry.kind, ("digest",) if entry.kind == "proposed" else ())
    return [entry.facts[member] for member in wanted]


def read_entry(payload: bytes) -> Entry:
    """The entry of chained bytes. Raises Malformed ``log_malformed``."""
    found = strictjson.loads(payload)
    if not isinstance(found, dict) or found.keys() != {"at", "facts", "kind"} or not isinstance(found["facts"], dict):
        raise Malformed("log_malformed", "an entry is an object of at, facts and kind")
    entry = Entry(found["kind"], times.parse(found["at"]), found["facts"])
    if entry.payload() != payload:
        raise Malformed("log_malformed", "an entry is not canonical JSON")
    return entry


class Register:
    """Everything that governs, as far as the log was read."""

    def __init__(self) -> None:
        self.head: LogHead = EMPTY
        self.at: datetime | None = None
        self.operator: PublicKey | None = None
        self.councils: list[Council] = []
        self.policies: list[Policy] = []
        self.table: RateTable | None = None
        self.chains: dict[tuple[Object, str], list[Head]] = {}
        self.proposals: dict[str, Standing] = {}
        self.expected: Entry | None = None

    def copy(self) -> Register:
        """The same, to go on from without changing this one."""
        other = Register()
        other.head, other.at, other.operator, other.table = self.head, self.at, self.operator, self.table
        other.councils, other.policies = list(self.councils), list(self.policies)
        other.chains = {chain: list(heads) for chain, heads in self.chains.items()}
        other.proposals, other.expected = dict(self.proposals), self.expected
        return other

    # --- reading ---

    def council_at(self, at: datetime) -> Council | None:
        """The council in force; None while the operator governs alone."""
        return next((each for each in reversed(self.councils) if each.effective_from <= at), None)

    def rules_at(self, at: datetime) -> GovernanceRules:
        """The rules of governing by the policy in force."""
        found = next(each for each in reversed(self.policies) if each.effective_from <= at)
        return found.governance

    def newest(self, kind: Object, subject: str = "") -> Head | None:
        """The newest enacted version of a chain."""
        heads = self.chains.get((kind, subject))
        return heads[-1] if heads else None

    def pause_at(self, at: datetime) -> proposals.Pause | None:
        """The emergency pause that holds at a time; None when nothing stands still."""
        newest = self.newest("pause")
        found = None if newest is None else proposals.pause(newest.document)
        return found if found is not None and found.stop and at < found.until else None

    def standing(self, proposal_id: str) -> Standing:
        """A proposal. Raises NotFound ``unknown_proposal``."""
        found = self.proposals.get(proposal_id)
        if found is None:
            raise NotFound("unknown_proposal", f"there is no proposal {proposal_id}")
        return found

    def due(self, now: datetime) -> list[Entry]:
        """What anybody may enter in the log now: adopted proposals to enact, and those that lapsed."""
        found = []
        for each in self.proposals.values():
            if each.state == "adopted" and self._may_enact(each, now) is None:
                found.append(self._enacted(each, now))
            elif self._lapses(each, now) is not None:
                facts = {"proposal": each.proposal.id, "reason": self._lapses(each, now)}
                found.append(Entry("lapsed", now, facts))
        return found

    # --- applying ---

    def apply(self, entry: Entry, body: Body) -> None:
        """Take the next entry. Raises Refused with the first rule broken; nothing changes then."""
        if entry.kind not in KINDS:
            raise Malformed("log_malformed", f"there is no kind of entry {entry.kind}")
        if (self.head.size == 0) != (entry.kind == "founded"):
            raise Malformed("log_malformed", "the log begins when the installation is founded, and only then")
        if self.at is not None and entry.at < self.at:
            raise Malformed("log_malformed", "an entry is earlier than the one before it")
        if self.expected is not None and entry != replace(self.expected, at=entry.at):
            raise Malformed("log_malformed", f"{self.expected.kind} must follow")
        if self.expected is None and entry.kind in ("adopted", "stopped"):
            raise Malformed("log_malformed", f"nothing made {entry.kind} follow")
        self.expected = _APPLY[entry.kind](self, entry, body)
        self.at = entry.at
        self.head = self.head.extended(entry.payload())

    def _founded(self, entry: Entry, body: Body) -> None:
        self.operator = operator_key(entry.facts["operator"])
        first = Policy.parse(body(entry.facts["policy"]))
        table = proposals.read_governed("rates", body(entry.facts["rates"]))
        if first.version != 1 or table.version != 1 or first.effective_from > entry.at:
            raise Malformed("log_malformed", "an installation is founded with version 1 of policy and rates, in force")
        self._enter(proposals.read_governed("policy", first.document()), entry.at)
        self._enter(table, entry.at)

    def _operator_changed(self, entry: Entry, body: Body) -> None:
        keys = service_keys.chain([(entry.facts["document"].encode(), list(entry.facts["signatures"]))])
        if keys[0].raw != self._operator().raw:
            raise Conflict("service_key_order", "it does not hand over from the operator's key")
        self.operator = keys[1]

    def _published(self, entry: Entry, body: Body) -> None:
        if self.council_at(entry.at) is not None:
            raise Forbidden("council_governs", "a council governs; propose it to the council")
        kind: Object = entry.facts["object"]
        if kind not in ("rates", "policy", "ruling"):
            raise Malformed("log_malformed", "the operator publishes rates, policies and rulings")
        found = proposals.read_governed(kind, body(entry.facts["digest"]))
        operator = self._operator()
        counted = tally(found.document, list(entry.facts["signatures"]), keys=[operator], threshold=1)
        if not counted.reached:
            raise Forbidden("not_enough_signatures", "1 more signature(s) of those who govern are needed")
        self._check_next(found)
        if kind == "ruling":
            if not entry.at - AHEAD <= found.effective_from <= entry.at:
                raise Conflict("effective_date_in_past", "a ruling of the operator holds from now on")
        elif found.effective_from <= entry.at + AHEAD or found.effective_from <= self._last(found).effective_from:
            detail = f"a version of {kind} holds from more than 5 minutes ahead: records may be dated so far ahead"
            raise Conflict("effective_date_in_past", detail)
        self._enter(found, entry.at)

    def _council_founded(self, entry: Entry, body: Body) -> None:
        if self.councils:
            raise Conflict("council_exists", "there is a council; another one follows it by a proposal")
        document = body(entry.facts["digest"])
        found = council.parse(document)
        if found.version != 1:
            raise Conflict("version_not_next", "the first council is version 1")
        if found.effective_from <= entry.at:
            raise Conflict("effective_date_in_past", "a council is in force from a later time on")
        keys = [*(each.key for each in found.members), self._operator()]
        distinct = len({key.raw for key in keys})
        counted = tally(document, list(entry.facts["signatures"]), keys=keys, threshold=distinct)
        if not counted.reached:
            missing = ", ".join(counted.missing)
            raise Forbidden("not_enough_signatures", f"the operator and every member sign; missing: {missing}")
        self._enter(proposals.read_governed("council", document), entry.at)

    def _proposed(self, entry: Entry, body: Body) -> None:
        data = body(entry.facts["digest"])
        proposal = proposals.parse(data)
        if proposal.id in self.proposals or proposal.id != entry.facts["proposal"]:
            raise Conflict("proposal_conflict", f"{proposal.id} is on file with other bytes")
        governing = self._council(entry.at)
        signature: str = entry.facts["signature"]
        key = _voice(signature, governing.voices(entry.at, expired=proposal.governed.kind == "council"))
        verify_detached(signature, data, key, PROPOSAL_TYPE)
        self._check_next(proposal.governed)
        demand = self._demand(proposal, entry.at)
        if demand.notice > policy.NOTHING:
            self._check_notice(proposal.governed, demand, entry.at)
        elif proposal.governed.effective_from < entry.at - AHEAD:
            raise Conflict("effective_date_in_past", "what governs is never changed for the past")
        candidate = council.parse(proposal.governed.document) if proposal.governed.kind == "council" else None
        self.proposals[proposal.id] = Standing(
            proposal=proposal,
            demand=demand,
            state="open",
            proposer=key.kid,
            proposed_at=entry.at,
            council=candidate,
        )

    def _commented(self, entry: Entry, body: Body) -> None:
        found = self.standing(entry.facts["proposal"])
        if found.state not in ("open", "adopted"):
            raise Conflict("proposal_closed", f"{found.proposal.id} is {found.state}")

    def _approved(self, entry: Entry, body: Body) -> Entry | None:
        found = self._open(entry, "open")
        key = self._decided(entry, found, "approve")
        if key.raw in found.approved or key.raw in found.vetoed:
            raise Conflict("already_decided", "this key has decided on the proposal already")
        self._check_next(found.governed)
        if self._lapses(found, entry.at) == "expired":
            raise Conflict("proposal_closed", f"{found.proposal.id} has found too few approvals in its time")
        if found.demand.notice > policy.NOTHING:
            self._check_notice(found.governed, found.demand, entry.at)
        found = replace(found, approved={**found.approved, key.raw: entry.at})
        self.proposals[found.proposal.id] = found
        enough = self._has_enough(found, entry.at)
        return Entry("adopted", entry.at, {"proposal": found.proposal.id}) if enough else None

    def _adopted(self, entry: Entry, body: Body) -> None:
        found = self.proposals[entry.facts["proposal"]]
        self.proposals[found.proposal.id] = replace(found, state="adopted", changed_at=entry.at)

    def _vetoed(self, entry: Entry, body: Body) -> Entry | None:
        found = self._open(entry, "open", "adopted")
        key = self._decided(entry, found, "veto")
        if key.raw in found.vetoed:
            raise Conflict("already_decided", "this key has decided on the proposal already")
        approved = {raw: at for raw, at in found.approved.items() if raw != key.raw}
        found = replace(found, vetoed={**found.vetoed, key.raw: entry.at}, approved=approved)
        self.proposals[found.proposal.id] = found
        governing = self._council(entry.at)
        counted = found.vetoed.keys() & {voice.raw for voice in self._voices(found, governing, entry.at)}
        enough = len(counted) >= governing.thresholds["veto"]
        return Entry("stopped", entry.at, {"proposal": found.proposal.id}) if enough else None

    def _stopped(self, entry: Entry, body: Body) -> None:
        found = self.proposals[entry.facts["proposal"]]
        self.proposals[found.proposal.id] = replace(found, state="vetoed", changed_at=entry.at)

    def _withdrawn(self, entry: Entry, body: Body) -> None:
        found = self._open(entry, "open")
        key = self._decided(entry, found, "withdraw")
        if key.kid != found.proposer:
            raise Forbidden("not_the_proposer", "who proposed it may withdraw it")
        self.proposals[found.proposal.id] = replace(found, state="withdrawn", changed_at=entry.at)

    def _enact(self, entry: Entry, body: Body) -> None:
        found = self._open(entry, "adopted")
        refused = self._may_enact(found, entry.at)
        if refused is not None:
            raise Conflict("not_due", refused)
        if entry != self._enacted(found, entry.at):
            raise Malformed("log_malformed", "it enacts another document than was adopted")
        self._enter(found.governed, entry.at)
        kept = replace(found.proposal, governed=replace(found.governed, document=b""))
        self.proposals[found.proposal.id] = replace(found, proposal=kept, state="enacted", changed_at=entry.at)

    def _lapse(self, entry: Entry, body: Body) -> None:
        found = self._open(entry, "open", "adopted")
        reason = self._lapses(found, entry.at)
        if reason is None or reason != entry.facts["reason"]:
            raise Conflict("not_due", f"{found.proposal.id} can still be enacted")
        self.proposals[found.proposal.id] = replace(found, state="lapsed", changed_at=entry.at)

    # --- rules ---

    def _check_next(self, found: Governed) -> None:
        """Version exactly one above the last enacted one, and its digest as the parent; one adopted at a time."""
        last = self.newest(found.kind, found.subject)
        version = 1 if last is None else last.version + 1
        if found.version != version:
            raise Conflict("version_not_next", f"the next version is {version}")
        parent = None if last is None else last.digest
        if found.parent != parent:
            raise Conflict("parent_mismatch", f"the parent is {parent}")
        for each in self.proposals.values():
            same = (each.governed.kind, each.governed.subject) == (found.kind, found.subject)
            if same and each.state == "adopted":
                raise Conflict("version_not_next", f"version {version} is adopted already by {each.proposal.id}")

    def _check_notice(self, found: Governed, demand: Demand, at: datetime) -> None:
        last = self.newest(found.kind, found.subject)
        if found.effective_from <= at or (last is not None and found.effective_from <= last.effective_from):
            raise Conflict("effective_date_in_past", "what governs is never changed for the past")
        if found.effective_from < at + demand.notice:
            earliest = times.text(at + demand.notice)
            raise Conflict("notice_too_short", f"adopted now, it can be in force from {earliest} on at the earliest")

    def _demand(self, proposal: Proposal, at: datetime) -> Demand:
        rules, found = self.rules_at(at), proposal.governed
        if found.kind == "rates":
            assert self.table is not None, "an installation is founded with rates"
            return policy.for_rates(proposal, self.table, rates.parse(found.document), rules)
        if found.kind == "policy":
            return policy.for_policy(self.policies[-1], Policy.parse(found.document))
        if found.kind == "council":
            return policy.for_council(rules)
        if found.kind == "pause":
            return self._pause_demand(proposals.pause(found.document), found, rules)
        return policy.AT_ONCE

    def _pause_demand(self, pause: proposals.Pause, found: Governed, rules: GovernanceRules) -> Demand:
        if pause.until > found.effective_from + rules.longest_pause:
            raise Conflict("pause_too_long", f"a pause ends within {rules.longest_pause}")
        newest = self.newest("pause")
        last = None if newest is None else proposals.pause(newest.document)
        rested = last is None or found.effective_from >= last.until + rules.longest_pause
        return policy.for_pause(pause, rested=rested)

    def _has_enough(self, found: Standing, at: datetime) -> bool:
        governing = self._council(at)
        voices = {voice.raw for voice in self._voices(found, governing, at)}
        old = len(found.approved.keys() & voices) >= governing.thresholds[found.demand.threshold]
        if found.council is None:
            return old
        new = {member.key.raw for member in found.council.members}
        return old and len(found.approved.keys() & new) >= found.council.thresholds["ordinary"]

    def _voices(self, found: Standing, governing: Council, at: datetime) -> list[PublicKey]:
        return governing.voices(at, about=found.governed.about, expired=found.governed.kind == "council")

    def _decided(self, entry: Entry, found: Standing, choice: proposals.Choice) -> PublicKey:
        """The member's key that signed this decision about this proposal."""
        governing = self._council(entry.at)
        voices = self._voices(found, governing, entry.at)
        if found.council is not None and choice == "approve":
            voices += [member.key for member in found.council.members]
        signature: str = entry.facts["signature"]
        member = governing.member(detached_kid(signature))
        if member is not None and member.is_recused(found.governed.about):
            raise Forbidden("member_recused", f"{member.name} has declared an interest in whom this is about")
        key = _voice(signature, voices)
        verify_detached(signature, proposals.decide(choice, found.proposal), key, DECISION_TYPE)
        return key

    def _may_enact(self, found: Standing, at: datetime) -> str | None:
        """Why an adopted proposal can't be enacted at a time; None when it can."""
        assert found.changed_at is not None
        effective = found.governed.effective_from
        if at < found.changed_at + found.demand.time_lock:
            return f"its time-lock ends at {times.text(found.changed_at + found.demand.time_lock)}"
        if found.demand.notice == policy.NOTHING:
            return None if at >= effective else f"it is to hold from {times.text(effective)} on"
        margin = AHEAD if found.governed.kind == "rates" else policy.NOTHING
        return None if effective > at + margin else "its time has come, and nothing is changed for the past"

    def _lapses(self, found: Standing, at: datetime) -> str | None:
        """Why a proposal can't be enacted any more at a time; None while it can, or when it has ended."""
        if found.state == "adopted":
            assert found.changed_at is not None
            late = found.demand.notice > policy.NOTHING and at >= found.changed_at + found.demand.time_lock
            return "too_late" if late and self._may_enact(found, at) is not None else None
        if found.state != "open":
            return None
        last = self.newest(found.governed.kind, found.governed.subject)
        if last is not None and last.version >= found.governed.version:
            return "superseded"
        if at >= found.proposed_at + self.rules_at(at).open_for:
            return "expired"
        short = found.demand.notice > policy.NOTHING and found.governed.effective_from < at + found.demand.notice
        return "notice" if short else None

    def _enacted(self, found: Standing, at: datetime) -> Entry:
        governed = found.governed
        facts = {
            "proposal": found.proposal.id,
            "object": governed.kind,
            "subject": governed.subject,
            "version": governed.version,
            "digest": governed.digest,
        }
        return Entry("enacted", at, facts)

    def _open(self, entry: Entry, *states: State) -> Standing:
        found = self.standing(entry.facts["proposal"])
        if found.state not in states:
            raise Conflict("proposal_closed", f"{found.proposal.id} is {found.state}")
        return found

    def _council(self, at: datetime) -> Council:
        found = self.council_at(at)
        if found is None:
            raise Conflict("council_missing", "no council governs yet; the operator governs alone")
        return found

    def _operator(self) -> PublicKey:
        assert self.operator is not None, "the first entry names the operator"
        return self.operator

    def _last(self, found: Governed) -> Head:
        last = self.newest(found.kind, found.subject)
        assert last is not None, "an installation is founded with a policy and rates"
        return last

    def _enter(self, found: Governed, at: datetime) -> None:
        """Put a document at the end of its chain."""
        heads = self.chains.setdefault((found.kind, found.subject), [])
        kept = b"" if found.kind == "rates" else found.document
        heads.append(Head(found.version, found.digest, found.effective_from, at, kept))
        if found.kind == "rates":
            self.table = rates.parse(found.document)
        elif found.kind == "policy":
            self.policies.append(Policy.parse(found.document))
        elif found.kind == "council":
            self.councils.append(council.parse(found.document))


def operator_key(jwk: Mapping[str, str]) -> PublicKey:
    """The operator's key as the first entry has it."""
    return PublicKey(parse_base64url(jwk["x"]) or b"")


def _voice(signature: str, voices: list[PublicKey]) -> PublicKey:
    """The key among `voices` that a detached signature names. Raises Forbidden ``not_a_member``."""
    kid = detached_kid(signature)
    for key in voices:
        if key.kid == kid:
            return key
    raise Forbidden("not_a_member", "this key has no voice in this: it is no member's, or its term doesn't run")


_APPLY: dict[str, Callable[[Register, Entry, Body], Entry | None]] = {
    "founded": Register._founded,
    "operator": Register._operator_changed,
    "published": Register._published,
    "council_founded": Register._council_founded,
    "proposed": Register._proposed,
    "commented": Register._commented,
    "approved": Register._approved,
    "adopted": Register._adopted,
    "vetoed": Register._vetoed,
    "stopped": Register._stopped,
    "withdrawn": Register._withdrawn,
    "enacted": Register._enact,
    "lapsed": Register._lapse,
}
