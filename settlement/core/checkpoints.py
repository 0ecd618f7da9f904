"""`checkpoint/1` and the leaves that it commits to, as exact bytes (docs/reference/checkpoint.md).

A checkpoint is what a window leaves behind for good: the usage-record tree's size and root, the root of the window's
positions, the liabilities with their total, the journal's head, and the rules that were in force. Its digest goes on
chain. Everything here is pure and needs the standard library alone, since the offline verifier uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from settlement.core import canonical, times
from settlement.core.governing import LogHead
from settlement.core.journal import Head
from settlement.core.liabilities import Sum

TYPE = "checkpoint/1"
SALT_SIZE = 16
SALT_KEY_SIZE = 32


def record_salt(key: bytes, record_id: bytes) -> bytes:
    """The 16 bytes that hide a record in its leaf: from the (window, consumer) key and the 16 bytes of its UUID.

    Whoever is given the key can open all leaves of that consumer in that window, and no other leaf.
    """
    return sha256(key + record_id).digest()[:SALT_SIZE]


def record_leaf(
    *,
    provider: str,
    report: str,
    line: int,
    window: int,
    rates: int,
    charge_pico: int,
    salt: bytes,
    record: Mapping[str, object],
) -> bytes:
    """The bytes of a usage record's leaf.

    `report` is the digest text of the signed body, `line` the index in its ``records``, `record` that object as
    parsed, `rates` the version that it was charged by, `charge_pico` its exact charge in picoCU.
    """
    return canonical.encode(
        {
            "charge_pico": str(charge_pico),
            "line": line,
            "provider": provider,
            "rates": rates,
            "record": dict(record),
            "report": report,
            "salt": salt.hex(),
            "window": window,
        }
    )


def position_leaf(*, party: str, window: int, spent: int, earned: int, net: int, payout: int, salt: bytes) -> bytes:
    """The bytes of a position's leaf; amounts in microCU. The window's leaves ascend by party id."""
    return canonical.encode(
        {
            "earned": str(earned),
            "net": str(net),
            "party": party,
            "payout": str(payout),
            "salt": salt.hex(),
            "spent": str(spent),
            "window": window,
        }
    )


@dataclass(frozen=True, slots=True)
class Tree:
    """A Merkle tree's size and root."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Totals:
    """A window in numbers: exact charges in picoCU, what was posted and what is owed after netting in microCU."""

    reports: int
    records: int
    charged_pico: int
    posted: int
    net: int


@dataclass(frozen=True, slots=True)
class PayoutTotal:
    """What a window pays in one asset of one chain, in the asset's smallest unit."""

    chain: str
    asset: str
    count: int
    amount: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of `checkpoint/1`. Digests are digest text; `records_in_window` leaves of `records` are new."""

    window: int
    opened_at: datetime
    closed_at: datetime
    first_seq: int
    last_seq: int
    previous: str | None
    journal: Head
    records: Tree
    records_in_window: int
    positions: Tree
    liabilities: Sum
    liabilities_size: int
    rates: Sequence[tuple[int, str]]
    policy: str
    governance: LogHead
    totals: Totals
    payouts: Sequence[PayoutTotal]

    def document(self) -> bytes:
        """The canonical bytes that are signed, and whose SHA-256 is the checkpoint's digest and goes on chain."""
        return canonical.encode(
            {
                "type": TYPE,
                "window": self.window,
                "opened_at": times.text(self.opened_at),
                "closed_at": times.text(self.closed_at),
                "first_seq": self.first_seq,
                "last_seq": self.last_seq,
                "previous": self.previous,
                "journal": {"seq": self.journal.seq, "hash": self.journal.hash.hex()},
                "records": {**_tree(self.records), "window": self.records_in_window},
                "positions": _tree(self.positions),
                "liabilities": {
                    "size": self.liabilities_size,
                    "root": self.liabilities.hash.hex(),
                    "total": str(self.liabilities.amount),
                },
                "rates": [{"version": version, "digest": digest} for version, digest in self.rates],
                "policy": self.policy,
                "governance": {"size": self.governance.size, "head": self.governance.hash.hex()},
                "totals": {
                    "reports": self.totals.reports,
                    "records": self.totals.records,
                    "charged_pico": str(self.totals.charged_pico),
                    "posted": str(self.totals.posted),
                    "net": str(self.totals.net),
                },
                "payouts": [
                    {"chain": paid.chain, "asset": paid.asset, "count": paid.count, "amount": str(paid.amount)}
                    for paid in self.payouts
                ],
            }
        )


def _tree(tree: Tree) -> dict[str, object]:
    return {"size": tree.size, "root": tree.root.hex()}
