"""Demand redone: every step made again from what was charged before it, the offers and the policy of its time."""

from __future__ import annotations

from collections.abc import Mapping

from settlement.client.books import Books, EntryLine
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.rules import Rules, check_signatures
from settlement.core import canonical, demand
from settlement.core.demand import Demand, Demands
from settlement.core.errors import Malformed
from settlement.core.signatures import PublicKey


class DemandSteps:
    """The steps in order; those that the journal has named multiply, as `Rules.demands`."""

    def __init__(self, rules: Rules, books: Books) -> None:
        self._rules = rules
        self._books = books
        self._charged: dict[str, int] = {}
        self._last: Demand | None = None
        self._digest: str | None = None
        self._waiting: int | None = None

    def charged(self, provider: str, total: int) -> None:
        """A report was journalled: so many microCU more since the last step."""
        self._charged[provider] = self._charged.get(provider, 0) + total

    def add(self, line: Fields) -> None:
        """The next step, made again."""
        name, last = f"demand {line.whole('number')}", self._last
        require(self._waiting is None, "demand_entry", name, "the step before it has no journal entry")
        stated = read_demand(line, self._rules.keychain.at(self._books.head.seq), name)
        policy = self._rules.policy_at(stated.at)
        rules = None if policy is None else policy[0].demand
        if rules is None or not rules.curve:
            raise Wrong("demand_off", name, "the policy of its time has no curve")
        later = last is None or stated.at >= last.at + rules.step
        require(later, "demand_too_soon", name, "it comes sooner than a step after the one before")
        asked = {provider: self._rules.asked_by(provider).at(stated.at) for provider in self._rules.offers}
        offers = {provider: offer for provider, offer in asked.items() if offer is not None}
        made = demand.made(last, self._digest, stated.at, rules, self._charged, offers)
        document = line.text("document").encode()
        equal(document, made.document(), "demand_document", name, "what books, offers and policy make of it")
        self._last, self._digest, self._charged = made, line.digest("digest"), {}
        self._waiting = line.whole("journal_seq")

    def book(self, entry: EntryLine) -> None:
        """The entry of a step."""
        waiting, self._waiting = self._waiting, None
        if self._last is None or entry.seq != waiting or entry.subject != f"dem_{self._last.number}":
            raise Wrong("demand_entry", entry.name, "there is no such step before it")
        facts = {"number": self._last.number, "digest": self._digest}
        equal(entry.facts.plain(), facts, "demand_entry", entry.name, "its facts")
        equal(entry.at, self._last.at, "demand_entry", entry.name, "its time")
        equal(dict(entry.net), {}, "demand_entry", entry.name, "what it posts")
        self._rules.demands = Demands([*self._rules.demands.all, self._last])

    def finish(self) -> None:
        """A step must have its entry."""
        require(self._waiting is None, "demand_entry", "the last step", "it has no journal entry")


def read_demand(line: Fields, keys: Mapping[str, PublicKey], name: str) -> Demand:
    """The signed step of a line with ``number``, ``digest``, ``document``, ``signatures``. Raises Wrong."""
    document = line.text("document").encode()
    equal(line.digest("digest"), canonical.digest(document), "demand_digest", name, "its digest")
    check_signatures(line, document, keys, "demand_signature")
    try:
        found = demand.read(document)
    except (Malformed, ValueError, KeyError, TypeError, AttributeError):
        raise Wrong("demand_malformed", name, "it does not have the documented form") from None
    equal(line.whole("number"), found.number, "demand_malformed", name, "its number")
    return found
