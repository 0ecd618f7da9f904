"""The journal replayed: gapless, hash-chained, balanced, and nobody below zero who may not be.

An account's kind is read off its id, never off what the export says of it: ``acc_`` is a consumer, ``prv_`` a provider,
and our own accounts are ``<kind>/...``. Memory: one number for each account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from settlement.client.lines import Fields, Wrong, equal, integer, is_integer, require
from settlement.core import canonical, journal
from settlement.core.errors import Malformed
from settlement.core.journal import GENESIS, Head

CU = journal.CU
MAY_BE_BELOW_ZERO = frozenset({"treasury", "conversion", "fees", "equity", "fx"})
"""Kinds of accounts on our own side of the books."""

KINDS = MAY_BE_BELOW_ZERO | {"consumer", "provider", "suspense", "transit"}


@dataclass(frozen=True, slots=True)
class EntryLine:
    """A journal entry: what its payload says. `net` are its legs summed by (account, asset)."""

    seq: int
    kind: str
    subject: str
    window: int
    at: datetime
    facts: Fields
    net: Mapping[tuple[str, str], int]

    @property
    def name(self) -> str:
        """How reports of faults call it."""
        return f"journal entry {self.seq}"


def account_kind(account: str) -> str:
    """What kind of account an id names."""
    for prefix, kind in (("acc_", "consumer"), ("prv_", "provider")):
        if account.startswith(prefix):
            return kind
    return account.partition("/")[0]


def account_asset(account: str) -> str:
    """What an account is kept in, by its id."""
    return account.partition("/")[2] if "/" in account else CU


def legs(*parts: tuple[str, str, int]) -> dict[tuple[str, str], int]:
    """Postings as they are compared: summed by (account, asset), without zeros."""
    summed: dict[tuple[str, str], int] = {}
    for account, asset, amount in parts:
        summed[account, asset] = summed.get((account, asset), 0) + amount
    return {leg: amount for leg, amount in summed.items() if amount}


class Books:
    """The journal's head and every balance, entry by entry."""

    def __init__(self) -> None:
        self.head = Head(0, GENESIS)
        self.balances: dict[tuple[str, str], int] = {}
        self._subjects: set[tuple[str, str]] = set()

    def read(self, line: Fields) -> EntryLine:
        """The entry of a line, chained and balanced. Raises Wrong with the first rule it breaks."""
        seq, payload = line.whole("seq"), line.text("payload").encode()
        name = f"journal entry {seq}"
        equal(seq, self.head.seq + 1, "journal_gap", name, "its number")
        previous, stated = line.hexadecimal("previous", 32), line.hexadecimal("hash", 32)
        equal(previous.hex(), self.head.hash.hex(), "journal_chain", name, "the previous entry's hash")
        equal(stated.hex(), journal.chain_hash(seq, previous, payload).hex(), "journal_hash", name, "its hash")
        entry = _entry(seq, name, payload)
        sums: dict[str, int] = {}
        for (_, asset), amount in entry.net.items():
            sums[asset] = sums.get(asset, 0) + amount
        require(not any(sums.values()), "entry_unbalanced", name, f"its legs do not sum to zero: {sums}")
        self._once(entry)
        self.head = Head(seq, stated)
        return entry

    def apply(self, entry: EntryLine) -> None:
        """Move the balances. Raises Wrong ``balance_below_zero`` for an account that may not go there."""
        for leg, amount in entry.net.items():
            balance = self.balances.get(leg, 0) + amount
            self.balances[leg] = balance
            if balance < 0 and amount < 0 and account_kind(leg[0]) not in MAY_BE_BELOW_ZERO:
                raise Wrong("balance_below_zero", leg[0], f"entry {entry.seq} leaves it with {balance} {leg[1]}")

    def balance(self, account: str, asset: str = CU) -> int:
        """The balance as replayed so far."""
        return self.balances.get((account, asset), 0)

    def _once(self, entry: EntryLine) -> None:
        """(kind, subject) comes once. Usage entries are held to one report each by `client.usage`."""
        if entry.kind == "usage":
            return
        key = (entry.kind, entry.subject)
        require(key not in self._subjects, "entry_repeated", entry.name, f"{entry.kind} {entry.subject} came before")
        self._subjects.add(key)


def _entry(seq: int, name: str, payload: bytes) -> EntryLine:
    content = Fields.parse(payload, name)
    try:
        same = canonical.encode(content.plain()) == payload
    except Malformed:
        same = False
    require(same, "entry_malformed", name, "its payload is not canonical JSON")
    members = {"at", "facts", "kind", "postings", "subject", "window"}
    require(content.keys() == members, "entry_malformed", name, f"its payload has other members than {sorted(members)}")
    parts = [_leg(leg, name) for leg in content.list("postings")]
    return EntryLine(
        seq=seq,
        kind=content.text("kind"),
        subject=content.text("subject"),
        window=content.whole("window"),
        at=content.time("at"),
        facts=content.object("facts"),
        net=legs(*parts),
    )


def _leg(value: Any, name: str) -> tuple[str, str, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(part, str) for part in value):
        raise Wrong("entry_malformed", name, "a posting is not account, asset and amount")
    account, asset, text = value
    require(is_integer(text), "line_malformed", name, f"{text} is not an amount")
    amount = integer(text)
    require(amount != 0, "entry_malformed", name, f"an empty leg on {account}")
    ours = account_kind(account) in KINDS and asset == account_asset(account)
    require(ours, "entry_malformed", name, f"{account} is no account of ours in {asset}")
    return account, asset, amount
