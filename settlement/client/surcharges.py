"""Surcharges held to their rules: each above what was free, after a notice in time, once, and for no more than is due.

How many holds there were is in no export: the figures are the service's word, which the consumer compares with its own.
"""

from __future__ import annotations

from datetime import datetime

from settlement.client.books import CU, EntryLine, legs
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.rules import Rules
from settlement.core import surcharges
from settlement.core.standing import day_of
from settlement.core.surcharges import Day, Notice, SurchargeRules

FIGURES = frozenset({"day", "holds", "unused", "due"})


class Surcharges:
    """Notices and charges in the order of the journal."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._notices: dict[str, Notice] = {}

    def notice(self, entry: EntryLine) -> None:
        """A ``surcharge_noticed``: posts nothing, and says from when days are charged."""
        consumer, day, rules = self._day(entry, FIGURES | {"since", "until"})
        equal(dict(entry.net), {}, "surcharge_postings", entry.name, "what it posts")
        notice = surcharges.noticed(entry.at, rules)
        stated = Notice(entry.facts.time("since"), entry.facts.time("until"))
        equal(stated, notice, "surcharge_notice", entry.name, "the days that it is about")
        needed = surcharges.needs_notice(self._notices.get(consumer), day.begins)
        require(needed, "surcharge_notice", entry.name, "a notice before it holds still, or is waited for")
        self._notices[consumer] = notice

    def book(self, entry: EntryLine) -> None:
        """A ``surcharge``: of a day that a notice covers, at most what is due."""
        consumer, day, rules = self._day(entry, FIGURES)
        notice = self._notices.get(consumer)
        covered = notice is not None and notice.covers(day.begins)
        require(covered, "surcharge_notice", entry.name, "no notice covers its day")
        amount = -entry.net.get((consumer, CU), 0)
        require(0 < amount <= rules.due(day), "surcharge_due", entry.name, f"it takes {amount} microCU")
        expected = legs((consumer, CU, -amount), (f"fees/{CU}", CU, amount))
        equal(dict(entry.net), expected, "surcharge_postings", entry.name, "what it posts")

    def _day(self, entry: EntryLine, members: frozenset[str]) -> tuple[str, Day, SurchargeRules]:
        equal(set(entry.facts), set(members), "surcharge_facts", entry.name, "its facts")
        consumer, policy = entry.subject.partition("/")[0], self._rules.policy_at(entry.facts.time("day"))
        if policy is None:
            raise Wrong("policy_missing", entry.name, "no policy was in force then")
        day = judged(entry.facts, entry.at, policy[0].surcharge, entry.name)
        equal(entry.subject, surcharges.subject(consumer, day.begins), "surcharge_facts", entry.name, "its subject")
        return consumer, day, policy[0].surcharge


def judged(facts: Fields, at: datetime, rules: SurchargeRules, name: str) -> Day:
    """The day of a notice's or charge's figures, which must be above the rules and over. Raises Wrong."""
    day = Day(facts.time("day"), facts.whole("holds"), facts.whole("unused"))
    whole = day.begins == day_of(day.begins) and day.unused <= day.holds and at >= day.measured_at
    require(whole, "surcharge_facts", name, "it is not a day that was over, or more holds were unused than made")
    equal(facts.amount("due"), rules.due(day), "surcharge_due", name, "what is due")
    require(rules.due(day) > 0, "surcharge_due", name, "nothing is due")
    return day
