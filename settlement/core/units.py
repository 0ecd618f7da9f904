"""Amounts: integers of microCU and of the chain asset's own smallest unit, and their decimal text.

1 CU = 10^6 microCU = 10^12 picoCU. Balances and postings are whole microCU; a single record's exact charge is a whole
number of picoCU (rates are microCU per 1,000,000 units, so units x rate is picoCU). Nothing here is ever a float.
"""

from __future__ import annotations

import re

from settlement.core.errors import Malformed

MICRO_PER_CU = 10**6
PICO_PER_MICRO = 10**6
MAX_AMOUNT = 2**63 - 1
"""The largest amount the books can hold: PostgreSQL's bigint."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})(?:\.([0-9]{1,18}))?")


def decimal_text(amount: int, places: int) -> str:
    """The decimal text of an integer of 10^-places, without trailing zeros: ``(789722, 6)`` is ``"0.789722"``."""
    if not amount or not places:
        return str(amount)
    digits = str(abs(amount)).rjust(places + 1, "0")
    whole, fraction = digits[:-places], digits[-places:].rstrip("0")
    return ("-" if amount < 0 else "") + whole + (f".{fraction}" if fraction else "")


def cu_text(micro: int) -> str:
    """microCU as CU decimal text with at most 6 places."""
    return decimal_text(micro, 6)


def parse_decimal(text: str, places: int) -> int:
    """The integer of 10^-places that a decimal text names. No sign, no exponent, no rounding.

    Raises Malformed ``amount_malformed`` for anything else, and when the text has more places than the unit.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise Malformed("amount_malformed", "an amount is digits with at most one decimal point, such as 12.5")
    whole, fraction = match.group(1), match.group(2) or ""
    if len(fraction) > places:
        raise Malformed("amount_malformed", f"an amount of this asset has at most {places} decimal places")
    value = int(whole + fraction.ljust(places, "0"))
    if value > MAX_AMOUNT:
        raise Malformed("amount_malformed", "the amount is larger than the books can hold")
    return value


def split_pico(carry: int, pico: int) -> tuple[int, int]:
    """Whole microCU to post and the new carry (0 .. 999,999 picoCU) after adding ``pico`` to ``carry``."""
    return divmod(carry + pico, PICO_PER_MICRO)
