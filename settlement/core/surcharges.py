"""Surcharges: what reserving without using costs, by a rule of the policy, and never before a notice.

What is measured is a consumer's day (UTC): the holds made in it, and those of them that ended `unused`, released or
expired with nothing captured. So many are free, and so large a share of all; each further one costs a fee. The first
day above that brings a notice; a day that begins after the notice's time, and before it lapses, is charged. Both are
entries of the journal (docs/reference/surcharges.md). Standard library only: the offline verifier asks the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from settlement.core.sections import Micro
from settlement.core.standing import day_of

DAY = timedelta(days=1)
MEASURED_AFTER = timedelta(hours=2)
"""How long after a day ends it is measured: longer than a hold lasts that nobody extends."""
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class SurchargeRules:
    """No fee at first: nothing is measured and nothing noticed."""

    free: int = 1_000
    """Unused holds of a day that cost nothing, however few others there were."""
    free_share: int = 500_000
    """Millionths of a day's holds that may end unused."""
    fee: Micro = 0
    """For each unused hold above the larger of the two, in microCU."""
    most: Micro = 222_222_222
    """The most that a day costs: 1 USD at the first value of a CU."""
    notice: timedelta = DAY
    lapses: timedelta = 30 * DAY
    """How long days are charged by one notice; after that there is another one first."""

    def __post_init__(self) -> None:
        if self.free < 0 or not 0 <= self.free_share <= MILLION or not 0 <= self.fee <= self.most:
            raise ValueError("free is not below 0, free_share 0 to 1000000, fee 0 to most")
        if not timedelta(hours=1) <= self.notice <= 30 * DAY or not DAY <= self.lapses <= 366 * DAY:
            raise ValueError("a notice is an hour to 30 days, and lapses after a day to 366 days")
        if self.lapses % DAY:
            raise ValueError("a notice lapses after whole days")

    def due(self, used: Day) -> int:
        """What a day costs, in microCU; 0 when it keeps to the rules."""
        free = max(self.free, used.holds * self.free_share // MILLION)
        return min(max(used.unused - free, 0) * self.fee, self.most)


@dataclass(frozen=True, slots=True)
class Day:
    """A consumer's day: the holds made in it, and those that ended unused."""

    begins: datetime
    holds: int
    unused: int

    @property
    def measured_at(self) -> datetime:
        """From when on it can be judged."""
        return self.begins + DAY + MEASURED_AFTER


@dataclass(frozen=True, slots=True)
class Notice:
    """Days that begin from `since` on, before `until`, are charged."""

    since: datetime
    until: datetime

    def covers(self, begins: datetime) -> bool:
        """Whether a day is charged by it."""
        return self.since <= begins < self.until


def noticed(at: datetime, rules: SurchargeRules) -> Notice:
    """The notice that is given at a time: from the first day on that begins when it is over."""
    over = at + rules.notice
    since = day_of(over) if over == day_of(over) else day_of(over) + DAY
    return Notice(since, since + rules.lapses)


def needs_notice(last: Notice | None, begins: datetime) -> bool:
    """Whether a day above the rules brings a notice, after the `last` one: it is neither waited for nor in force."""
    return last is None or last.until <= begins


def subject(consumer: str, begins: datetime) -> str:
    """The subject of the entries about a consumer's day."""
    return f"{consumer}/{begins:%Y-%m-%d}"
