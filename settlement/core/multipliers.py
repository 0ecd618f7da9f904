"""Multipliers: what a charge at par is multiplied by, exactly, as whole numbers of ten-thousandths.

A charge goes through its multipliers one after the other, in the order of `ORDER`, and each step rounds down to a whole
picoCU, so that every step can be shown and checked by itself (docs/reference/rounding.md). Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from settlement.core.units import decimal_text, parse_decimal

PLACES = 4
ONE = 10_000
"""The multiplier that changes nothing."""
MAX_MULTIPLIER = 100 * ONE
TEXT = re.compile(r"(0|[1-9][0-9]{0,2})(\.[0-9]{1,4})?")

HOURS, ASK, DEMAND, STANDING = ORDER = ("hours", "ask", "demand", "standing")
"""The time of day by the rate table, the provider's signed offer, the demand that was quoted, the consumer's standing
by a rule of the policy."""


@dataclass(frozen=True, slots=True)
class Multiplier:
    """One multiplier of a charge by its name; `value` counts ten-thousandths."""

    name: str
    value: int


def parse(text: str) -> int:
    """The ten-thousandths that decimal text names. Raises Malformed ``amount_malformed``."""
    return parse_decimal(text, PLACES)


def to_text(value: int) -> str:
    """A multiplier as decimal text: 7500 is ``0.75``."""
    return decimal_text(value, PLACES)


def apply(pico: int, value: int) -> int:
    """A charge after one multiplier, rounded down to a whole picoCU."""
    return pico * value // ONE
