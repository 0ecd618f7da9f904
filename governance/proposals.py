"""What members sign: `proposal/1` with the document that it would put in force, and `decision/1` about a proposal.

A proposal carries its object whole. Canonical JSON nests, so the bytes of the member ``document`` inside it are exactly
the bytes that will be in force. A decision names the proposal by its id and by the digest of its bytes: an approval of
one is worth nothing for another, however alike the two are.

Each object has a chain of versions of its own, by `subject` where there are many (participants, disputes).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from governance import council
from governance.documents import ID, MAX_BYTES, TEXT, Reader, read
from settlement.core import canonical, rates, strictjson
from settlement.core.disputes import Ruling
from settlement.core.errors import Malformed
from settlement.core.policy import Policy

TYPE = "proposal/1"
DECISION = "decision/1"
MOST_BYTES = 8 * MAX_BYTES
"""The largest proposal: a rate table of a few thousand models, with its derivations."""

Object = Literal["rates", "policy", "council", "participant", "pause", "ruling"]
OBJECTS: tuple[Object, ...] = get_args(Object)
Choice = Literal["approve", "veto", "withdraw"]
CHOICES: tuple[Choice, ...] = ("approve", "veto", "withdraw")

CODE = "proposal_malformed"


@dataclass(frozen=True, slots=True)
class Governed:
    """A governed document: its place in its chain of versions, and the participants that it is about."""

    kind: Object
    subject: str
    version: int
    parent: str | None
    effective_from: datetime
    document: bytes
    digest: str
    about: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """A parsed proposal. `correction` marks a rate table as the correction of an error, which has a shorter notice."""

    id: str
    governed: Governed
    statement: str
    correction: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a member says of a proposal."""

    choice: Choice
    proposal: str
    digest: str


@dataclass(frozen=True, slots=True)
class Status:
    """`participant/1`: the council admits or suspends a participant."""

    party: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """`pause/1`: what stands still until a time. It can stop holds and payouts, and it can change nothing."""

    stop: frozenset[str]
    until: datetime
    reason: str


def make(kind: Object, document: bytes, *, proposal_id: str, statement: str, correction: bool = False) -> bytes:
    """The canonical bytes of a proposal, checked as the service will check them."""
    body = canonical.encode(
        {
            "type": TYPE,
            "id": proposal_id,
            "object": kind,
            "document": strictjson.loads(document),
            "statement": statement,
            "correction": correction,
        }
    )
    parse(body)
    return body


def decide(choice: Choice, proposal: Proposal) -> bytes:
    """The canonical bytes that a member signs to approve, veto or withdraw a proposal."""
    return canonical.encode({"type": DECISION, "decision": choice, "proposal": proposal.id, "digest": proposal.digest})


def parse(body: bytes) -> Proposal:
    """The proposal of these bytes. Raises Malformed ``proposal_malformed``, or the code of the document inside it."""
    names = ("id", "object", "document", "statement", "correction")
    found = read(body, TYPE, CODE, *names, limit=MOST_BYTES)
    kind: Object = next(each for each in OBJECTS if each == found.chosen("object", *OBJECTS))
    correction = found.flag("correction")
    if correction and kind != "rates":
        found.refuse("correction", "is for rate tables only")
    identity = found.text("id", ID)
    if not identity.startswith("prp_"):
        found.refuse("id", "must begin with prp_")
    governed = read_governed(kind, canonical.encode(found.members["document"]))
    return Proposal(identity, governed, found.text("statement", TEXT), correction, canonical.digest(body))


def parse_decision(body: bytes) -> Decision:
    """The decision of these bytes. Raises Malformed ``decision_malformed``."""
    found = read(body, DECISION, "decision_malformed", "decision", "proposal", "digest", limit=1024)
    choice: Choice = next(each for each in CHOICES if each == found.chosen("decision", *CHOICES))
    return Decision(choice, found.text("proposal", ID), found.digest("digest"))


def read_governed(kind: Object, document: bytes) -> Governed:
    """A governed document of a kind, checked whole. Raises Malformed."""
    return _READ[kind](document)


def _rates(document: bytes) -> Governed:
    table = rates.parse(document)
    return Governed("rates", "", table.version, table.parent, table.effective_from, document, table.digest)


def _policy(document: bytes) -> Governed:
    if len(document) > MAX_BYTES:
        raise Malformed("policy_malformed", f"is larger than {MAX_BYTES} bytes")
    found = Policy.parse(document)
    if found.document() != document:
        raise Malformed("policy_malformed", "not in canonical form, or with members that no policy has")
    return Governed(
        "policy", "", found.version, found.parent, found.effective_from, document, canonical.digest(document)
    )


def _council(document: bytes) -> Governed:
    found = council.parse(document)
    return Governed("council", "", found.version, found.parent, found.effective_from, document, found.digest)


def status(document: bytes) -> Status:
    """A `participant/1`. Raises Malformed ``proposal_malformed``."""
    found = read(document, "participant/1", CODE, *_CHAIN, "party", "status", "reason")
    party = found.text("party", re.compile(r"(acc|prv)_[0-9a-z]{26}"))
    return Status(party, found.chosen("status", "active", "suspended"), found.text("reason", TEXT))


def _participant(document: bytes) -> Governed:
    found = status(document)
    return _chained(document, "participant", found.party, (found.party,))


def pause(document: bytes) -> Pause:
    """A `pause/1`. Raises Malformed ``proposal_malformed``."""
    found = read(document, "pause/1", CODE, *_CHAIN, "stop", "until", "reason")
    stop = found.items("stop", 2)
    if stop not in ([], ["holds"], ["payouts"], ["holds", "payouts"]):
        found.refuse("stop", "lists holds and payouts, or nothing to go on again")
    made = Pause(frozenset(stop), found.time("until"), found.text("reason", TEXT))
    if made.until <= found.time("effective_from"):
        found.refuse("until", "is not later than effective_from")
    return made


def _pause(document: bytes) -> Governed:
    pause(document)
    return _chained(document, "pause", "", ())


def ruling(document: bytes) -> Ruling:
    """A `ruling/1`. Raises Malformed ``proposal_malformed``."""
    found = read(document, "ruling/1", CODE, *_CHAIN, "dispute", "consumer", "provider", "award", "penalty", "reason")
    found.text("dispute", re.compile(r"dsp_[0-9a-z]{26}"))
    found.text("consumer", re.compile(r"acc_[0-9a-z]{26}")), found.text("provider", re.compile(r"prv_[0-9a-z]{26}"))
    amounts = [int(found.text(name, re.compile(r"0|[1-9][0-9]{0,17}"))) for name in ("award", "penalty")]
    if amounts[1] and not amounts[0]:
        found.refuse("penalty", "needs an award beside it")
    found.text("reason", TEXT)
    return Ruling.of(document)


def _ruling(document: bytes) -> Governed:
    found = ruling(document)
    return _chained(document, "ruling", found.dispute, (found.consumer, found.provider))


_CHAIN = ("version", "parent", "effective_from")


def _chained(document: bytes, kind: Object, subject: str, about: tuple[str, ...]) -> Governed:
    found = Reader(strictjson.loads(document), CODE)
    version = found.whole("version", low=1)
    digest = canonical.digest(document)
    return Governed(
        kind, subject, version, found.parent(version), found.time("effective_from"), document, digest, about
    )


_READ: dict[Object, Callable[[bytes], Governed]] = {
    "rates": _rates,
    "policy": _policy,
    "council": _council,
    "participant": _participant,
    "pause": _pause,
    "ruling": _ruling,
}
