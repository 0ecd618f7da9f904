"""What a proposed rate table would have cost: past usage rated by the table in force and by the proposed one.

Both at par, so that what is compared is the tables and not what providers ask. Memory grows with the participants.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from settlement.core.assessment import RateBook, at_par
from settlement.core.rates import RateTable
from settlement.core.usage import UsageReport, decode

MOST_AFFECTED = 10
STEPS = (-50, -20, -5, 0, 5, 20, 50)
"""Bounds, in percent, of the classes that participants are counted in; who does not change has one of its own."""


@dataclass(slots=True)
class Bill:
    """One participant's usage in picoCU, by either table. `unrated` records the proposed table could not charge."""

    records: int = 0
    before: int = 0
    after: int = 0
    unrated: int = 0

    @property
    def change(self) -> int:
        """picoCU more, or less."""
        return self.after - self.before


@dataclass(slots=True)
class Impact:
    """Bills of consumers and of providers, and of all."""

    total: Bill = field(default_factory=Bill)
    consumers: dict[str, Bill] = field(default_factory=dict)
    providers: dict[str, Bill] = field(default_factory=dict)


class Replay:
    """Rates reports by two tables and adds them up."""

    def __init__(self, before: RateTable, after: RateTable) -> None:
        self._before, self._after = RateBook([before]), RateBook([after])
        self.impact = Impact()

    def add(self, report: UsageReport, refused: Iterable[int]) -> None:
        """Count a report's records but those that were `refused` when it came."""
        old, missing = at_par(report, self._before)
        new, unrated = at_par(report, self._after)
        out = {*refused, *missing}
        keep = np.ones(len(report.ids), bool)
        keep[list(out)] = False
        lost = np.zeros(len(report.ids), bool)
        lost[list(unrated)] = True
        names = np.array(report.consumers)
        for consumer in np.unique(names[keep]).tolist():
            lines = keep & (names == consumer)
            counted = Bill(int(lines.sum()), _sum(old[lines]), _sum(new[lines]), int((lines & lost).sum()))
            for bills, name in ((self.impact.consumers, consumer), (self.impact.providers, report.provider)):
                _add(bills.setdefault(name, Bill()), counted)
            _add(self.impact.total, counted)


class Counterfactual:
    """A party's records of a window: by the tables that they were charged by, and by another one, both at par."""

    def __init__(self, other: RateTable) -> None:
        self._other = other
        self._replays: dict[int, Replay] = {}
        self.charged = 0

    def add(self, table: RateTable, provider: str, records: Sequence[Mapping[str, Any]], pico: int) -> None:
        """Count records of one provider that `table` has rated, and that were charged `pico` picoCU together."""
        replay = self._replays.setdefault(table.version, Replay(table, self._other))
        body = {"v": 1, "provider": provider, "report": "again", "seq": 1, "prev": None, "records": list(records)}
        replay.add(decode(json.dumps(body).encode()), ())
        self.charged += pico

    @property
    def bill(self) -> Bill:
        """All of them together."""
        found = Bill()
        for replay in self._replays.values():
            _add(found, replay.impact.total)
        return found


def distribution(bills: Mapping[str, Bill]) -> list[dict[str, object]]:
    """How many participants' bills move by how much: below the first step, between steps, none, above the last."""
    edges: list[int | None] = [None, *STEPS, None]
    classes = [[0, below, above] for below, above in pairwise(edges)]
    same = 0
    for bill in bills.values():
        if bill.change == 0:
            same += 1
            continue
        for each in classes:
            below, above = each[1], each[2]
            over = below is None or bill.change * 100 > below * bill.before
            under = above is None or bill.change * 100 <= above * bill.before
            if over and under:
                each[0] += 1  # type: ignore[operator]
                break
    found: list[dict[str, object]] = [
        {"above_percent": below, "to_percent": above, "participants": count} for count, below, above in classes
    ]
    return [*found, {"above_percent": 0, "to_percent": 0, "participants": same}]


def most_affected(bills: Mapping[str, Bill]) -> list[tuple[str, Bill]]:
    """The participants whose bills move most in CU, either way, the largest first."""
    return sorted(bills.items(), key=lambda item: (-abs(item[1].change), item[0]))[:MOST_AFFECTED]


def _sum(values: np.ndarray) -> int:
    return sum(values.tolist())


def _add(bill: Bill, more: Bill) -> None:
    bill.records += more.records
    bill.before += more.before
    bill.after += more.after
    bill.unrated += more.unrated
