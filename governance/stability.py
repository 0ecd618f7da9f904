"""How stable the value of a CU is: figures of a series against the published targets, and the backtest (ECONOMICS 6.4).

Statistics, in floating point, for people to read. No amount is computed here: the values themselves come from
`settlement.core.value`, which is exact, also in the backtest. Volatility is the sample standard deviation of 30 daily
log returns times the root of 365.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from settlement.core.errors import Malformed
from settlement.core.value import Component, Fixing, IndexRules, first_fixing, next_fixing

Floats = npt.NDArray[np.float64]
SPAN = 30
YEAR = 365
START_VALUE = Fraction(45, 10_000)


@dataclass(frozen=True, slots=True)
class Figures:
    """Volatility and 30-day moves in percent at their 5th, 50th, 95th percentile and maximum; the gap, by which the
    value is off the basket in percent of the basket, as in ECONOMICS 6.4 (the breaker counts in percent of the
    value)."""

    days: int
    volatility: tuple[float, float, float, float]
    moves: tuple[float, float, float]
    gap: tuple[float, float]
    in_range: float
    below_half_of_bitcoin: float | None
    above_twice_the_stablecoin: float | None


@dataclass(frozen=True, slots=True)
class Target:
    """A published target, what was found, and whether it is met; None before there are days enough to say."""

    name: str
    wanted: str
    found: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Design:
    """One row of the backtest."""

    name: str
    figures: Figures
    values: Floats
    baskets: Floats


def volatility(values: Floats) -> Floats:
    """Percent a year, for each day that has 30 returns behind it."""
    returns = np.diff(np.log(values))
    if len(returns) < SPAN:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(returns, SPAN)
    return np.asarray(windows.std(axis=1, ddof=1) * math.sqrt(YEAR) * 100)


def figures(
    values: Floats, baskets: Floats, bitcoin: Floats | None = None, stablecoin: Floats | None = None
) -> Figures:
    """The figures of a daily series; `bitcoin` and `stablecoin` are prices on the same days."""
    sigma = volatility(values)
    moves = np.abs(values[SPAN:] / values[: len(values) - SPAN] - 1) * 100 if len(values) > SPAN else np.zeros(0)
    gaps = np.abs(values / baskets - 1) * 100
    return Figures(
        days=len(values),
        volatility=(_at(sigma, 5), _at(sigma, 50), _at(sigma, 95), _at(sigma, 100)),
        moves=(_at(moves, 50), _at(moves, 95), _at(moves, 100)),
        gap=(_at(gaps, 95), _at(gaps, 100)),
        in_range=_share((sigma >= 3) & (sigma <= 20)),
        below_half_of_bitcoin=None if bitcoin is None else _share(sigma < volatility(bitcoin) / 2),
        above_twice_the_stablecoin=None if stablecoin is None else _share(sigma > 2 * volatility(stablecoin)),
    )


def of_fixings(fixings: Sequence[Fixing], closes: Mapping[str, Mapping[date, Fraction]] | None = None) -> Figures:
    """The figures of fixings as they were made, the last one of each day; beside BTC and USDC where `closes` have all
    of those days."""
    days = {each.at.date(): each for each in fixings}
    beside = {name: _closes(name, days, closes or {}) for name in ("BTC", "USDC")}
    values, baskets = _floats(each.value for each in days.values()), _floats(each.basket for each in days.values())
    return figures(values, baskets, beside["BTC"], beside["USDC"])


def targets(found: Figures) -> list[Target]:
    """The published targets against the figures."""
    median, bitcoin, stablecoin = found.volatility[1], found.below_half_of_bitcoin, found.above_twice_the_stablecoin
    rows = [
        Target("volatility from 3 to 20 %", "on 99 % of days", f"{found.in_range:.1f} %", found.in_range >= 99),
        Target("median volatility", "5 to 10 %", f"{median:.1f} %", 5 <= median <= 10),
        Target("30-day move at p95", "at most 12 %", f"{found.moves[1]:.1f} %", found.moves[1] <= 12),
        Target("gap to the basket at p95", "at most 2 %", f"{found.gap[0]:.1f} %", found.gap[0] <= 2),
    ]
    if bitcoin is not None:
        rows.append(Target("less than half of bitcoin's", "on 99 % of days", f"{bitcoin:.1f} %", bitcoin >= 99))
    if stablecoin is not None:
        found_text = f"{stablecoin:.1f} %"
        rows.append(Target("more than twice a stablecoin's", "on most days", found_text, stablecoin >= 50))
    return [each if found.days >= _needs(each) else replace(each, found="", met=None) for each in rows]


def _needs(target: Target) -> int:
    """The days that a figure takes: a gap is of one day, all else of 30 days and the one before."""
    return 1 if target.name.startswith("gap") else SPAN + 1


def read_closes(path: Path) -> dict[str, dict[date, Fraction]]:
    """Daily closes in USD by asset, from CSV with the columns date, asset, close_usd; may be gzipped.

    Raises Malformed ``prices_unreadable``.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
        found: dict[str, dict[date, Fraction]] = {}
        for row in csv.DictReader(io.StringIO(text)):
            close = Fraction(row["close_usd"])
            if close <= 0:
                raise ValueError(f"a close of {row['asset']} is not above zero")
            found.setdefault(row["asset"], {})[date.fromisoformat(row["date"])] = close
    except (OSError, EOFError, zlib.error) as reason:
        raise Malformed("prices_unreadable", f"{path.name} can't be read: {reason}") from None
    except KeyError as missing:
        columns = "date, asset and close_usd"
        raise Malformed("prices_unreadable", f"{path.name} has no column {missing}; it needs {columns}") from None
    except (ValueError, TypeError, ArithmeticError) as reason:
        raise Malformed("prices_unreadable", f"{path.name} has no daily closes: {reason}") from None
    return found


def posted_prices(days: int, seed: int) -> list[Fraction]:
    """A simulated index of posted prices: it stands still for days and then steps, falling 3 % a year on the whole.

    No free daily history of such an index is at hand; first-party prices moved by 3.3 % a year, 22 times in 393 days.
    """
    random = np.random.default_rng(seed)
    steps = (random.random(days) < 0.1) * random.standard_t(3, days) * 0.004
    return _fractions(np.exp(np.cumsum(steps - 0.03 / YEAR)))


def machine_hours(days: int, seed: int) -> list[Fraction]:
    """A simulated price of a GPU-hour: 18 % volatility, falling 15 % a year, from 2.60 USD."""
    random = np.random.default_rng(seed + 1)
    return _fractions(2.6 * np.exp(np.cumsum(random.normal(-0.15 / YEAR, 0.18 / math.sqrt(YEAR), days))))


def run(
    series: Mapping[str, Sequence[Fraction]], dates: Sequence[date], rules: IndexRules, cap: Fraction | None = None
) -> list[Fixing]:
    """The exact index over days of prices. The breaker is off: a backtest looks at what the rule itself does.

    With a `cap` the value stays that close to what it was 30 days before. No policy can ask for one: see the gap.
    """
    rules = replace(rules, gap=Fraction(999, 1000))
    times = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in dates]
    fixings: list[Fixing] = []
    for number, at in enumerate(times):
        prices = {name: values[number] for name, values in series.items()}
        made = next_fixing(fixings[-1], prices, at, rules) if fixings else first_fixing(START_VALUE, prices, at, rules)
        if cap is not None and number >= SPAN:
            then = fixings[number - SPAN].value
            low, high = math.ceil(then * (1 - cap)), math.floor(then * (1 + cap))
            made = replace(made, value=min(max(made.value, low), high))
        fixings.append(made)
    return fixings


def backtest(closes: Mapping[str, Mapping[date, Fraction]], *, since: date, until: date, seed: int = 1) -> list[Design]:
    """The designs of ECONOMICS 6.4 that this code can be: real XRP, XLM and BTC, simulated prices and machine hours."""
    days = days_of(closes, since, until)
    if len(days) <= SPAN:
        raise Malformed("prices_unreadable", "the closes of BTC, XRP and XLM have too few days in common")
    series = {
        "TOK": posted_prices(len(days), seed),
        "GPU": machine_hours(len(days), seed),
        "XRP": [closes["XRP"][day] for day in days],
        "XLM": [closes["XLM"][day] for day in days],
    }
    bitcoin = np.array([float(closes["BTC"][day]) for day in days])
    stable = _closes("USDC", days, closes)
    open_rules = IndexRules(smoothing=1, band=Fraction(999, 1000), drift=Fraction(10**6))
    alone = replace(open_rules, components=(Component("TOK", Fraction(1)),))
    smoothed = replace(IndexRules(), drift=Fraction(10**6))
    less = replace(smoothed, components=_weights(65, 25, 5, 5))
    slow = replace(smoothed, smoothing=7, band=Fraction(1, 100))
    designs: list[tuple[str, IndexRules, Fraction | None]] = [
        ("posted prices alone", alone, None),
        ("60/25/15 raw", open_rules, None),
        ("60/25/15, EMA-3, +-1.5 %", smoothed, None),
        ("+ drift trigger +-50 %", IndexRules(), None),
        ("EMA-7, +-1 %, +-8 % in 30 days", slow, Fraction(8, 100)),
        ("10 % settlement coins", less, None),
    ]
    found = []
    for name, rules, cap in designs:
        chosen = {each.series: series[each.series] for each in rules.components}
        fixings = run(chosen, days, rules, cap)
        values, baskets = _floats(each.value for each in fixings), _floats(each.basket for each in fixings)
        found.append(Design(name, figures(values, baskets, bitcoin, stable), values, baskets))
    return found


def days_of(closes: Mapping[str, Mapping[date, Fraction]], since: date, until: date) -> list[date]:
    """The days that a backtest between two dates has."""
    common = set.intersection(*(set(closes[name]) for name in ("XRP", "XLM", "BTC")))
    return sorted(day for day in common if since <= day <= until)


def _closes(name: str, days: Iterable[date], closes: Mapping[str, Mapping[date, Fraction]]) -> Floats | None:
    known = closes.get(name, {})
    return np.array([float(known[day]) for day in days]) if all(day in known for day in days) else None


def _weights(*percent: int) -> tuple[Component, ...]:
    return tuple(
        replace(each, weight=Fraction(part, 100)) for each, part in zip(IndexRules().components, percent, strict=True)
    )


def _fractions(values: Floats) -> list[Fraction]:
    """Prices with twelve decimal places, as a source would post them."""
    return [Fraction(round(float(value) * 10**12), 10**12) for value in values]


def _floats(values: Iterable[int]) -> Floats:
    return np.array([float(value) for value in values])


def _at(values: Floats, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else 0.0


def _share(where: npt.NDArray[np.bool_]) -> float:
    return float(where.sum()) / max(len(where), 1) * 100
