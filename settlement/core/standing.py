"""A consumer's standing: a discount by what it was charged before, by tiers of the policy. Standard library only.

The volume that counts for a record is what its consumer was charged in windows that closed in a span before the
record's day (UTC), up to an hour before that day began. So it was settled before the day, is the same for whoever asks
later, and follows from earlier bills. A first tier from 0 on is a discount for whoever uses little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from settlement.core import multipliers
from settlement.core.multipliers import STANDING, Multiplier
from settlement.core.sections import Micro

MARGIN = timedelta(hours=1)
"""Before a day begins, its volumes are settled: more than any two clocks of ours differ."""


@dataclass(frozen=True, slots=True)
class VolumeTier:
    """From `volume` microCU on, charges are multiplied by `multiplier`."""

    volume: Micro
    multiplier: Fraction


@dataclass(frozen=True, slots=True)
class StandingRules:
    """No tiers at first: everybody pays the same. The last tier that is reached holds; below the first one, none."""

    span: timedelta = timedelta(days=30)
    tiers: tuple[VolumeTier, ...] = ()

    def __post_init__(self) -> None:
        if not timedelta(days=1) <= self.span <= timedelta(days=366):
            raise ValueError("a volume is that of a day to 366 days")
        volumes = [tier.volume for tier in self.tiers]
        if volumes != sorted(set(volumes)) or (volumes and volumes[0] < 0):
            raise ValueError("tiers ascend from 0 or more")
        for tier in self.tiers:
            if not 0 < tier.multiplier <= 1 or (tier.multiplier * multipliers.ONE).denominator != 1:
                raise ValueError("a tier's multiplier is above 0, at most 1, and a whole number of ten-thousandths")

    def multiplier(self, volume: int) -> int:
        """The multiplier of a volume in microCU, in ten-thousandths."""
        reached = [tier.multiplier for tier in self.tiers if tier.volume <= volume]
        return int(reached[-1] * multipliers.ONE) if reached else multipliers.ONE

    def counted(self, day: datetime) -> tuple[datetime, datetime]:
        """The first and the last time at which a window that counts for a day closed."""
        return day - self.span, day - MARGIN


@dataclass(frozen=True, slots=True)
class Day:
    """The rules of a day and the volumes that count for it, by consumer; who is not in it had none."""

    rules: StandingRules = field(default_factory=StandingRules)
    volumes: Mapping[str, int] = field(default_factory=dict)

    def multiplier(self, consumer: str) -> int:
        """A consumer's multiplier on that day, in ten-thousandths."""
        return self.rules.multiplier(self.volumes.get(consumer, 0))

    def multipliers(self, consumer: str) -> tuple[Multiplier, ...]:
        """The same as the last multiplier of a charge; none where it changes nothing."""
        value = self.multiplier(consumer)
        return () if value == multipliers.ONE else (Multiplier(STANDING, value),)


PLAIN = Day()
"""A day on which nobody's standing changes a charge."""


def day_of(at: datetime) -> datetime:
    """The beginning of the day (UTC) of a time."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)
