"""The index: what 1 CU is worth in USD when it follows a basket, smoothed and banded (ECONOMICS 6.3).

    B = sum of q_k X_k,  q_k = w_k B / X_k at each review            the basket
    E = a B + (1 - a) E before,  a = 2 / (N + 1)                     smoothed
    V = E, but at most b away from V before                          banded: the value of a CU

All of it is exact: prices are fractions, and B, E and V are whole numbers of 10^-15 USD, B and E rounded half to even,
V rounded towards the value before. So everybody who has the prices has the value. A fixing that can't be trusted (a
source is missing, old, or contradicts the others; basket and value drifted apart twice) freezes the value and pauses
conversions; usage, which is in CU, goes on (docs/reference/value.md). Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil, floor

UNIT = 10**15
"""Parts of a USD in which values are counted."""


@dataclass(frozen=True, slots=True)
class Component:
    """A series of the basket and its part. `volatile` components cause a review when their part drifts too far."""

    series: str
    weight: Fraction
    volatile: bool = False


@dataclass(frozen=True, slots=True)
class IndexRules:
    """The index as policy states it. Defaults are those that the backtest of the design recommends."""

    components: tuple[Component, ...] = (
        Component("TOK", Fraction(60, 100)),
        Component("GPU", Fraction(25, 100)),
        Component("XRP", Fraction(75, 1000), volatile=True),
        Component("XLM", Fraction(75, 1000), volatile=True),
    )
    smoothing: int = 3
    """N: days over which the basket is smoothed."""
    band: Fraction = Fraction(15, 1000)
    """The most that the value moves from one fixing to the next."""
    review: timedelta = timedelta(days=91)
    drift: Fraction = Fraction(1, 2)
    """How far a volatile part may leave its weight, relative to it, before it is set anew."""
    gap: Fraction = Fraction(1, 20)
    """Basket against value: further apart at two fixings freezes the value."""
    stale: timedelta = timedelta(hours=24)
    contradiction: Fraction = Fraction(3, 100)
    """How far the lowest and the highest source of a series may differ."""
    sources: int = 3
    """How many sources each series needs."""
    spread: Fraction = Fraction(1, 400)
    """What a refund gives up; deposits pay nothing."""
    own_rate_for: timedelta = timedelta(hours=24)
    """How long unspent money comes back at no less than it was deposited at."""

    def __post_init__(self) -> None:
        if sum(each.weight for each in self.components) != 1 or min(each.weight for each in self.components) <= 0:
            raise ValueError("the parts of the basket are above zero and add up to 1")
        if len({each.series for each in self.components}) != len(self.components):
            raise ValueError("a series is in the basket once")
        if self.smoothing < 1 or self.sources < 1 or not 0 < self.band < 1 or not 0 < self.gap < 1:
            raise ValueError("smoothing and sources are at least 1, band and gap are between 0 and 1")
        if min(self.drift, self.contradiction) <= 0 or not 0 <= self.spread < 1:
            raise ValueError("drift and contradiction are above zero, the spread is from 0 to below 1")
        if min(self.review, self.stale) <= timedelta(0) or self.own_rate_for < timedelta(0):
            raise ValueError("a span of time is above zero")


@dataclass(frozen=True, slots=True)
class Observation:
    """What one source says that one unit of a series cost in USD at a time."""

    source: str
    series: str
    at: datetime
    usd: Fraction


@dataclass(frozen=True, slots=True)
class Fixing:
    """The index at a time. `basket`, `smoothed`, `value` count 10^-15 USD; `frozen` says why nothing is converted."""

    number: int
    at: datetime
    prices: Mapping[str, Fraction]
    quantities: Mapping[str, Fraction]
    reviewed_at: datetime
    basket: int
    smoothed: int
    value: int
    gaps: int = 0
    frozen: str | None = None

    @property
    def usd_per_cu(self) -> Fraction:
        """The value as a fraction of USD."""
        return Fraction(self.value, UNIT)


def median_prices(
    observations: Iterable[Observation], at: datetime, rules: IndexRules
) -> tuple[dict[str, Fraction], str | None]:
    """Each series' median over its sources' newest observations, and why they can't be trusted, if they can't.

    Reasons, in this order: ``sources_missing``, ``source_stale``, ``sources_differ``, with the series after a space.
    Observations from after `at` do not count.
    """
    newest: dict[str, dict[str, Observation]] = {each.series: {} for each in rules.components}
    for found in observations:
        by_source = newest.get(found.series)
        known = by_source.get(found.source) if by_source is not None else None
        if by_source is not None and found.at <= at and (known is None or found.at > known.at):
            by_source[found.source] = found
    prices: dict[str, Fraction] = {}
    reasons: list[str] = []
    for series, by_source in newest.items():
        posted = sorted(found.usd for found in by_source.values())
        if len(posted) < rules.sources:
            reasons.append(f"sources_missing {series}")
        elif min(found.at for found in by_source.values()) < at - rules.stale:
            reasons.append(f"source_stale {series}")
        elif posted[-1] - posted[0] > posted[0] * rules.contradiction:
            reasons.append(f"sources_differ {series}")
        if posted:
            middle = len(posted) // 2
            two = (posted[middle], posted[middle if len(posted) % 2 else middle - 1])
            prices[series] = sum(two) * Fraction(1, 2)
    return prices, min(reasons, key=_rank) if reasons else None


def first_fixing(value: Fraction, prices: Mapping[str, Fraction], at: datetime, rules: IndexRules) -> Fixing:
    """The index begins: the basket is bought at a value that policy states."""
    worth = round(value * UNIT)
    return Fixing(1, at, dict(prices), _quantities(worth, prices, rules), at, worth, worth, worth)


def next_fixing(
    last: Fixing,
    prices: Mapping[str, Fraction],
    at: datetime,
    rules: IndexRules,
    *,
    distrust: str | None = None,
    reset: bool = False,
) -> Fixing:
    """The fixing after `last`. With `distrust` (or a price missing) the value stays and is frozen for that reason.

    `reset` is the council's word: the basket is bought anew at the value that stands, which ends a freeze.
    """
    if distrust is not None or any(each.series not in prices for each in rules.components):
        reason = distrust or "sources_missing"
        return replace(last, number=last.number + 1, at=at, prices=dict(prices), frozen=reason)
    basket = round(sum(last.quantities[name] * prices[name] for name in last.quantities) * UNIT)
    alpha = Fraction(2, rules.smoothing + 1)
    smoothed = round(alpha * basket + (1 - alpha) * last.smoothed)
    if reset:
        fresh = _quantities(last.value, prices, rules)
        return Fixing(last.number + 1, at, dict(prices), fresh, at, last.value, last.value, last.value)
    gaps = last.gaps + 1 if abs(basket - last.value) > last.value * rules.gap else 0
    stuck = last.frozen is not None and last.frozen.startswith("gap")
    frozen = "gap between basket and value" if gaps >= 2 or stuck else None
    value = last.value if frozen else _banded(smoothed, last.value, rules.band)
    quantities, reviewed_at = dict(last.quantities), last.reviewed_at
    if at - reviewed_at >= rules.review or _drifted(quantities, prices, basket, rules):
        quantities, reviewed_at = _quantities(basket, prices, rules), at
    made = (last.number + 1, at, dict(prices), quantities, reviewed_at, basket, smoothed, value)
    return Fixing(*made, gaps=gaps, frozen=frozen)


def deposit_price(fixing: Fixing) -> Fraction:
    """USD for 1 CU that comes into being: the higher of the two, since smoothing makes the value predictable."""
    return Fraction(max(fixing.value, fixing.basket), UNIT)


def payout_price(fixing: Fixing) -> Fraction:
    """USD for 1 CU that a provider earned: the value itself."""
    return fixing.usd_per_cu


def refund_price(fixing: Fixing, rules: IndexRules) -> Fraction:
    """USD for 1 CU that a consumer takes out: the lower of value and basket, less the spread."""
    return Fraction(min(fixing.value, fixing.basket), UNIT) * (1 - rules.spread)


def _banded(smoothed: int, before: int, band: Fraction) -> int:
    return min(max(smoothed, ceil(before * (1 - band))), floor(before * (1 + band)))


def _quantities(worth: int, prices: Mapping[str, Fraction], rules: IndexRules) -> dict[str, Fraction]:
    """How much of each series the basket holds, so that it is worth that and its parts are the weights."""
    usd = Fraction(worth, UNIT)
    return {
        each.series: each.weight * usd * Fraction(prices[each.series].denominator, prices[each.series].numerator)
        for each in rules.components
    }


def _drifted(
    quantities: Mapping[str, Fraction], prices: Mapping[str, Fraction], basket: int, rules: IndexRules
) -> bool:
    for each in rules.components:
        part = quantities[each.series] * prices[each.series] * UNIT
        if each.volatile and abs(part - each.weight * basket) > each.weight * basket * rules.drift:
            return True
    return False


_REASONS: Sequence[str] = ("sources_missing", "source_stale", "sources_differ")


def _rank(reason: str) -> tuple[int, str]:
    return _REASONS.index(reason.partition(" ")[0]), reason
