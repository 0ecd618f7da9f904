"""A measurement of solvency redone: what is owed from the replayed balances, what is held from the policy's values.

What a chain's account held in the ledger named can be seen on the chain alone.
"""

from __future__ import annotations

from fractions import Fraction

from settlement.client.books import CU, Books, account_kind
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.rules import Rules, check_signatures
from settlement.core.journal import Head
from settlement.core.solvency import Held, Solvency

OWED_TO = ("consumer", "provider", "transit")
"""Kinds of CU accounts whose balances are liabilities."""


def read_solvency(content: Fields) -> Solvency:
    """The measurement of a solvency/1 document as its members say it, nothing recomputed. Raises Wrong."""
    equal(content.text("type"), "solvency/1", "solvency_type", content.subject, "its type")
    head = content.object("journal")
    return Solvency(
        content.whole("window"),
        content.time("at"),
        Head(head.whole("seq"), head.hexadecimal("hash", 32)),
        content.amount("owed"),
        tuple(_held(each) for each in content.objects("assets")),
    )


def check_document(document: bytes, subject: str) -> Solvency:
    """A solvency/1 document whose own figures add up. Raises Wrong."""
    found = read_solvency(Fields.parse(document, subject))
    require(found.document() == document, "solvency_figures", subject, "its figures do not follow from its assets")
    return found


class SolvencyCheck:
    """The measurements of an export, each behind the entry whose balances it states."""

    def __init__(self, rules: Rules, books: Books, checkpoints: dict[int, str]) -> None:
        self._rules = rules
        self._books = books
        self._checkpoints = checkpoints
        self._last = 0

    def check(self, line: Fields) -> None:
        """Hold a measurement to the books as replayed so far, the policy at its time, and its signature."""
        document, name = line.text("document").encode(), f"solvency of window {line.whole('window')}"
        head = self._books.head
        check_signatures(line, document, self._rules.keychain.at(head.seq), "solvency_signature")
        found = check_document(document, name)
        equal(line.whole("window"), found.window, "solvency_window", name, "its window")
        in_order = found.window in self._checkpoints and found.window > self._last
        require(in_order, "solvency_window", name, "its window has no checkpoint, or was measured before")
        self._last = found.window
        equal(line.whole("journal_seq"), head.seq, "solvency_journal", name, "its journal entry")
        equal((found.journal.seq, found.journal.hash.hex()), (head.seq, head.hash.hex()), "solvency_journal", name,
              "its journal")  # fmt: skip
        equal(found.owed, owed(self._books), "solvency_owed", name, "what is owed")
        self._check_assets(found, name)

    def _check_assets(self, found: Solvency, name: str) -> None:
        for each in found.assets:
            place = (each.network, each.account)
            equal(place, self._rules.networks.get(each.chain), "solvency_assets", name, f"where {each.chain} is held")
            worth = self._rules.measured(each.chain, each.asset, found.at)
            equal(each.micro_per_unit, worth, "solvency_assets", name, f"the worth of {each.asset}")
            waiting = self._books.balance(f"suspense/{each.chain}/{each.asset}", f"{each.chain}/{each.asset}")
            equal(each.suspense, waiting, "solvency_assets", name, f"what of {each.asset} is in suspense")
        stated = [(each.chain, each.asset) for each in found.assets]
        require(len(set(stated)) == len(stated), "solvency_assets", name, "an asset comes twice")


def owed(books: Books) -> int:
    """Everything that is owed in CU, in microCU."""
    balances = books.balances.items()
    return sum(amount for (account, asset), amount in balances if asset == CU and account_kind(account) in OWED_TO)


def _held(line: Fields) -> Held:
    worth = line.text_or_none("micro_per_unit")
    try:
        fraction = None if worth is None else Fraction(worth)
    except (ValueError, ZeroDivisionError):
        raise Wrong("solvency_assets", line.subject, f"{worth} is no fraction") from None
    return Held(
        line.text("chain"),
        line.text("network"),
        line.text("account"),
        line.text("asset"),
        line.amount("amount"),
        line.amount("suspense"),
        line.whole("ledger"),
        line.time("closed_at"),
        fraction,
    )
