"""Money on its way out: earnings that a position promised, withdrawals by the policy's rules, refunds of deposits.

Each kind has entries of its own, ``<name>_planned``, then at most one of ``<name>_settled`` and ``<name>_failed``; a
withdrawal has its fee beside them. Memory: a row for each payout, and the deposits that are in suspense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from settlement.client.books import CU, Books, EntryLine, legs
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.rules import Rules
from settlement.client.settling import Windows
from settlement.client.value import IndexValue
from settlement.core import policy

NAMES = {"earnings": "payout", "withdrawal": "withdrawal", "refund": "refund"}
"""How the journal calls each kind of payout."""
STATES = ("planned", "ordered", "settled", "failed")
Legs = dict[tuple[str, str], int]


@dataclass(slots=True)
class Payout:
    """A payout and how far the journal has taken it: "", planned, settled or failed."""

    id: str
    kind: str
    window: int
    party: str | None
    chain: str
    asset: str
    amount: int
    micro: int
    fee: int
    micro_per_unit: str | None
    deposit: str | None
    state: str
    order: str | None
    transfer: int | None
    fixing: int | None
    own_rate: bool
    facts: dict[str, str | int | bool]
    booked: str = ""
    fee_booked: int = 0
    """1 once the fee of a withdrawal is booked, 2 once it was given back."""
    landed: tuple[str, int] | None = None
    """The transaction and the ledger by which it arrived, as the journal says."""

    @property
    def name(self) -> str:
        """How reports of faults call it."""
        return f"payout {self.id}"

    @property
    def owner(self) -> str:
        """Whose balance it is of. Raises Wrong ``payout_unfounded`` when it is nobody's."""
        if self.party is None:
            raise Wrong("payout_unfounded", self.name, "it is nobody's and no refund")
        return self.party


def read_payout(line: Fields) -> Payout:
    """The payout of its line."""
    reference, kind = line.amount_or_none("reference"), line.text("payout_kind")
    facts: dict[str, str | int | bool] = {name: line.text(name) for name in ("chain", "asset", "address")}
    facts["amount"] = str(line.amount("amount"))
    if kind == "earnings":
        facts["window"] = f"win_{line.whole('window')}"
    if kind == "withdrawal":
        facts["micro_per_unit"] = line.text("micro_per_unit")
    if kind == "refund":
        facts["deposit"] = line.text("deposit")
    if reference is not None:
        facts["reference"] = str(reference)
    fixing, own_rate = None if line["fixing"] is None else line.whole("fixing"), line["own_rate"] is True
    if fixing is not None:
        facts |= {"fixing": fixing} | ({"own_rate": own_rate} if kind == "withdrawal" else {})
    return Payout(
        id=line.text("id"),
        kind=kind,
        window=line.whole("window"),
        party=line.text_or_none("party"),
        chain=line.text("chain"),
        asset=line.text("asset"),
        amount=line.amount("amount"),
        micro=line.amount("micro"),
        fee=line.amount("fee"),
        micro_per_unit=line.text_or_none("micro_per_unit"),
        deposit=line.text_or_none("deposit"),
        state=line.text("state"),
        order=line.text_or_none("order"),
        transfer=None if line["transfer"] is None else line.whole("transfer"),
        fixing=fixing,
        own_rate=own_rate,
        facts=facts,
    )


class Payouts:
    """Every payout, founded on what it is for and held to its journal entries. `suspended` are stray deposits."""

    def __init__(
        self, rules: Rules, books: Books, windows: Windows, parties: Mapping[str, str], value: IndexValue
    ) -> None:
        self._rules = rules
        self._value = value
        self._books = books
        self._windows = windows
        self._parties = parties
        self.all: dict[str, Payout] = {}
        self.by_order: dict[str, list[Payout]] = {}
        self.suspended: dict[str, Fields] = {}

    def add(self, line: Fields) -> None:
        """A payout, before its first entry."""
        payout = read_payout(line)
        require(payout.id not in self.all, "payout_unfounded", payout.name, "it came before")
        require(payout.kind in NAMES, "payout_kind", payout.name, f"there is no kind {payout.kind}")
        require(payout.state in STATES, "payout_state", payout.name, f"there is no state {payout.state}")
        if payout.kind == "earnings":
            self._found_on_position(payout)
        elif payout.kind == "withdrawal":
            consumer = self._parties.get(payout.owner) == "consumer"
            require(consumer, "payout_unfounded", payout.name, f"{payout.party} is no consumer")
        else:
            self._found_on_deposit(payout, line)
        conversion = payout.micro_per_unit is not None
        equal(conversion, payout.kind == "withdrawal", "payout_kind", payout.name, "whether it has a conversion")
        refunded = payout.deposit is not None
        equal(refunded, payout.kind == "refund", "payout_kind", payout.name, "whether it has a deposit")
        follows = payout.fixing is None or payout.kind != "refund"
        require(follows, "payout_kind", payout.name, "a refund follows no fixing")
        kept = payout.kind == "withdrawal" or not payout.own_rate
        require(kept, "payout_kind", payout.name, "only a withdrawal has an own rate")
        self.all[payout.id] = payout
        if payout.order is not None:
            self.by_order.setdefault(payout.order, []).append(payout)

    def book(self, entry: EntryLine) -> None:
        """A step of a payout: planned, then at most one of settled and failed."""
        name, _, step = entry.kind.partition("_")
        payout = self._of(entry)
        equal(name, NAMES[payout.kind], "payout_entry", payout.name, "the kind of its entry")
        before = "" if step == "planned" else "planned"
        equal(payout.booked, before, "payout_entry", payout.name, f"its state before it is {step}")
        if step == "planned":
            equal(entry.facts.plain(), payout.facts, "payout_facts", entry.name, "its facts")
            if payout.kind != "earnings":
                equal(payout.window, entry.window, "payout_entry", payout.name, "its window")
            if payout.kind == "withdrawal":
                self._check_withdrawal(payout, entry)
        equal(dict(entry.net), _postings(payout, step), "payout_postings", entry.name, "what it posts")
        payout.booked = step
        if step != "planned":
            equal(entry.facts["order"], payout.order, "payout_facts", entry.name, "its order")
        if step == "settled":
            equal(entry.facts["transfer"], payout.transfer, "payout_facts", entry.name, "its transfer")
            payout.landed = (entry.facts.text("tx"), entry.facts.whole("ledger"))
        if step == "failed" and payout.own_rate:
            self._value.came_back(payout.owner, payout.id)
        if step == "failed" and payout.kind == "earnings":
            self._windows.moved(payout.owner, entry.seq, payout.micro)

    def book_fee(self, entry: EntryLine) -> None:
        """``withdrawal_fee``, and ``withdrawal_fee_returned`` when the withdrawal has failed."""
        payout = self._of(entry)
        back = entry.kind == "withdrawal_fee_returned"
        stage = (payout.kind, payout.booked, payout.fee_booked, payout.fee > 0)
        expected = ("withdrawal", "failed" if back else "planned", int(back), True)
        equal(stage, expected, "payout_fee", payout.name, f"where it stands before its {entry.kind}")
        amount = payout.fee if back else -payout.fee
        parts = legs((payout.owner, CU, amount), (f"fees/{CU}", CU, -amount))
        equal(dict(entry.net), parts, "payout_postings", entry.name, "what it posts")
        payout.fee_booked += 1

    def finish(self, orders: Mapping[str, str]) -> None:
        """What is stated as done must have been booked; what is on its way is what the transit accounts hold."""
        transit: dict[tuple[str, str], int] = {}
        for payout in self.all.values():
            booked = payout.state if payout.state in ("settled", "failed") else "planned"
            equal(payout.booked, booked, "payout_state", payout.name, "what the journal says of it")
            if booked == "planned":
                asset = CU if payout.kind != "refund" else f"{payout.chain}/{payout.asset}"
                leg = (f"transit/{asset}", asset)
                transit[leg] = transit.get(leg, 0) + (payout.micro or payout.amount)
            due = 0 if not payout.fee else 2 if booked == "failed" else 1
            equal(payout.fee_booked, due, "payout_fee", payout.name, "how often its fee was booked")
            order = orders.get(payout.order or "")
            landed = order == "settled" or payout.state != "settled"
            require(landed, "payout_order", payout.name, f"it is settled and its order is {order}")
            ended = order != "settled" or payout.state in ("settled", "failed")
            require(ended, "payout_order", payout.name, "its order settled, and it did neither arrive nor fail")
        held = {leg: amount for leg, amount in self._books.balances.items() if leg[0].startswith("transit/") and amount}
        for account, asset in sorted(held.keys() | transit.keys()):
            open_now = transit.get((account, asset), 0)
            equal(held.get((account, asset), 0), open_now, "transit_mismatch", account, "the balance")

    def _of(self, entry: EntryLine) -> Payout:
        payout = self.all.get(entry.subject)
        if payout is None:
            raise Wrong("payout_missing", entry.name, f"there is no payout {entry.subject} before it")
        return payout

    def _found_on_position(self, payout: Payout) -> None:
        """Exactly what a position promised, once."""
        due = self._windows.due.pop((payout.window, payout.owner), None)
        if due is None:
            raise Wrong("payout_unfounded", payout.name, "no position promises it, or it came before")
        for member in ("chain", "asset", "amount", "micro", "fixing"):
            equal(getattr(payout, member), getattr(due, member), "payout_mismatch", payout.name, f"its {member}")
        equal(payout.fee, 0, "payout_mismatch", payout.name, "its fee")

    def _found_on_deposit(self, payout: Payout, line: Fields) -> None:
        """All of a deposit that is in suspense, to its sender. A failed one leaves the deposit where it is."""
        deposit = self.suspended.get(payout.deposit or "")
        if deposit is None:
            raise Wrong("payout_unfounded", payout.name, "its deposit is not in suspense, or went back before")
        stated = (payout.chain, payout.asset, payout.amount, line.text("address"), line.amount_or_none("reference"))
        sender = (deposit.text("sender"), deposit.amount_or_none("sender_reference"))
        found = (deposit.text("chain"), deposit.text("asset"), deposit.amount("amount"), *sender)
        equal(stated, found, "payout_mismatch", payout.name, "what goes back, and to whom")
        equal((payout.party, payout.micro, payout.fee), (None, 0, 0), "payout_mismatch", payout.name, "its CU")
        if payout.state != "failed":
            del self.suspended[deposit.text("id")]

    def _check_withdrawal(self, payout: Payout, entry: EntryLine) -> None:
        """By the policy in force when it was booked: fee, conversion, and not less than the minimum."""
        found = self._rules.policy_at(entry.at)
        converted = self._value.withdrawal(
            payout.owner, payout.chain, payout.asset, entry.at, payout.micro, own_rate=payout.own_rate
        )
        if found is None or converted is None:
            raise Wrong("payout_mismatch", payout.name, f"nothing gives {payout.asset} on {payout.chain} a worth")
        worth = converted.micro_per_unit
        rules = found[0].withdrawals
        equal(payout.fee, rules.fee, "payout_mismatch", payout.name, "its fee")
        equal(payout.micro_per_unit, str(worth), "payout_mismatch", payout.name, "the microCU for a unit")
        stated = (payout.fixing, payout.own_rate)
        equal(stated, (converted.fixing, converted.own_rate), "payout_mismatch", payout.name, "its fixing")
        if payout.own_rate:
            self._value.taken(payout.owner, payout.id, entry.at, payout.micro)
        taken = policy.to_units(payout.micro, worth)
        equal(taken, (payout.amount, payout.micro), "payout_mismatch", payout.name, "what its microCU pay for")
        enough = Fraction(payout.micro + payout.fee) + worth > rules.minimum
        require(enough, "payout_mismatch", payout.name, "it is below the least that is withdrawn")


def _postings(payout: Payout, step: str) -> Legs:
    asset = f"{payout.chain}/{payout.asset}"
    treasury = (f"treasury/{asset}", asset, payout.amount)
    if payout.kind == "refund":
        transit, suspense = (f"transit/{asset}", asset), (f"suspense/{asset}", asset)
        return {
            "planned": legs((*suspense, -payout.amount), (*transit, payout.amount)),
            "failed": legs((*transit, -payout.amount), (*suspense, payout.amount)),
            "settled": legs((*transit, -payout.amount), treasury),
        }[step]
    transit, owner = (f"transit/{CU}", CU), (payout.owner, CU)
    return {
        "planned": legs((*owner, -payout.micro), (*transit, payout.micro)),
        "failed": legs((*transit, -payout.micro), (*owner, payout.micro)),
        "settled": legs(
            (*transit, -payout.micro),
            (f"conversion/{CU}", CU, payout.micro),
            (f"conversion/{asset}", asset, -payout.amount),
            treasury,
        ),
    }[step]
