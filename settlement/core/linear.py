"""The linear form of a model and tier for records that all name the same meters: one matrix times one vector.

Made once from `rating.CompiledModel` and kept: only the columns that such records have are looked at.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from settlement.core.rating import CompiledModel, Refusal
from settlement.core.units import MAX_AMOUNT

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Band:
    """`coefficients` of the columns; units below `safe` are charged within 64 bits."""

    per_request: int
    coefficients: tuple[int, ...]
    vector: Integers
    safe: int


@dataclass(frozen=True, slots=True)
class LinearForm:
    """Columns stand in the order of `meters`; `subsets` are (name, column of the whole if there is one, its parts')."""

    compiled: CompiledModel
    meters: tuple[str, ...]
    unpriced: tuple[int, ...]
    subsets: tuple[tuple[str, int | None, list[int]], ...]
    context: int | None
    above: Integers
    bands: tuple[_Band, ...]

    def charges(self, given: Integers) -> Integers:
        """Exact picoCU a row of `given` at par; below zero where it does not fit (or the row breaks a subset rule)."""
        context = np.zeros(len(given), np.int64) if self.context is None else given[:, self.context]
        if len(self.bands) == 1:
            found = self._in_band(self.bands[0], given, context)
        else:
            found = np.zeros(len(given), np.int64)
            chosen = np.searchsorted(self.above, context, side="left")
            for number, band in enumerate(self.bands):
                rows = np.flatnonzero(chosen == number)
                if len(rows):
                    found[rows] = self._in_band(band, given[rows], context[rows])
        minimum = self.compiled.minimum
        return np.where(found >= 0, np.maximum(found, minimum), found) if minimum else found

    def _in_band(self, band: _Band, given: Integers, context: Integers) -> Integers:
        excess = self.compiled.excess
        if int(given.max(initial=0)) < band.safe:
            found = given @ band.vector + band.per_request
            for above, more in excess:
                found += np.maximum(context - above, 0) * more
            return found
        charges = []
        for units, total in zip(given.tolist(), context.tolist(), strict=True):
            exact = sum(map(operator.mul, units, band.coefficients)) + band.per_request
            exact += sum(max(total - above, 0) * more for above, more in excess)
            charges.append(exact if 0 <= exact <= MAX_AMOUNT else -1)
        return np.array(charges, np.int64)


def linear_form(compiled: CompiledModel, meters: tuple[str, ...]) -> LinearForm | Refusal:
    """The form for records that name `meters`, or ``unknown_meter``."""
    places = {meter: place for place, meter in enumerate(compiled.meters)}
    unknown = next((meter for meter in meters if meter not in places), None)
    if unknown is not None:
        return Refusal("unknown_meter", unknown)
    columns = {places[meter]: column for column, meter in enumerate(meters)}
    bands = []
    for band in compiled.bands:
        coefficients = tuple(band.coefficients[place] for place in columns)
        dearest = sum(map(abs, coefficients)) + sum(more for _, more in compiled.excess)
        fits = max(map(abs, coefficients), default=0) < 2**62
        safe = (2**62 - band.per_request) // max(dearest, 1) if fits else 0
        bands.append(_Band(band.per_request, coefficients, np.array(coefficients if fits else (), np.int64), safe))
    subsets = []
    for whole, parts in compiled.subsets:
        named = [columns[part] for part in parts if part in columns]
        if named:
            subsets.append((compiled.meters[whole], columns.get(whole), named))
    return LinearForm(
        compiled,
        meters,
        tuple(columns[place] for place in compiled.unpriced if place in columns),
        tuple(subsets),
        None if compiled.context_meter is None else columns.get(compiled.context_meter),
        np.array([band.above_input_tokens for band in compiled.bands[1:]], np.int64),
        tuple(bands),
    )
