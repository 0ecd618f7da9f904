"""What a CU is, and three methods that say how many of them a model's request is worth (ECONOMICS 5.2, 5.3).

**1 CU is the effort of 10^15 floating-point operations of forward-pass text prefill on the open-weight reference
basket, under reference conditions.** The reference request has 700 uncached and 300 cached input tokens and 250 output
tokens at a mean position of 1,000.

    flop      F = T (2 N_active + A n) / 10^15        T: token-equivalents of the request, A: attention per position
    market    P = U / pi0                             U: median posted USD of the request, pi0: USD per CU
    hedonic   H = T 2 N_eff / 10^15                   log N_eff = const + a log N_active + b log N_total
    blend     W = H^alpha P^(1 - alpha)

`const` makes the basket's geometric mean by H that by F. Roots and logarithms are decimals of 50 digits, correctly
rounded and so the same everywhere; what reaches a rate is `factor`, W / P rounded half to even to six places, and one
more rounding, half to even, makes the rate. alpha is chosen for a class of models, never for one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import cache
from importlib import resources
from types import MappingProxyType

from settlement.core.errors import Malformed

FLOP_PER_CU = 10**15
BILLION = 10**9
OUTPUT_FACTOR = 4
"""Token-equivalents of an output token (rho)."""
CACHE_READ_FACTOR = Fraction(1, 10)
CACHE_WRITE_5M_FACTOR = Fraction(5, 4)
CACHE_WRITE_1H_FACTOR = Fraction(2)

UNCACHED, CACHED, OUTPUT, POSITION = 700, 300, 250, 1_000
"""The reference request, in tokens, and the mean position of its tokens."""
TOKEN_EQUIVALENTS = UNCACHED + CACHED * CACHE_READ_FACTOR + OUTPUT * OUTPUT_FACTOR
"""1,730 for the reference request."""

ACTIVE_EXPONENT, TOTAL_EXPONENT = Decimal("0.30"), Decimal("0.35")
"""The fit over 29 open models of mid-2026; `fit.py` makes it again from the prices at hand."""

ALPHA: Mapping[str, Decimal] = MappingProxyType(
    {"open_many": Decimal("0.5"), "open_few": Decimal("0.75"), "closed": Decimal(0), "gpu_second": Decimal(1)}
)
"""How much of a class's weight is effort rather than price: open weights with five hosts or more, with one to four, no
open weights, machine time."""
MANY_HOSTS = 5
LEAST_BASKET = 3
"""Models that the reference basket has at least, each with this many hosts."""

_EXACT = Context(prec=50, rounding=ROUND_HALF_EVEN)
_FACTOR = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What effort follows from: parameters in billions, and attention FLOPs for each token and position before it.

    Attention is 4 x layers x heads x head dimension where every layer sees the whole context.
    """

    active: Decimal
    total: Decimal
    attention: int
    ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Weight:
    """CU per reference request by each method, and by the blend; `factor` is what posted prices are multiplied by."""

    flop: Decimal
    hedonic: Decimal
    market: Decimal
    alpha: Decimal
    weight: Decimal
    factor: Fraction


@cache
def open_weights() -> Mapping[str, Architecture]:
    """The architectures on file, by model."""
    found = json.loads(resources.files("governance.ratebook").joinpath("open_weights.json").read_text("utf-8"))
    return MappingProxyType(
        {
            name: Architecture(
                Decimal(each["active"]), Decimal(each["total"]), each["attention"], frozenset(each["ids"])
            )
            for name, each in found["models"].items()
        }
    )


def architecture_of(model: str) -> tuple[str, Architecture] | None:
    """The open-weight model that a catalogue's id means; compared in full, without what stands before a slash."""
    last = model.rpartition("/")[2].lower()
    for name, architecture in open_weights().items():
        if last == name or last in architecture.ids:
            return name, architecture
    return None


def alpha_of(architecture: Architecture | None, hosts: int) -> Decimal:
    """The alpha of a model's class."""
    if architecture is None:
        return ALPHA["closed"]
    return ALPHA["open_many" if hosts >= MANY_HOSTS else "open_few"]


def flop_per_token(architecture: Architecture) -> Fraction:
    """FLOPs of one token of prefill at the mean position of the reference request."""
    return 2 * Fraction(architecture.active) * BILLION + architecture.attention * POSITION


def flop(architecture: Architecture) -> Fraction:
    """CU per reference request by the compute-based method."""
    return TOKEN_EQUIVALENTS * flop_per_token(architecture) * Fraction(1, FLOP_PER_CU)


def flop_rates(architecture: Architecture) -> dict[str, int]:
    """Rates of the compute-based method, microCU per million tokens, rounded half to even."""
    unit = flop_per_token(architecture) * Fraction(10**12, FLOP_PER_CU)
    factors = {
        "input_tokens": Fraction(1),
        "cache_read_tokens": CACHE_READ_FACTOR,
        "cache_write_tokens": CACHE_WRITE_5M_FACTOR,
        "cache_write_5m_tokens": CACHE_WRITE_5M_FACTOR,
        "cache_write_1h_tokens": CACHE_WRITE_1H_FACTOR,
        "output_tokens": Fraction(OUTPUT_FACTOR),
    }
    return {meter: round(unit * factor) for meter, factor in factors.items()}


def usd_of_request(input_price: Fraction, cached_price: Fraction, output_price: Fraction) -> Fraction:
    """USD of the reference request at prices per million tokens."""
    return (UNCACHED * input_price + CACHED * cached_price + OUTPUT * output_price) * Fraction(1, 10**6)


def market(usd: Fraction, usd_per_cu: Fraction) -> Fraction:
    """CU per reference request by the market method."""
    return usd * Fraction(usd_per_cu.denominator, usd_per_cu.numerator)


def hedonic_scale(
    basket: Sequence[Architecture], exponents: tuple[Decimal, Decimal] = (ACTIVE_EXPONENT, TOTAL_EXPONENT)
) -> Decimal:
    """The constant of the hedonic method: it makes the basket's geometric mean that of the compute-based method.

    Raises Malformed ``basket_too_small``.
    """
    if len(basket) < LEAST_BASKET:
        detail = f"the reference basket needs {LEAST_BASKET} models of so many hosts each, and has {len(basket)}"
        raise Malformed("basket_too_small", detail)
    gaps = [_EXACT.subtract(_EXACT.ln(_decimal(flop(each))), _shape(each, exponents)) for each in basket]
    return _quotient(sum(gaps, Decimal(0)), Decimal(len(gaps)))


def hedonic(
    architecture: Architecture, scale: Decimal, exponents: tuple[Decimal, Decimal] = (ACTIVE_EXPONENT, TOTAL_EXPONENT)
) -> Decimal:
    """CU per reference request by the hedonic method."""
    return _EXACT.exp(_EXACT.add(scale, _shape(architecture, exponents)))


def blend(architecture: Architecture, usd: Fraction, usd_per_cu: Fraction, alpha: Decimal, scale: Decimal) -> Weight:
    """The weight of a model and what its posted prices are multiplied by."""
    by_market = _decimal(market(usd, usd_per_cu))
    by_effort = hedonic(architecture, scale)
    ratio = _EXACT.power(_quotient(by_effort, by_market), alpha)
    factor = Fraction(ratio.quantize(_FACTOR, context=_EXACT))
    return Weight(
        flop=_decimal(flop(architecture)),
        hedonic=by_effort,
        market=by_market,
        alpha=alpha,
        weight=_EXACT.multiply(by_market, ratio),
        factor=factor,
    )


def _shape(architecture: Architecture, exponents: tuple[Decimal, Decimal]) -> Decimal:
    active = _EXACT.multiply(exponents[0], _EXACT.ln(architecture.active))
    return _EXACT.add(active, _EXACT.multiply(exponents[1], _EXACT.ln(architecture.total)))


def _decimal(value: Fraction) -> Decimal:
    return _quotient(Decimal(value.numerator), Decimal(value.denominator))


def _quotient(one: Decimal, other: Decimal) -> Decimal:
    return _EXACT.multiply(one, _EXACT.power(other, -1))
