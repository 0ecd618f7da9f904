"""Rating: the exact charge of one usage record under a rate table, explained meter by meter.

Two forms that must agree for every table and record. :func:`rate` walks the inclusion tree and says which units were
charged at which rate. :func:`compile_model` gives the same charge as one linear form, for the path that rates many
records at once: because a meter's own units are its total less its children's totals, the charge is the sum of
total x (own rate less the parent's rate).

The sum of the meters, raised to the tier's minimum, is the charge at par; multipliers come after it, one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType

from settlement.core import multipliers
from settlement.core.multipliers import Multiplier
from settlement.core.rates import Prices, RateTable
from settlement.core.tiers import CONTEXT_METER, PER_REQUEST, Band, Hours, Tier
from settlement.core.units import MAX_AMOUNT

FREE_OUTCOME = "errored"
"""The outcome that is checked like any other and costs nothing."""
OUTCOMES = frozenset({"completed", "truncated", "cancelled", FREE_OUTCOME})


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One meter's part: ``units`` that belong to no child of it, at ``rate`` microCU per million; ``pico`` is both.

    With ``above_input_tokens`` it is the excess: the units of the meter's total above that threshold, whatever meter
    below they are of, at what a unit costs more there.
    """

    meter: str
    units: int
    rate: int
    pico: int
    above_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Charge:
    """What a record costs, in picoCU, and why.

    The lines and ``topped_up``, what the tier's minimum adds to them, make the charge at par. Each of ``multipliers``
    in turn takes what was before it and rounds down, and ``pico`` is what comes out.
    """

    pico: int
    rates: int
    model: str
    tier: str
    above_input_tokens: int
    lines: tuple[ChargeLine, ...]
    topped_up: int = 0
    multipliers: tuple[Multiplier, ...] = ()

    @property
    def par(self) -> int:
        """The charge before any multiplier, picoCU."""
        return sum(line.pico for line in self.lines) + self.topped_up


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record cannot be charged. ``meter`` is the meter it is about, if it is about one.

    Codes, in the order in which they are looked for: ``unknown_model``, ``unknown_tier``, ``unknown_outcome``,
    ``unknown_meter``, ``negative_units``, ``unpriced_meter``, ``subset_above_whole``, ``charge_too_large``.
    """

    code: str
    meter: str | None = None


@dataclass(frozen=True, slots=True)
class CompiledBand:
    """The linear form of one context band; ``coefficients`` stand in the order of ``CompiledModel.meters``."""

    above_input_tokens: int
    per_request: int
    coefficients: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """One model and tier as a linear form: pico = per_request + sum(coefficient x units) of the band.

    The band is the last one whose ``above_input_tokens`` is below the record's total of ``context_meter``, or the
    first. A record is refused as ``unpriced_meter`` when an index in ``unpriced`` has units, and as
    ``subset_above_whole`` when for a pair in ``subsets`` the children's units add up to more than the parent's.
    Children come after their parents in ``meters``. ``context_meter`` is an index, or None with a single band.

    ``excess`` are (threshold, rate): units of ``context_meter`` above the threshold cost that much more; there is one
    band then. The charge is at least ``minimum`` then, and the multiplier of its time of day in ``hours`` comes last.
    """

    model: str
    tier: str
    meters: tuple[str, ...]
    bands: tuple[CompiledBand, ...]
    subsets: tuple[tuple[int, tuple[int, ...]], ...]
    unpriced: tuple[int, ...]
    context_meter: int | None
    places: Mapping[str, int]
    """The place of each of `meters`."""
    whole_of: Mapping[int, int]
    """By the place of a part, that of its whole: `subsets` the other way round."""
    excess: tuple[tuple[int, int], ...] = ()
    minimum: int = 0
    hours: tuple[Hours, ...] = ()


def rate(
    table: RateTable,
    model: str,
    tier: str,
    outcome: str,
    meters: Mapping[str, int],
    at: datetime,
    further: Sequence[Multiplier] = (),
) -> Charge | Refusal:
    """The charge of one record made at that time, or the first reason why there is none.

    ``meters`` are totals that include their subsets. A meter that is absent counts zero units, and a meter with zero
    units costs nothing even where the model has no price for it; its name must still be one of the table. A completed
    record without any units costs its per-request rate, or its tier's minimum, which are nothing for most models.
    ``further`` are multipliers that the table does not know, in the order of ``multipliers.ORDER``.
    """
    found = _tier(table, model, tier)
    if isinstance(found, Refusal):
        return found
    name, terms = found
    if outcome not in OUTCOMES:
        return Refusal("unknown_outcome")
    context = meters.get(CONTEXT_METER, 0)
    band = terms.bands[0] if terms.excess else _band(terms.bands, context)
    prices = _prices(table, name, tier, band)
    below = _below(prices, meters)
    if isinstance(below, Refusal):
        return below
    if outcome == FREE_OUTCOME:
        return Charge(0, table.version, name, tier, band.above_input_tokens, ())
    lines = _lines(prices, meters, below)
    if terms.excess:
        lines.extend(_excess_lines(terms, context))
    par = sum([line.pico for line in lines])
    topped_up = max(terms.minimum - par, 0)
    hours = terms.multiplier_at(at)
    if hours != multipliers.ONE:
        further = (Multiplier(multipliers.HOURS, hours), *further)
    applied = tuple([each for each in further if each.value != multipliers.ONE])
    pico = most = par + topped_up
    for each in applied:
        pico = multipliers.apply(pico, each.value)
        most = max(most, pico)
    if most > MAX_AMOUNT:
        return Refusal("charge_too_large")
    return Charge(pico, table.version, name, tier, band.above_input_tokens, tuple(lines), topped_up, applied)


def compile_model(table: RateTable, model: str, tier: str) -> CompiledModel | Refusal:
    """The linear form of one model and tier, or ``unknown_model`` or ``unknown_tier``.

    It covers every outcome but ``errored``, whose charge is zero; whoever applies it checks for negative units and for
    a charge above 2^63 - 1 as :func:`rate` does.
    """
    found = _tier(table, model, tier)
    if isinstance(found, Refusal):
        return found
    name, terms = found
    bands = terms.bands[:1] if terms.excess else terms.bands
    names = tuple(meter for meter in table.meters if meter != PER_REQUEST)
    index = {meter: place for place, meter in enumerate(names)}
    below = _children(table)
    compiled = []
    for band in bands:
        coefficients = tuple(_coefficient(table, band.rates, meter) for meter in names)
        compiled.append(CompiledBand(band.above_input_tokens, band.rates.get(PER_REQUEST, 0), coefficients))
    return CompiledModel(
        model=name,
        tier=tier,
        meters=names,
        bands=tuple(compiled),
        subsets=tuple((index[whole], tuple(index[part] for part in parts)) for whole, parts in below.items()),
        unpriced=tuple(index[meter] for meter in names if not _priced(table, bands[0].rates, meter)),
        context_meter=index[CONTEXT_METER] if len(terms.bands) > 1 else None,
        places=index,
        whole_of={index[part]: index[whole] for whole, parts in below.items() for part in parts},
        excess=tuple(_excess(terms)),
        minimum=terms.minimum,
        hours=terms.hours,
    )


def _tier(table: RateTable, model: str, tier: str) -> tuple[str, Tier] | Refusal:
    name = table.resolve(model)
    if name is None:
        return Refusal("unknown_model")
    terms = table.models[name].tiers.get(tier)
    return Refusal("unknown_tier") if terms is None else (name, terms)


def _prices(table: RateTable, model: str, tier: str, band: Band) -> Prices:
    """A band worked out once: thousands of records are rated by it."""
    key = (model, tier, band.above_input_tokens)
    found = table.prices.get(key)
    if found is None:
        parents = {name: meter.parent for name, meter in table.meters.items() if name != PER_REQUEST}
        priced = [name for name in table.meters if _priced(table, band.rates, name)]
        found = Prices(parents, {name: _rate_of(table, band.rates, name) for name in priced})
        table.prices[key] = found
    return found


def _below(prices: Prices, meters: Mapping[str, int]) -> dict[str, int] | Refusal:
    """The units of the meters directly below each meter, of those that are given; or why they can't be charged."""
    below: dict[str, int] = {}
    parents, rates = prices.parents, prices.rates
    for meter, units in meters.items():
        if units < 0 or meter not in parents or (units and meter not in rates):
            return _refusal(prices, meters)
        parent = parents[meter]
        if parent is not None:
            below[parent] = below.get(parent, 0) + units
    short = {whole for whole, units in below.items() if units > meters.get(whole, 0)}
    if short:
        wholes = [parent for parent in parents.values() if parent in short]
        return Refusal("subset_above_whole", wholes[0])
    return below


def _refusal(prices: Prices, meters: Mapping[str, int]) -> Refusal:
    """Why one of these meters, at least, can't be charged: unknown ones first, then counts, then prices."""
    unknown = [meter for meter in meters if meter not in prices.parents]
    negative = [meter for meter, units in meters.items() if units < 0]
    unpriced = [meter for meter, units in meters.items() if units and meter not in prices.rates]
    code = "unknown_meter" if unknown else "negative_units" if negative else "unpriced_meter"
    return Refusal(code, (unknown or negative or unpriced)[0])


def _lines(prices: Prices, meters: Mapping[str, int], below: Mapping[str, int]) -> list[ChargeLine]:
    lines = []
    for meter, each in prices.rates.items():
        own = 1 if meter == PER_REQUEST else meters.get(meter, 0) - below.get(meter, 0)
        if own:
            lines.append(ChargeLine(meter, own, each, own * each))
    return lines


def _excess(terms: Tier) -> Iterator[tuple[int, int]]:
    """Each further band's threshold, and what a unit above it costs more than in the band before."""
    if terms.excess:
        for lower, upper in pairwise(terms.bands):
            yield upper.above_input_tokens, upper.rates[CONTEXT_METER] - lower.rates[CONTEXT_METER]


def _excess_lines(terms: Tier, context: int) -> tuple[ChargeLine, ...]:
    return tuple(
        ChargeLine(CONTEXT_METER, context - above, more, (context - above) * more, above)
        for above, more in _excess(terms)
        if context > above and more
    )


def _band(bands: tuple[Band, ...], context: int) -> Band:
    return next((band for band in reversed(bands[1:]) if context > band.above_input_tokens), bands[0])


def _priced(table: RateTable, priced: Mapping[str, int], meter: str) -> bool:
    """Whether the model has a price for the root of this meter's tree, and so for the meter."""
    parent = table.meters[meter].parent
    return meter in priced if parent is None else _priced(table, priced, parent)


def _rate_of(table: RateTable, priced: Mapping[str, int], meter: str) -> int:
    """A meter's rate: its own or its parent's; zero for a tree without a price, whose units are refused."""
    if meter in priced:
        return priced[meter]
    parent = table.meters[meter].parent
    return 0 if parent is None else _rate_of(table, priced, parent)


def _coefficient(table: RateTable, priced: Mapping[str, int], meter: str) -> int:
    parent = table.meters[meter].parent
    return _rate_of(table, priced, meter) - (0 if parent is None else _rate_of(table, priced, parent))


def _children(table: RateTable) -> Mapping[str, tuple[str, ...]]:
    """The meters directly below each meter that has any."""
    below: dict[str, tuple[str, ...]] = {}
    for meter in table.meters.values():
        if meter.parent is not None:
            below[meter.parent] = (*below.get(meter.parent, ()), meter.name)
    return MappingProxyType(below)
