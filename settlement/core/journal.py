"""The journal: balanced entries in one gapless, hash-chained order (RELIABILITY I01, I02, I15).

An entry's payload is canonical JSON; its hash is SHA-256("CUJ1" || u64 seq || previous hash || u32 length || payload),
big-endian, starting from 32 zero bytes. Credit is positive. Postings name accounts by their public id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Literal

from settlement.core import canonical, times
from settlement.core.errors import Broken

GENESIS = bytes(32)
CU = "CU"

Kind = Literal[
    "usage",  # a usage report was charged: consumers to provider
    "opening",  # what the treasury held before the first deposit was read
    "deposit",  # an incoming payment became CU of a consumer
    "suspense",  # an incoming payment that names nobody
    "netting",  # a party's earnings pay for its own usage
    "payout_planned",  # a provider's balance is set aside for a payout
    "payout_settled",  # the payout arrived: the set-aside leaves the books with the asset
    "payout_failed",  # the payout can't be made: the set-aside goes back
    "chain_fee",  # what the network burned
    "operation",  # what a chain account spent beside payouts and anchors: an operator's transaction, an issuer's charge
    "withdrawal_planned",  # a consumer's balance is set aside for a withdrawal
    "withdrawal_fee",  # what the consumer pays for it
    "withdrawal_settled",  # the withdrawal arrived: the set-aside leaves the books with the asset
    "withdrawal_failed",  # the withdrawal can't be made: the set-aside goes back
    "withdrawal_fee_returned",  # and its fee with it
    "refund_planned",  # a deposit in suspense is set aside to go back to its sender
    "refund_settled",  # it arrived there
    "refund_failed",  # it can't be sent: it is in suspense again
    "dispute_opened",  # a consumer disputes a charge; posts nothing
    "dispute_answered",  # what the provider says of it; posts nothing
    "dispute_ruled",  # how it ended, and what could be given back at once
    "dispute_paid",  # what its provider still owed of it
    "demand",  # a step of demand: what multiplies the charges of busy providers; posts nothing
    "fixing",  # the index was fixed; in mode index what the conversions hold is valued anew
    "surcharge_noticed",  # a consumer's holds ended unused too often: from when on that costs something; posts nothing
    "surcharge",  # what such a day costs
    "service_key",  # the service's signature was handed over to a new key
]


@dataclass(frozen=True, slots=True)
class Posting:
    """One leg: `amount` of `asset` to `account`; microCU for ``CU``, else the asset's smallest unit."""

    account: str
    asset: str
    amount: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A balanced set of postings about one `subject`; (kind, subject) happens at most once.

    `facts` are what an outsider needs to check the amounts: strings, integers, and lists and objects of them.
    """

    kind: Kind
    subject: str
    window: int
    at: datetime
    postings: tuple[Posting, ...]
    facts: Mapping[str, object] = field(default_factory=dict)

    def payload(self) -> bytes:
        """The canonical bytes that are chained. Raises Broken when the entry does not balance."""
        self.assert_balanced()
        return canonical.encode(
            {
                "at": times.text(self.at),
                "facts": dict(self.facts),
                "kind": self.kind,
                "postings": [[leg.account, leg.asset, str(leg.amount)] for leg in self.postings],
                "subject": self.subject,
                "window": self.window,
            }
        )

    def assert_balanced(self) -> None:
        """Every asset sums to zero and no leg is empty (I01). An entry without postings records a fact alone."""
        sums: dict[str, int] = {}
        for leg in self.postings:
            if leg.amount == 0:
                raise Broken("entry_unbalanced", f"{self.kind} {self.subject} has an empty leg on {leg.account}")
            sums[leg.asset] = sums.get(leg.asset, 0) + leg.amount
        if any(sums.values()):
            raise Broken("entry_unbalanced", f"{self.kind} {self.subject} does not sum to zero: {sums}")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: the last entry's number and hash."""

    seq: int
    hash: bytes

    def extended(self, payload: bytes) -> Head:
        """The head after one more entry with that payload."""
        seq = self.seq + 1
        return Head(seq, chain_hash(seq, self.hash, payload))


def chain_hash(seq: int, previous: bytes, payload: bytes) -> bytes:
    """The hash of entry `seq` whose predecessor's hash is `previous`."""
    head = b"CUJ1" + seq.to_bytes(8, "big") + previous + len(payload).to_bytes(4, "big")
    return sha256(head + payload).digest()
