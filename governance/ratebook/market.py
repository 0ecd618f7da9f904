"""The market method (ECONOMICS 5.3): a model's rate is the median posted price of its hosts, in compute units.

All arithmetic is on exact fractions; one rounding, half to even, at the end. A meter that a host doesn't price costs
there what its parent costs, so a host without a cache discount counts with its input price and the median of a subset
follows the hosts' own terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, time
from fractions import Fraction

from governance.ratebook.catalogue import Dated, Listing, Price
from governance.ratebook.meters import METERS, MILLION

STANDARD = "standard"
_DAY = 24 * 60 * 60 * MILLION

Prices = Mapping[str, Price]


def in_force(candidates: Sequence[Dated], as_of: datetime) -> Prices:
    """The prices that hold at ``as_of``: the last candidate whose start date has come, else the first.

    Where prices depend on the time of day, those that hold for the longest part of the day are taken, the earlier
    candidate on a tie: a rate table of version 1 has no hours.
    """
    share: dict[int, int] = {}
    cuts = sorted({0, *(_micros(clock) for candidate in candidates for clock in candidate.hours or ())})
    for start, end in zip(cuts, [*cuts[1:], _DAY], strict=True):
        chosen = 0
        for index, candidate in enumerate(candidates):
            if _holds(candidate, as_of, start):
                chosen = index
        share[chosen] = share.get(chosen, 0) + end - start
    return candidates[max(sorted(share), key=lambda index: share[index])].prices


def has_hours(listing: Listing) -> bool:
    """Whether the listing's prices depend on the time of day."""
    return any(dated.hours for dated in (*listing.candidates, *(variant.dated for variant in listing.variants)))


def tiers_of(listing: Listing, as_of: datetime) -> dict[str, Prices]:
    """The listing's prices at ``as_of`` by service tier; a tier's own prices replace the standard ones they name.

    Tier prices that hold only for some hours of the day are left out.
    """
    standard = in_force(listing.candidates, as_of)
    own: dict[str, dict[str, Price]] = {}
    for variant in listing.variants:
        if variant.dated.hours is None and _holds(variant.dated, as_of, 0):
            for meter, price in variant.dated.prices.items():
                own.setdefault(variant.tier, {}).setdefault(meter, price)
    return {STANDARD: standard} | {tier: {**standard, **prices} for tier, prices in own.items()}


def thresholds(hosts: Sequence[Prices]) -> list[int]:
    """Where any host's price changes with the length of the prompt, ascending from 0."""
    return sorted({0, *(start for prices in hosts for price in prices.values() for start, _ in price.steps)})


def median_prices(hosts: Sequence[Prices], above: int) -> dict[str, Fraction]:
    """USD per million units of each meter that some host prices, for requests above that many input tokens."""
    found = {}
    for meter in METERS:
        if any(meter in prices for prices in hosts):
            posted = [price for prices in hosts if (price := effective(prices, meter, above)) is not None]
            found[meter] = median(posted)
    return found


def effective(prices: Prices, meter: str, above: int) -> Fraction | None:
    """The meter's own price or that of the nearest meter above it that has one; None if none has."""
    for name in lineage(meter):
        if name in prices:
            return prices[name].above(above)
    return None


def lineage(meter: str) -> Iterator[str]:
    """The meter, its parent, and so on to the root."""
    name: str | None = meter
    while name is not None:
        yield name
        name = METERS[name][0]


def median(values: Sequence[Fraction]) -> Fraction:
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) * Fraction(1, 2)


def rate_of(usd_per_million: Fraction, usd_per_cu: Fraction) -> int:
    """microCU per million units: USD per million over USD per CU, in millionths, rounded half to even."""
    return round(usd_per_million * MILLION * Fraction(usd_per_cu.denominator, usd_per_cu.numerator))


def _holds(candidate: Dated, as_of: datetime, moment: int) -> bool:
    if candidate.start_date is not None and as_of.date() < candidate.start_date:
        return False
    if candidate.hours is None:
        return True
    start, end = (_micros(clock) for clock in candidate.hours)
    return start <= moment < end if start <= end else moment >= start or moment < end


def _micros(clock: time) -> int:
    return ((clock.hour * 60 + clock.minute) * 60 + clock.second) * MILLION + clock.microsecond
