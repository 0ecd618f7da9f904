"""One service tier of a model in a rate table: its bands of rates, its hours of the day, the least that a record costs.

Standard library only: the offline verifier parses tables with this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from settlement.core import multipliers
from settlement.core.fields import NAME, Reader

MAX_RATE = 10**13
"""The largest rate that a table may hold: 10 CU a unit. Larger figures are slips, not prices."""
PER_REQUEST = "requests"
"""The meter that is implied: one unit a record, never reported."""
CONTEXT_METER = "input_tokens"
"""The meter whose total selects the context band of a record."""
DAY = 24 * 60
"""Minutes."""

READ = Reader("rate table", "rate_table_malformed")
"""How every part of a rate table is read."""

_CONTEXT = re.compile("whole|excess")
_CLOCK = re.compile("([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True)
class Meter:
    """One countable thing. ``parent`` is the meter whose units contain these, or None."""

    name: str
    parent: str | None
    unit: str


@dataclass(frozen=True, slots=True)
class Band:
    """The rates of a record whose total input tokens are above ``above_input_tokens`` (the first band: any total).

    ``rates`` holds a meter's own rate only; a meter without one costs what its parent costs.
    """

    above_input_tokens: int
    rates: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of every UTC day, in minutes after midnight, half-open; when `since` is not before `until` it contains
    midnight. `multiplier` counts ten-thousandths.
    """

    since: int
    until: int
    multiplier: int

    def spans(self) -> tuple[tuple[int, int], ...]:
        """The same minutes as spans that don't contain midnight."""
        if self.since < self.until:
            return ((self.since, self.until),)
        return tuple(span for span in ((self.since, DAY), (0, self.until)) if span[0] < span[1])


@dataclass(frozen=True, slots=True)
class Tier:
    """One service tier of a model. The bands ascend from 0.

    Without `excess` the record's whole charge is by the band that its input selects, and all bands price the same
    meters. With `excess`, further bands price `input_tokens` alone, ever dearer, and only the units of its total above
    a band's threshold pay the difference to the band before. `minimum` is the least that a record costs, in picoCU.
    """

    bands: tuple[Band, ...]
    excess: bool = False
    minimum: int = 0
    hours: tuple[Hours, ...] = ()

    def multiplier_at(self, at: datetime) -> int:
        """The multiplier of the time of day, in ten-thousandths."""
        minute = at.hour * 60 + at.minute
        for part in self.hours:
            if any(since <= minute < until for since, until in part.spans()):
                return part.multiplier
        return multipliers.ONE


def read_tier(value: object, at: str, meters: Mapping[str, Meter]) -> Tier:
    """The tier at the pointer `at` of a rate table with these meters. Raises Malformed ``rate_table_malformed``."""
    fields = READ.members(value, at, ("bands",), ("context", "hours", "minimum"))
    excess = READ.text(fields.get("context", "whole"), f"{at}/context", _CONTEXT) == "excess"
    return Tier(
        bands=_bands(fields["bands"], at, meters, excess=excess),
        excess=excess,
        minimum=READ.whole(fields.get("minimum", 0), f"{at}/minimum"),
        hours=_hours(fields["hours"], f"{at}/hours") if "hours" in fields else (),
    )


def _bands(value: object, at: str, meters: Mapping[str, Meter], *, excess: bool) -> tuple[Band, ...]:
    bands: list[Band] = []
    for index, item in enumerate(READ.items(value, f"{at}/bands")):
        place = f"{at}/bands/{index}"
        fields = READ.members(item, place, ("above_input_tokens", "rates"))
        above = READ.whole(fields["above_input_tokens"], f"{place}/above_input_tokens")
        if (above <= bands[-1].above_input_tokens) if bands else above != 0:
            READ.refuse(f"{place}/above_input_tokens", "must start at 0 and ascend")
        rates = READ.each(fields["rates"], f"{place}/rates", NAME, _rate)
        for meter in rates:
            _priced_from_its_root(meter, rates, meters, f"{place}/rates/{meter}")
        if bands:
            _follows(rates, bands, f"{place}/rates", excess=excess)
        bands.append(Band(above, rates))
    if len(bands) > 1 and (CONTEXT_METER not in meters or meters[CONTEXT_METER].parent is not None):
        READ.refuse(f"{at}/bands", f"needs {CONTEXT_METER} as a meter without a parent")
    return tuple(bands)


def _follows(rates: Mapping[str, int], before: Sequence[Band], at: str, *, excess: bool) -> None:
    """What a further band may price, after the bands `before` it."""
    if not excess and rates.keys() != before[0].rates.keys():
        READ.refuse(at, "must price the same meters as the first band")
    if excess and rates.keys() != {CONTEXT_METER}:
        READ.refuse(at, f"must price {CONTEXT_METER} alone: only the excess costs more")
    if excess and rates[CONTEXT_METER] < before[-1].rates.get(CONTEXT_METER, MAX_RATE + 1):
        READ.refuse(f"{at}/{CONTEXT_METER}", "must not fall below that of the band before")


def _hours(value: object, at: str) -> tuple[Hours, ...]:
    """Parts of the day that don't overlap; minutes in none of them have the multiplier 1."""
    parts: list[Hours] = []
    taken: set[int] = set()
    for index, item in enumerate(READ.items(value, at)):
        place = f"{at}/{index}"
        fields = READ.members(item, place, ("from", "multiplier", "until"))
        since, until = (_clock(fields[name], f"{place}/{name}") for name in ("from", "until"))
        text = READ.text(fields["multiplier"], f"{place}/multiplier", multipliers.TEXT)
        multiplier = multipliers.parse(text)
        if not 0 < multiplier <= multipliers.MAX_MULTIPLIER or multipliers.to_text(multiplier) != text:
            READ.refuse(f"{place}/multiplier", "must be above 0, at most 100, and without zeros at its end")
        part = Hours(since, until, multiplier)
        minutes = {minute for span in part.spans() for minute in range(*span)}
        if since == until or minutes & taken:
            READ.refuse(place, "is empty or overlaps an earlier part of the day")
        taken |= minutes
        parts.append(part)
    return tuple(parts)


def _clock(value: object, at: str) -> int:
    text = READ.text(value, at, _CLOCK)
    return int(text[:2]) * 60 + int(text[3:])


def _priced_from_its_root(meter: str, rates: Mapping[str, int], meters: Mapping[str, Meter], at: str) -> None:
    if meter not in meters:
        READ.refuse(at, "is not a meter of this table")
    root = meters[meter]
    while root.parent is not None:
        root = meters[root.parent]
    if root.name not in rates:
        READ.refuse(at, f"is priced although {root.name}, which contains it, is not")


def _rate(_name: str, value: object, at: str) -> int:
    return READ.whole(value, at, MAX_RATE)
