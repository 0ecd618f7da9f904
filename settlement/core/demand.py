"""Demand: a multiplier of a busy provider's charges, by what was charged of late and what it says that it can serve.

A provider that states its `capacity` in its offer takes part. Every step the service states, in a document that it
signs and that the journal names (``demand/1``), what each of them was charged since the step before, how much of its
capacity that is, and the multiplier that follows: by the policy's curve, between floor and cap, and no further from the
one before than the slew. A hold keeps the multiplier of its moment, and the record that names it is charged by it
(docs/reference/demand.md). Standard library only: the offline verifier makes every document again with this module.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from settlement.core import canonical, ids, multipliers, times
from settlement.core.multipliers import DEMAND, ONE, Multiplier
from settlement.core.offers import Offer

TYPE = "demand/1"
NOTICE = timedelta(minutes=5)
"""From the making of a document to the time in force: longer than any two clocks of ours differ, and than a commit."""
GOOD_FOR = 2
"""Steps after which a document that none has followed holds no more: then par is charged again."""
MILLION = 1_000_000
MOST = 10 * MILLION
"""The highest utilisation that is told apart, in millionths."""
HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class DemandPoint:
    """At so many millionths of its capacity a provider's charges are multiplied by so much."""

    utilisation: int
    multiplier: Fraction


@dataclass(frozen=True, slots=True)
class DemandRules:
    """No curve at first: demand changes no charge. Between two points the multiplier is on the line between them."""

    step: timedelta = HOUR
    floor: Fraction = Fraction(1)
    cap: Fraction = Fraction(1)
    slew: Fraction = Fraction(1, 20)
    """By how much the multiplier changes in one step at most."""
    curve: tuple[DemandPoint, ...] = ()

    def __post_init__(self) -> None:
        if not 2 * NOTICE <= self.step <= timedelta(days=1):
            raise ValueError("a step is 10 minutes to a day")
        if not Fraction(1, 100) <= self.floor <= 1 <= self.cap <= 10 or not 0 < self.slew <= 1:
            raise ValueError("floor and cap contain 1 and lie between 1/100 and 10, and the slew is above 0, at most 1")
        values = [self.floor, self.cap, self.slew, *(point.multiplier for point in self.curve)]
        if any((value * ONE).denominator != 1 for value in values):
            raise ValueError("a multiplier is a whole number of ten-thousandths")
        rising = all(one.utilisation < two.utilisation for one, two in pairwise(self.curve))
        if not rising or any(one.multiplier > two.multiplier for one, two in pairwise(self.curve)):
            raise ValueError("the points of the curve ascend, and its multipliers don't fall")
        if any(not 0 <= point.utilisation <= MOST or point.multiplier <= 0 for point in self.curve):
            raise ValueError("a utilisation is 0 to 10,000,000 millionths, a multiplier above 0")

    def wanted(self, utilisation: int) -> int:
        """The multiplier of the curve, in ten-thousandths, rounded down between points."""
        points = [(point.utilisation, int(point.multiplier * ONE)) for point in self.curve]
        if not points or utilisation <= points[0][0]:
            return points[0][1] if points else ONE
        for (low, least), (high, most) in pairwise(points):
            if utilisation <= high:
                return least + (most - least) * (utilisation - low) // (high - low)
        return points[-1][1]

    def following(self, before: int, utilisation: int) -> int:
        """The multiplier that follows `before` at a utilisation."""
        floor, cap, slew = (int(value * ONE) for value in (self.floor, self.cap, self.slew))
        near = min(max(self.wanted(utilisation), before - slew), before + slew)
        return min(max(near, floor), cap)


@dataclass(frozen=True, slots=True)
class Load:
    """A provider's step: microCU charged since the step before, its capacity in microCU an hour, and what follows."""

    charged: int
    capacity: int
    utilisation: int
    multiplier: int


@dataclass(frozen=True, slots=True)
class Demand:
    """One step: in force from `effective_from` until the next one's, and not after `until`."""

    number: int
    parent: str | None
    at: datetime
    effective_from: datetime
    until: datetime
    providers: Mapping[str, Load] = field(default_factory=dict)

    def multiplier(self, provider: str) -> int:
        """A provider's multiplier in ten-thousandths."""
        load = self.providers.get(provider)
        return ONE if load is None else load.multiplier

    def document(self) -> bytes:
        """The canonical bytes that are stored, digested and signed."""
        return canonical.encode(
            {
                "type": TYPE,
                "number": self.number,
                "parent": self.parent,
                "at": times.text(self.at),
                "effective_from": times.text(self.effective_from),
                "until": times.text(self.until),
                "providers": {
                    name: {
                        "charged": str(load.charged),
                        "capacity": str(load.capacity),
                        "utilisation": load.utilisation,
                        "multiplier": multipliers.to_text(load.multiplier),
                    }
                    for name, load in self.providers.items()
                },
            }
        )


def read(document: bytes) -> Demand:
    """The step of a document that this module wrote. Raises KeyError, TypeError, ValueError or Malformed else."""
    found = json.loads(document)
    if found["type"] != TYPE:
        raise ValueError(f"it is no {TYPE}")
    return Demand(
        number=found["number"],
        parent=found["parent"],
        at=times.parse(found["at"]),
        effective_from=times.parse(found["effective_from"]),
        until=times.parse(found["until"]),
        providers={
            name: Load(
                int(load["charged"]),
                int(load["capacity"]),
                load["utilisation"],
                multipliers.parse(load["multiplier"]),
            )
            for name, load in found["providers"].items()
        },
    )


def made(
    last: Demand | None,
    parent: str | None,
    at: datetime,
    rules: DemandRules,
    charged: Mapping[str, int],
    offers: Mapping[str, Offer],
) -> Demand:
    """The step at a time, after `last` with the digest `parent`: by what was `charged` since and the `offers`.

    The first step measures nothing and multiplies nothing. `at` is whole seconds, later than `last`.
    """
    providers = {}
    for name, offer in offers.items():
        if last is not None and offer.capacity is not None:
            before, seconds = last.multiplier(name), (at - last.at) // _SECOND
            effort = charged.get(name, 0) * ONE // before
            utilisation = min(effort * MILLION * (HOUR // _SECOND) // (offer.capacity * seconds), MOST)
            multiplier = rules.following(before, utilisation)
            providers[name] = Load(charged.get(name, 0), offer.capacity, utilisation, multiplier)
    return Demand(
        number=1 if last is None else last.number + 1,
        parent=parent,
        at=at,
        effective_from=at + NOTICE,
        until=at + NOTICE + GOOD_FOR * rules.step,
        providers=providers,
    )


class Demands:
    """Steps by the time from which they are in force."""

    def __init__(self, steps: Sequence[Demand] = ()) -> None:
        self.all = tuple(sorted(steps, key=lambda step: step.effective_from))
        self._starts = [step.effective_from for step in self.all]

    def at(self, at: datetime) -> Demand | None:
        """The step in force at a time; None when there is none, or it has run out."""
        place = bisect_right(self._starts, at)
        step = self.all[place - 1] if place else None
        return step if step is not None and at < step.until else None

    def multiplier(self, provider: str, at: datetime | None) -> int:
        """A provider's multiplier at a time, in ten-thousandths; 1 without a time."""
        step = None if at is None else self.at(at)
        return ONE if step is None else step.multiplier(provider)


NO_DEMAND = Demands()
"""Demand multiplies nothing."""


def moment(hold: str | None) -> datetime | None:
    """When a hold was made, by its id; None without one, and for text that is no hold's id."""
    try:
        return None if hold is None else ids.made_at(hold)
    except ValueError:
        return None


def as_multipliers(value: int) -> tuple[Multiplier, ...]:
    """A multiplier of demand as one of a charge: none at 1."""
    return () if value == ONE else (Multiplier(DEMAND, value),)
