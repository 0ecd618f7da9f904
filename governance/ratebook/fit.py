"""The hedonic fit: how posted prices of open-weight models follow from their parameters, by ordinary least squares.

log(USD per reference request) = const + a log(active) + b log(total), over models with prices at hand. This is
statistics in floating point; what leaves it for a weight are the two exponents, rounded half to even to hundredths, and
a council that signs a table signs them. The figures are published with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from governance.ratebook.methods import Architecture


@dataclass(frozen=True, slots=True)
class Fit:
    """Exponents of active and total parameters, and how well they, or each alone, explain the prices (R squared)."""

    models: int
    active: Decimal
    total: Decimal
    r2: Decimal
    r2_active: Decimal
    r2_total: Decimal
    residual: Decimal
    """Standard deviation of what is left, in logarithms."""

    def document(self) -> dict[str, object]:
        """The figures as they stand in a rate table's derivation."""
        figures = ("active", "total", "r2", "r2_active", "r2_total", "residual")
        return {"models": self.models} | {name: str(getattr(self, name)) for name in figures}


def fit(points: Sequence[tuple[Architecture, Fraction]]) -> Fit:
    """The fit over (architecture, USD per reference request). Needs four models that differ."""
    prices = np.log(np.array([float(usd) for _, usd in points]))
    active = np.log(np.array([float(each.active) for each, _ in points]))
    total = np.log(np.array([float(each.total) for each, _ in points]))
    both, left = _least_squares(prices, active, total)
    _, by_active = _least_squares(prices, active)
    _, by_total = _least_squares(prices, total)
    spread = float(((prices - prices.sum() / len(prices)) ** 2).sum())
    return Fit(
        models=len(points),
        active=_hundredths(both[1]),
        total=_hundredths(both[2]),
        r2=_hundredths(1 - left / spread),
        r2_active=_hundredths(1 - by_active / spread),
        r2_total=_hundredths(1 - by_total / spread),
        residual=_hundredths((left / max(len(points) - 3, 1)) ** 0.5),
    )


def _least_squares(wanted: npt.NDArray[np.float64], *columns: npt.NDArray[np.float64]) -> tuple[list[float], float]:
    """Coefficients, the constant first, and the sum of squares that they leave."""
    given = np.column_stack([np.ones(len(wanted)), *columns])
    found = np.linalg.lstsq(given, wanted, rcond=None)[0]
    return [float(each) for each in found], float(((wanted - given @ found) ** 2).sum())


def _hundredths(value: float) -> Decimal:
    return Decimal(value).quantize(Decimal("0.01"))
