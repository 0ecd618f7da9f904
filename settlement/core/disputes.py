"""Disputes over charges: grounds, deadlines, who may do what, and what is given back (docs/reference/disputes.md).

    open --answer--> answered          the provider contests it
    open, answered --end--> upheld, rejected or withdrawn, by one of `CAUSES`

A consumer disputes one usage record, or all that it owes a provider for a window. What is given back is never more than
was claimed, the claim never more than was charged, and all of a pair's awards together never more than the pair posted.
Standard library only: the offline verifier asks the same functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, get_args

from settlement.core import rating, strictjson
from settlement.core.errors import Broken
from settlement.core.fields import DIGEST, NAME, Reader
from settlement.core.multipliers import Multiplier
from settlement.core.offers import Offer, Offers
from settlement.core.rates import RateTable
from settlement.core.sections import Micro
from settlement.core.units import PICO_PER_MICRO

ANSWER = "answer/1"
ANSWER_TYPE = "answer+jws"
"""The ``typ`` of a provider's signature under its answer."""
MILLION = 1_000_000
MOST_DIGESTS = 16

Ground = Literal["empty", "price", "count", "not_requested", "not_received"]
GROUNDS: tuple[Ground, ...] = get_args(Ground)
OF_RECORDS: frozenset[Ground] = frozenset({"empty", "price"})
"""Grounds that only one record can have."""

State = Literal["open", "answered", "upheld", "rejected", "withdrawn"]
WAITING: tuple[State, ...] = ("open", "answered")

Cause = Literal["empty_answer", "price_mismatch", "accepted", "no_answer", "council", "no_ruling", "consumer"]
CAUSES: Mapping[Cause, frozenset[State]] = MappingProxyType(
    {
        "empty_answer": frozenset({"open"}),  # the provider's own record shows that nothing was answered
        "price_mismatch": frozenset({"open"}),  # the provider signed an offer that asks less
        "accepted": frozenset({"open"}),  # the provider agrees
        "no_answer": frozenset({"open"}),  # the provider let its time pass
        "council": frozenset({"answered"}),  # the council, or the operator that governs alone, has ruled
        "no_ruling": frozenset({"answered"}),  # nobody ruled in time: what was charged stays
        "consumer": frozenset({"open", "answered"}),  # the consumer took it back
    }
)
"""What ends a dispute, and the states in which it can."""

ANSWERING = frozenset({"chat", "generate_content", "text_completion"})
"""Operations whose point is an answer in text; embeddings have none."""
_PROMISED = frozenset({"completed", "truncated"})
_READ = Reader("answer", "answer_malformed")
_ID = re.compile(r"dsp_[0-7][0-9a-hjkmnp-tv-z]{25}")
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DisputeRules:
    """Deadlines, the tranche and penalties as a section of the policy. Shares are in millionths."""

    open_for: timedelta = 14 * DAY
    """From the close of a window: how long what it charged may be disputed."""
    answer_within: timedelta = 3 * DAY
    rule_within: timedelta = 14 * DAY
    hold_back: int = 0
    """The share of a window's net earnings that is paid only when they can't be disputed any more."""
    penalty_share: int = 1_000_000
    """The largest penalty of a ruling, as a share of what it awards."""
    penalty_most: Micro = 222_222_222_222
    """The largest penalty of a ruling in microCU: 1,000 USD at the first value of a CU."""
    most_open: int = 100
    """How many disputes a consumer may have open at once."""

    def __post_init__(self) -> None:
        if not timedelta(hours=1) <= self.open_for <= 90 * DAY:
            raise ValueError("a charge may be disputed for an hour at least and for 90 days at most")
        if not timedelta(hours=1) <= self.answer_within <= 30 * DAY:
            raise ValueError("the time to answer is an hour at least and 30 days at most")
        if not timedelta(hours=1) <= self.rule_within <= 90 * DAY:
            raise ValueError("the time to rule is an hour at least and 90 days at most")
        if not 0 <= self.hold_back <= MILLION // 2:
            raise ValueError("at most half of what was earned is held back")
        if not 0 <= self.penalty_share <= 10 * MILLION or self.penalty_most < 0 or not 1 <= self.most_open <= 10_000:
            raise ValueError("a bound of penalties or of open disputes is out of range")

    def tranche(self, earned: int, netted: int) -> int:
        """What of a window's earnings, less what paid for the party's own usage, is held back; rounded down."""
        return (earned - netted) * self.hold_back // MILLION

    def most_penalty(self, award: int) -> int:
        """The largest penalty beside an award, in microCU."""
        return min(award * self.penalty_share // MILLION, self.penalty_most)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a `ruling/1` says: microCU to the consumer, and the provider's penalty beside it."""

    dispute: str
    consumer: str
    provider: str
    award: int
    penalty: int

    @classmethod
    def of(cls, document: bytes) -> Ruling:
        """The ruling of a document that `governance.proposals` has read."""
        found = json.loads(document)
        amounts = int(found["award"]), int(found["penalty"])
        return cls(found["dispute"], found["consumer"], found["provider"], *amounts)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider says of a dispute, in a document that it signs (`answer/1`). Digests and counts, never text."""

    dispute: str
    accepts: bool
    evidence: tuple[str, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of what a dispute takes from its provider, in microCU: for the consumer, and of the penalty."""

    award: int
    penalty: int

    @property
    def total(self) -> int:
        """Both."""
        return self.award + self.penalty


def parse_answer(body: bytes) -> Answer:
    """The answer of these signed bytes. Raises Malformed ``answer_malformed``, or a code of strict JSON."""
    root = _READ.members(strictjson.loads(body), "", ("answer", "dispute", "type"), ("counts", "evidence"))
    if root["type"] != ANSWER:
        _READ.refuse("/type", f"must be {ANSWER}")
    if root["answer"] not in ("accept", "contest"):
        _READ.refuse("/answer", "must be accept or contest")
    digests = _READ.items(root["evidence"], "/evidence") if "evidence" in root else []
    if len(digests) > MOST_DIGESTS:
        _READ.refuse("/evidence", f"has more than {MOST_DIGESTS} digests")
    counts = _READ.each(root["counts"], "/counts", NAME, _units) if "counts" in root else {}
    return Answer(
        dispute=_READ.text(root["dispute"], "/dispute", _ID),
        accepts=root["answer"] == "accept",
        evidence=tuple(_READ.text(each, f"/evidence/{place}", DIGEST) for place, each in enumerate(digests)),
        counts=counts,
    )


def _units(_name: str, value: object, at: str) -> int:
    return _READ.whole(value, at, 10**12)


def ended(state: State, cause: Cause, award: int) -> State:
    """The state that a dispute ends in. Raises Broken ``illegal_step``."""
    if state not in CAUSES[cause]:
        raise Broken("illegal_step", f"a dispute that is {state} can't be ended by {cause}")
    return "withdrawn" if cause == "consumer" else "upheld" if award else "rejected"


def whole_micro(pico: int) -> int:
    """The most that can be given back for a charge: its whole microCU. What is below is carried and stays charged."""
    return pico // PICO_PER_MICRO


def bounded(asked: int, claimed: int, left: int) -> int:
    """What is awarded: not more than was claimed, nor than the pair has left to give back."""
    return max(0, min(asked, claimed, left))


def next_share(owed: Share, drawable: int) -> Share:
    """What can be taken now of what is owed: the consumer's part first."""
    award = max(0, min(owed.award, drawable))
    return Share(award, max(0, min(owed.penalty, drawable - award)))


def is_empty(record: Mapping[str, Any]) -> bool:
    """Whether a signed record says by itself that an answer was asked for and not a token of one was given."""
    asked = record["operation"] in ANSWERING and record["outcome"] in _PROMISED
    return asked and not any(units for meter, units in record["meters"].items() if meter.startswith("output_"))


def overcharged(
    table: RateTable,
    record: Mapping[str, Any],
    at: datetime,
    charge_pico: int,
    offer: Offer,
    published: Offers,
    after: Sequence[Multiplier] = (),
) -> int:
    """By how many picoCU a record was charged above an offer that its provider signed; 0 when the offer did not hold.

    It holds when it was to begin by the record's time, was not published, and no later version had begun by then.
    `after` are the multipliers that the charge had after the ask: demand's and the consumer's standing.
    """
    known = published.at(at)
    superseded = known is not None and known.version > offer.version
    on_file = any(each.digest == offer.digest for each in published.all)
    if offer.effective_from > at or superseded or on_file:
        return 0
    charge = _rated(table, record, record["meters"], at, Offers([offer]), after)
    return 0 if isinstance(charge, rating.Refusal) else max(0, charge_pico - charge.pico)


def miscounted(
    table: RateTable,
    record: Mapping[str, Any],
    counts: Mapping[str, int],
    at: datetime,
    charge_pico: int,
    published: Offers,
    after: Sequence[Multiplier] = (),
) -> int | rating.Refusal:
    """By how many picoCU a record was charged above what `counts` cost by the same table, asks and multipliers `after`.

    Never below zero, never more than was charged. A Refusal when the counts can't be rated.
    """
    charge = _rated(table, record, counts, at, published, after)
    return charge if isinstance(charge, rating.Refusal) else max(0, charge_pico - charge.pico)


def _rated(
    table: RateTable,
    record: Mapping[str, Any],
    meters: Mapping[str, int],
    at: datetime,
    asked: Offers,
    after: Sequence[Multiplier],
) -> rating.Charge | rating.Refusal:
    model, tier = table.resolve(record["model"]) or record["model"], record["tier"]
    further = (*asked.multipliers(model, tier, at), *after)
    return rating.rate(table, model, tier, record["outcome"], meters, at, further)
