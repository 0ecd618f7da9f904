"""What each record of a report costs, exactly, or why it can't be charged: all that the report alone can tell.

Pure, and done before any lock is taken; `charging` then looks at the consumers' balances. A record is refused by itself
and the rest of the report stands. The order of checks is the order of `assess`; the first rule broken is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from settlement.core import columns, multipliers, rating
from settlement.core.captures import HoldTerms, named_holds
from settlement.core.ids import micros
from settlement.core.linear import LinearForm, linear_form
from settlement.core.offers import Offers
from settlement.core.rates import RateTable
from settlement.core.standing import Day
from settlement.core.tiers import DAY, Hours
from settlement.core.usage import UsageReport

OLDEST = timedelta(days=35)
"""How long after `at` a record may still arrive."""
AHEAD = timedelta(minutes=5)
"""How far a provider's clock may run ahead of ours."""
ID_TIME_TOLERANCE = timedelta(minutes=1)
RATING_REFUSALS = {
    "unknown_model": "the rate table has no such model or alias",
    "unknown_tier": "the rate table has no such tier for this model",
    "unknown_meter": "the rate table has no such meter",
    "unpriced_meter": "the model has no rate for this meter",
    "subset_above_whole": "the parts of this meter are more than the whole",
    "charge_too_large": "the charge is more than the books can hold",
}

NO_OFFERS = Offers()
"""Par is asked for everything."""
Integers = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class RecordRefusal:
    """Why the record at `line` was not charged."""

    line: int
    code: str
    detail: str


class RateBook:
    """All rate tables by the time from which they are in force, with what was compiled from them."""

    def __init__(self, tables: Sequence[RateTable]) -> None:
        self.tables = tuple(sorted(tables, key=lambda table: table.effective_from))
        self.places = {table.version: place for place, table in enumerate(self.tables)}
        self.starts = np.array([micros(table.effective_from) for table in self.tables], np.int64)
        self._compiled: dict[tuple[int, str, str], rating.CompiledModel | rating.Refusal] = {}
        self._forms: dict[tuple[int, str, str, tuple[str, ...]], LinearForm | rating.Refusal] = {}

    def compiled(self, index: int, model: str, tier: str) -> rating.CompiledModel | rating.Refusal:
        """The linear form of one model and tier in table number `index` of `tables`."""
        key = (index, model, tier)
        found = self._compiled.get(key)
        if found is None:
            found = rating.compile_model(self.tables[index], model, tier)
            if len(self._compiled) < 100_000:  # names come from outside; a cache must not grow with them
                self._compiled[key] = found
        return found

    def form(self, index: int, model: str, tier: str, meters: tuple[str, ...]) -> LinearForm | rating.Refusal:
        """The same for records that name just these meters, in this order."""
        key = (index, model, tier, meters)
        found = self._forms.get(key)
        if found is None:
            compiled = self.compiled(index, model, tier)
            found = compiled if isinstance(compiled, rating.Refusal) else linear_form(compiled, meters)
            if len(self._forms) < 10_000:
                self._forms[key] = found
        return found


@dataclass(frozen=True, slots=True)
class Assessed:
    """A report's records as columns. `pico` is zero where `refusals` has the line; `holds` are named by line."""

    ids: columns.Bytes
    at: Integers
    pico: Integers
    versions: Small
    consumers: tuple[str, ...]
    consumer_codes: Small
    models: tuple[str, ...]
    model_codes: Small
    refusals: dict[int, RecordRefusal]
    holds: Mapping[int, str] = field(default_factory=dict)


def assess(
    report: UsageReport,
    book: RateBook,
    now: datetime,
    asked: Offers = NO_OFFERS,
    holds: Mapping[str, HoldTerms] = MappingProxyType({}),
    days: Mapping[datetime, Day] = MappingProxyType({}),
) -> Assessed:
    """Check and rate every record of `report` as of `now`, by the tables and by what its provider asked for.

    `days` have the consumers' standings, by the beginning of the day of each record that is not refused. A record is
    rated by version and demand of its hold, one of `holds`. Raises Malformed for ids and times that are none.
    """
    ids, id_milliseconds = columns.uuid7_column(report.ids)
    at = columns.time_column(report.at)
    refusals: dict[int, RecordRefusal] = {}
    _refuse_times(refusals, at, id_milliseconds, now)
    _refuse_repeated(refusals, report.ids)
    held, not_held = named_holds(report, holds, lambda version: book.tables[book.places[version]])
    for line, why in not_held.items():
        refusals.setdefault(line, RecordRefusal(line, *why))
    tables = np.searchsorted(book.starts, at, side="right") - 1
    for line, name in held.items():
        tables[line] = book.places[holds[name].rates]
    refuse(refusals, tables < 0, "rates_not_in_force", "no rate table was in force at that time")
    versions = np.array([table.version for table in book.tables] or [0], np.int32)[tables]
    _refuse_quoted(refusals, report, versions)
    models, model_codes = columns.coded(report.models)
    demands = {line: holds[name].demand for line, name in held.items() if holds[name].demand != multipliers.ONE}
    pico = _rate(refusals, report, at, tables, (models, model_codes), book, asked, demands)
    consumers, consumer_codes = columns.coded(report.consumers)
    pico = _as_they_stand(pico, at, consumers, consumer_codes, days)
    return Assessed(ids, at, pico, versions, consumers, consumer_codes, models, model_codes, refusals, held)


def at_par(report: UsageReport, table: RateBook) -> tuple[Integers, dict[int, RecordRefusal]]:
    """What every record would cost by the one table of `table`, whenever it was, at par; and what it can't charge."""
    refusals: dict[int, RecordRefusal] = {}
    only = np.zeros(len(report.ids), np.int64)
    models = columns.coded(report.models)
    return _rate(refusals, report, columns.time_column(report.at), only, models, table, NO_OFFERS), refusals


def refuse(refusals: dict[int, RecordRefusal], wrong: npt.NDArray[np.bool_], code: str, detail: str) -> None:
    """Refuse every line that `wrong` marks, unless it is refused already."""
    for line in np.flatnonzero(wrong).tolist():
        refusals.setdefault(line, RecordRefusal(line, code, detail))


def _refuse_times(refusals: dict[int, RecordRefusal], at: Integers, id_milliseconds: Integers, now: datetime) -> None:
    present = micros(now)
    minute = ID_TIME_TOLERANCE // timedelta(microseconds=1)
    ahead, oldest = AHEAD // timedelta(microseconds=1), OLDEST // timedelta(microseconds=1)
    refuse(refusals, at > present + ahead, "time_in_future", "`at` is more than 5 minutes ahead of our clock")
    refuse(refusals, at < present - oldest, "time_too_old", "`at` is more than 35 days ago")
    apart = np.abs(id_milliseconds * 1_000 - at) > minute
    refuse(refusals, apart, "id_time_mismatch", "the time in the id and `at` are more than a minute apart")


def _refuse_repeated(refusals: dict[int, RecordRefusal], ids: Sequence[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    for line, key in enumerate(ids):
        if key in seen:
            refusals.setdefault(line, RecordRefusal(line, "duplicate_record", "an earlier line has the same id"))
        seen.add(key)


def _refuse_quoted(refusals: dict[int, RecordRefusal], report: UsageReport, versions: Small) -> None:
    if report.rates.count(UNSET) == len(report.rates):
        return
    for line, (quoted, version) in enumerate(zip(report.rates, versions.tolist(), strict=True)):
        if quoted is not UNSET and quoted != str(version):
            detail = f"the version that holds for this record is {version}"
            refusals.setdefault(line, RecordRefusal(line, "rates_mismatch", detail))


def _rate(
    refusals: dict[int, RecordRefusal],
    report: UsageReport,
    at: Integers,
    tables: Integers,
    models: tuple[tuple[str, ...], Small],
    book: RateBook,
    asked: Offers,
    demands: Mapping[int, int] = MappingProxyType({}),
) -> Integers:
    """Exact picoCU of every record.

    Those of one table, model, tier and row of meters together, one matrix times one vector; `demands` go by line.
    """
    pico = np.zeros(len(report.ids), np.int64)
    starts = _starts(report)
    for (table, model, tier, meters), lines in _alike(report, tables, models):
        if table < 0:
            continue
        form = book.form(table, model, tier, meters)
        if isinstance(form, rating.Refusal):
            _refuse_alike(refusals, lines, form)
            continue
        given = report.units[starts[lines][:, np.newaxis] + np.arange(len(meters))]
        _refuse_units(refusals, lines, form, given)
        found = form.charges(given)
        if form.compiled.hours:
            found = _at_its_hour(found, at[lines], form.compiled.hours)
        pico[lines] = _as_asked(found, at[lines], asked, form.compiled) if asked.all else found
    if demands:
        busy = list(demands)
        pico[busy] = columns.multiplied(pico[busy], np.array(list(demands.values()), np.int64))
    if rating.FREE_OUTCOME in report.outcomes:
        pico[[outcome == rating.FREE_OUTCOME for outcome in report.outcomes]] = 0
    _refuse_alike(refusals, np.flatnonzero(pico < 0), rating.Refusal("charge_too_large"))
    pico[list(refusals)] = 0
    return pico


def _starts(report: UsageReport) -> Integers:
    """Where each record's units begin."""
    counts = np.array([len(names) for names in report.meter_sets], np.int64)[report.meter_set_codes]
    return np.cumsum(counts) - counts


def _alike(
    report: UsageReport, tables: Integers, models: tuple[tuple[str, ...], Small]
) -> Iterator[tuple[tuple[int, str, str, tuple[str, ...]], Integers]]:
    """The lines of each table, model, tier and row of meters that occur together."""
    tiers, tier_codes = columns.coded(report.tiers)
    sizes = (len(models[0]), len(tiers), len(report.meter_sets))
    keys = tables
    for size, codes in zip(sizes, (models[1], tier_codes, report.meter_set_codes), strict=True):
        keys = keys * size + codes
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    for lines in np.split(order, ends):
        line = int(lines[0])
        yield (int(tables[line]), report.models[line], report.tiers[line], tuple(report.meters[line])), lines


def _refuse_alike(refusals: dict[int, RecordRefusal], lines: Integers, refusal: rating.Refusal) -> None:
    about = f" ({refusal.meter})" if refusal.meter else ""
    for line in lines.tolist():
        refusals.setdefault(line, RecordRefusal(line, refusal.code, RATING_REFUSALS[refusal.code] + about))


def _refuse_units(refusals: dict[int, RecordRefusal], lines: Integers, form: LinearForm, given: Integers) -> None:
    """Refuse units without a price, and parts that are more than their whole."""
    for column in form.unpriced:
        refusal = rating.Refusal("unpriced_meter", form.meters[column])
        _refuse_alike(refusals, lines[given[:, column] > 0], refusal)
    for name, whole, parts in form.subsets:
        above = given[:, parts].sum(axis=1) > (0 if whole is None else given[:, whole])
        if above.any():
            _refuse_alike(refusals, lines[above], rating.Refusal("subset_above_whole", name))


def _at_its_hour(charges: Integers, at: Integers, hours: Sequence[Hours]) -> Integers:
    """The charges after the multiplier of each record's time of day."""
    minutes = at // 60_000_000 % DAY
    values = np.full(len(charges), multipliers.ONE, np.int64)
    for part in hours:
        for since, until in part.spans():
            values[(since <= minutes) & (minutes < until)] = part.multiplier
    return columns.multiplied(charges, values)


def _as_asked(charges: Integers, at: Integers, asked: Offers, compiled: rating.CompiledModel) -> Integers:
    """The charges after what the offer in force at each record's time asks for this model and tier."""
    asks = [multipliers.ONE, *(offer.ask(compiled.model, compiled.tier) for offer in asked.all)]
    if asks.count(multipliers.ONE) == len(asks):
        return charges
    starts = np.array([micros(start) for start in asked.starts], np.int64)
    return columns.multiplied(charges, np.array(asks, np.int64)[np.searchsorted(starts, at, side="right")])


def _as_they_stand(
    charges: Integers, at: Integers, consumers: Sequence[str], codes: Small, days: Mapping[datetime, Day]
) -> Integers:
    """The charges after the multiplier of each record's consumer on its day."""
    for begins, day in days.items():
        values = np.array([day.multiplier(name) for name in consumers], np.int64)
        if (values != multipliers.ONE).any():
            start = micros(begins)
            within = (start <= at) & (at < start + 86_400_000_000)
            charges = np.where(within, columns.multiplied(charges, values[codes]), charges)
    return charges
