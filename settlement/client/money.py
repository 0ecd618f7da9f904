"""Money over chains: what came in, what was set aside and paid out, and by which signed transactions.

Memory: a row for each payout and each chain order, and the id of each deposit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from settlement.client.anchors import Anchor
from settlement.client.books import CU, Books, EntryLine, legs
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.payouts import Payouts
from settlement.client.rules import Rules
from settlement.client.settling import Windows
from settlement.client.value import IndexValue
from settlement.core import policy

EVENTS = frozenset({"planned", "signed", "submitted", "unknown", "settled", "failed", "contested", "expired"})
STATES = EVENTS - {"expired"}
Legs = dict[tuple[str, str], int]


@dataclass(slots=True)
class Order:
    """A chain order with its attempts, as they are read."""

    line: Fields
    transactions: dict[str, Fields] = field(default_factory=dict)
    settled_events: int = 0


@dataclass(slots=True)
class _Deposit:
    line: Fields
    asset: str
    suspended: bool = False


class Money:
    """Deposits, payouts, chain orders."""

    def __init__(
        self, rules: Rules, books: Books, windows: Windows, parties: Mapping[str, str], value: IndexValue
    ) -> None:
        self._rules = rules
        self._value = value
        self._books = books
        self._windows = windows
        self._parties = parties
        self._intents: dict[tuple[str, int], str] = {}
        self._deposits: dict[str, _Deposit] = {}
        self._transfers_in: set[tuple[str, str, int]] = set()
        self.payouts = Payouts(rules, books, windows, parties, value)
        self._fees: dict[str, Legs] = {}
        self._orders: dict[str, str] = {}
        self._order: Order | None = None
        self._transactions: set[str] = set()
        self._slots: set[tuple[str, str, str, int]] = set()
        self._anchored: dict[int, list[datetime]] = {}
        self.anchors: list[Anchor] = []

    # --- coming in ---

    def add_intent(self, line: Fields) -> None:
        """A reference on a chain belongs to one consumer."""
        key = (line.text("chain"), line.amount("reference"))
        require(key not in self._intents, "intent_repeated", line.subject, "this reference came before")
        self._intents[key] = line.text("party")

    def add_deposit(self, line: Fields) -> None:
        """An incoming payment, before its first journal entry. Once for each (chain, transaction, index)."""
        name = f"deposit {line.text('id')}"
        key = (line.text("chain"), line.text("tx"), line.whole("tx_index"))
        require(key not in self._transfers_in, "deposit_repeated", name, "this payment was credited before")
        require(line.text("id") not in self._deposits, "deposit_repeated", name, "this id came before")
        require(line.amount("amount") > 0, "deposit_amount", name, "nothing arrived")
        self._transfers_in.add(key)
        party = line.text_or_none("party")
        if party is None:
            equal(line.amount("credited"), 0, "deposit_credit", name, "what was credited")
            equal(line["micro_per_unit"], None, "deposit_rate", name, "the microCU for a unit")
            equal(line["fixing"], None, "deposit_rate", name, "its fixing")
        else:
            require(self._parties.get(party) == "consumer", "deposit_party", name, f"{party} is no consumer")
        self._deposits[line.text("id")] = _Deposit(line, f"{line.text('chain')}/{line.text('asset')}")

    def book_deposit(self, entry: EntryLine) -> None:
        """A ``deposit`` or ``suspense`` entry against its deposit; out of suspense its subject is id/assigned."""
        deposit_id = entry.subject.removesuffix("/assigned")
        found = self._deposits.get(deposit_id)
        if found is None:
            raise Wrong("deposit_missing", entry.name, f"there is no deposit {deposit_id} before it")
        line, asset, name = found.line, found.asset, f"deposit {deposit_id}"
        equal(found.suspended, deposit_id != entry.subject, "deposit_entry", name, "whether it was in suspense before")
        equal(entry.facts["tx"], line.text("tx"), "deposit_facts", entry.name, "its tx")
        equal(entry.facts["index"], line.whole("tx_index"), "deposit_facts", entry.name, "its index")
        if not found.suspended:
            equal(entry.seq, line.whole("entry_seq"), "deposit_entry", name, "its first journal entry")
            self._check_facts(line, entry)
        amount, source = line.amount("amount"), "suspense" if found.suspended else "treasury"
        parts = [(f"{source}/{asset}", asset, -amount)]
        if entry.kind == "suspense":
            parts.append((f"suspense/{asset}", asset, amount))
            found.suspended = True
        else:
            parts += self._credited(found, entry, name)
        equal(dict(entry.net), legs(*parts), "deposit_postings", entry.name, "what it posts")
        if entry.kind == "deposit" or line["party"] is None:
            del self._deposits[deposit_id]
        if entry.kind == "suspense" and line["party"] is None:
            self.payouts.suspended[deposit_id] = line

    def _check_facts(self, line: Fields, entry: EntryLine) -> None:
        """The chained entry says where the money came from, so that the deposit can't be rewritten later."""
        network, _ = self._rules.networks.get(line.text("chain"), ("", ""))
        equal(entry.facts["network"], network, "deposit_facts", entry.name, "its network")
        equal(entry.facts["sender"], line.text("sender"), "deposit_facts", entry.name, "its sender")
        equal(
            entry.facts.plain().get("sender_reference"),
            line["sender_reference"],
            "deposit_facts",
            entry.name,
            "its sender's reference",
        )
        if line["reference"] is not None:  # one too large for the books is in the facts alone
            equal(entry.facts["reference"], line.text("reference"), "deposit_facts", entry.name, "its reference")

    def _credited(self, found: _Deposit, entry: EntryLine, name: str) -> list[tuple[str, str, int]]:
        """The CU side of a credit: whom the reference names, the value of the ledger's time, rounded down."""
        line = found.line
        party, chain, asset = line.text("party"), line.text("chain"), line.text("asset")
        reference = line.amount_or_none("reference")
        if not found.suspended:
            named = self._intents.get((chain, reference)) if reference is not None else None
            equal(party, named, "deposit_party", name, "whom it was credited to")
        worth = self._rules.worth("deposit", chain, asset, line.time("closed_at"), entry.at)
        if worth is None and found.suspended:
            worth = self._rules.worth("deposit", chain, asset, entry.at, entry.at)
        if worth is None:
            raise Wrong("deposit_rate", name, f"nothing gives {asset} on {chain} a worth")
        equal(line.text("micro_per_unit"), str(worth.micro_per_unit), "deposit_rate", name, "the microCU for a unit")
        equal(line["fixing"], worth.fixing, "deposit_rate", name, "its fixing")
        equal(entry.facts.plain().get("fixing"), worth.fixing, "deposit_facts", entry.name, "its fixing")
        credited, amount = line.amount("credited"), line.amount("amount")
        equal(credited, policy.to_micro(amount, worth.micro_per_unit), "deposit_credit", name, "what was credited")
        if worth.fixing is not None:
            self._value.deposited(party, entry.at, credited)
        return [
            (f"conversion/{found.asset}", found.asset, amount),
            (f"conversion/{CU}", CU, -credited),
            (party, CU, credited),
        ]

    def book_opening(self, entry: EntryLine) -> None:
        """What a treasury held before: of each asset as much equity as treasury."""
        stated = (entry.facts.text("network"), entry.facts.text("treasury"))
        equal(stated, self._rules.networks.get(entry.subject), "chain_changed", entry.name, "network and treasury")
        for (account, asset), amount in entry.net.items():
            chain = asset.partition("/")[0]
            other = {f"treasury/{asset}": f"equity/{asset}", f"equity/{asset}": f"treasury/{asset}"}.get(account)
            right = chain == entry.subject and other is not None and entry.net.get((other, asset)) == -amount
            require(right, "opening_postings", entry.name, f"{account} has no counterpart in {entry.subject}")

    # --- going out ---

    def book_fee(self, entry: EntryLine) -> None:
        """A fee that a chain took for an order; compared with the order at the end."""
        self._fees[entry.subject] = dict(entry.net)

    def book_operation(self, entry: EntryLine) -> None:
        """What an account spent beside orders: of each asset as much treasury as fees and equity, and never a gain."""
        chain = entry.facts.text("chain")
        for asset in {asset for _, asset in entry.net}:
            amounts = {kind: entry.net.get((f"{kind}/{asset}", asset), 0) for kind in ("treasury", "fees", "equity")}
            right = asset.startswith(f"{chain}/") and sum(amounts.values()) == 0 and amounts["treasury"] > 0
            require(right, "operation_postings", entry.name, f"{asset} does not go from the treasury to fees or equity")
        known = {f"{kind}/{asset}" for _, asset in entry.net for kind in ("treasury", "fees", "equity")}
        others = {account for account, _ in entry.net} - known
        require(not others, "operation_postings", entry.name, f"it touches {', '.join(sorted(others))}")

    # --- orders, at the end of the export ---

    def add_order(self, line: Fields) -> None:
        """The next chain order; the one before is complete then."""
        self.end_order()
        order_id = line.text("id")
        require(order_id not in self._orders, "order_repeated", f"chain order {order_id}", "this id came before")
        self._orders[order_id] = line.text("state")
        self._order = Order(line)

    def add_attempt(self, line: Fields) -> None:
        """The next attempt of the current order: on the order's one slot, a transaction id of its own."""
        order, name = self._present(line), f"attempt {line.whole('n')} of {line.text('order')}"
        equal(line.whole("n"), len(order.transactions) + 1, "attempt_number", name, "its number")
        ids = {line.text("tx"), *line.texts("aliases")}
        require(not ids & self._transactions, "attempt_repeated", name, "its transaction id came before")
        self._transactions |= ids
        for earlier in order.transactions.values():
            for member in ("slot_account", "slot_kind", "slot_number"):
                equal(line[member], earlier[member], "attempt_slot", name, f"its {member}")
        order.transactions[line.text("tx")] = line

    def add_event(self, line: Fields) -> None:
        """A step of the current order; it settles once at most."""
        order = self._present(line)
        known = line.whole("n") <= len(order.transactions)
        require(known, "attempt_event", line.subject, "it is about an attempt that isn't there")
        known = line.text("state") in EVENTS
        require(known, "attempt_event", line.subject, f"there is no state {line['state']}")
        if line.text("state") == "settled":
            order.settled_events += 1
            once = order.settled_events == 1
            require(once, "order_settled_twice", f"chain order {line.text('order')}", "it settled more than once")

    def end_order(self) -> None:
        """All of an order came: hold it to its attempts, its fee and its payouts."""
        order, self._order = self._order, None
        if order is None:
            return
        line, order_id, state = order.line, order.line.text("id"), order.line.text("state")
        name = f"chain order {order_id}"
        equal(line.whole("attempts"), len(order.transactions), "order_attempts", name, "the number of its attempts")
        self._check_slot(order, name)
        ended = order.transactions.get(line.text_or_none("tx") or "")
        equal(order.settled_events, int(state == "settled"), "order_state", name, "how often it settled")
        if state == "settled":
            if ended is None:
                raise Wrong("order_transaction", name, "it settled by a transaction that is none of its attempts")
            ledger = line.whole("ledger")
            in_span = ended.whole("first") <= ledger <= ended.whole("last")
            require(in_span, "order_ledger", name, f"ledger {ledger} is outside of what its transaction allows")
            require(line.amount("fee") <= ended.amount("fee"), "order_fee", name, "the fee is above the signed one")
        else:
            require(state in STATES, "order_state", name, f"there is no state {state}")
            own = line["tx"] is None or ended is not None
            require(own, "order_transaction", name, "it ended by a transaction that is none of its attempts")
            equal(line["ledger"], None, "order_ledger", name, "the ledger of an order that did not settle")
        self._check_fee(line, name)
        equal(line["step"] is not None, line["order_kind"] == "setup", "order_kind", name, "whether it has a step")
        if line.text("order_kind") == "anchor":
            expected = self._windows.checkpoints.get(line.whole("window"))
            equal(line.digest("digest"), expected, "anchor_digest", name, "the checkpoint's digest")
            if state == "settled":
                self._anchored.setdefault(line.whole("window"), []).append(line.time("ended_at"))
                self.anchors.append(self._anchor(line))
            return
        known = line.text("order_kind") in ("payout", "setup")
        require(known, "order_kind", name, f"there is no kind {line['order_kind']}")
        equal(line["digest"], None, "order_kind", name, "the digest of an order that is no anchor")
        if line["order_kind"] == "payout":
            self._check_transfers(line, name)
        else:
            idle = line.text("id") not in self.payouts.by_order
            require(idle, "order_kind", name, "it sets an account up and carries a payout")

    def _anchor(self, line: Fields) -> Anchor:
        network, treasury = self._rules.networks.get(line.text("chain"), ("", ""))
        return Anchor(
            line.text("chain"),
            network,
            line.text("tx"),
            line.whole("ledger"),
            line.digest("digest"),
            line.whole("window"),
            treasury,
        )

    def finish(self) -> None:
        """What is stated as done must have been booked, and nothing else."""
        self.end_order()
        for deposit in self._deposits.values():
            raise Wrong("deposit_entry", f"deposit {deposit.line.text('id')}", "it was never credited in the journal")
        self.payouts.finish(self._orders)
        for window, at in self._windows.anchored.items():
            times = self._anchored.get(window, [None])
            require(at in times, "window_anchored", f"window {window}", f"it was anchored at {times[0]}, not {at}")
        for order in self._fees:
            require(order in self._orders, "order_fee", f"chain order {order}", "a fee was booked for no order")

    def _present(self, line: Fields) -> Order:
        if self._order is None or self._order.line.text("id") != line.text("order"):
            raise Wrong("line_order", line.subject, "it doesn't follow its chain order")
        return self._order

    def _check_slot(self, order: Order, name: str) -> None:
        line, members = order.line, ("slot_account", "slot_kind", "slot_number")
        if line["slot_account"] is None:
            empty = all(line[member] is None for member in members)
            require(empty, "attempt_slot", name, "it has a part of a slot")
            return
        for attempt in order.transactions.values():
            for member in members:
                equal(line[member], attempt[member], "attempt_slot", name, f"its {member}")
        slot = (line.text("chain"), line.text("slot_account"), line.text("slot_kind"), line.amount("slot_number"))
        require(slot not in self._slots, "slot_reused", name, "its slot belongs to another order")
        self._slots.add(slot)

    def _check_fee(self, line: Fields, name: str) -> None:
        fee, chain = line.amount("fee"), line.text("chain")
        asset = self._rules.fee_assets.get(chain)
        booked = self._fees.get(line.text("id"), {})
        if asset is None:
            raise Wrong("order_fee", name, f"the fee asset of {chain} is not known")
        full = f"{chain}/{asset}"
        expected = legs((f"treasury/{full}", full, fee), (f"fees/{full}", full, -fee))
        equal(booked, expected, "order_fee", name, "what was booked as its fee")

    def _check_transfers(self, line: Fields, name: str) -> None:
        payouts = self.payouts.by_order.get(line.text("id"), [])
        for payout in payouts:
            subject, landed = f"payout {payout.id}", (line["tx"], line["ledger"])
            equal(payout.chain, line.text("chain"), "payout_order", subject, "the chain of its order")
            equal(payout.window, line.whole("window"), "payout_order", subject, "the window of its order")
            equal(payout.landed, landed if payout.landed else None, "payout_order", subject, "where it arrived")
        if line.text("state") == "settled":
            places = sorted(payout.transfer if payout.transfer is not None else -1 for payout in payouts)
            require(bool(places), "order_empty", name, "it settled and carries no payout")
            equal(places, list(range(len(places))), "order_transfers", name, "the places of its transfers")
