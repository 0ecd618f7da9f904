"""The hedonic fit finds exponents that are there, and says how well it does."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from governance.ratebook.fit import fit
from governance.ratebook.methods import Architecture

SIZES = [(37, 671), (70.6, 70.6), (5.1, 116.8), (3.6, 20.9), (17, 402), (32, 1026), (8, 8), (405, 405)]


def points(noise: float = 0.0) -> list[tuple[Architecture, Fraction]]:
    found = []
    for number, (active, total) in enumerate(SIZES):
        usd = 2e-5 * active**0.3 * total**0.35 * (1 + noise * (-1) ** number)
        found.append((Architecture(Decimal(str(active)), Decimal(str(total)), 0), Fraction(usd)))
    return found


def test_exponents_that_made_the_prices_are_found() -> None:
    found = fit(points())
    assert (found.models, found.active, found.total) == (8, Decimal("0.30"), Decimal("0.35"))
    assert (found.r2, found.residual) == (Decimal("1.00"), Decimal("0.00"))
    assert found.r2_active < found.r2
    assert found.r2_total < found.r2


def test_noise_is_left_over_and_told() -> None:
    found = fit(points(0.3))
    assert Decimal("0.2") < found.residual < Decimal("0.6")
    assert found.r2 < 1
    assert found.document()["residual"] == str(found.residual)
