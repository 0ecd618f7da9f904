"""A charge in words: each line, the minimum and every multiplier as one sentence, equal to the figures beside it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from settlement.core import multipliers, times
from settlement.core.rating import Charge, ChargeLine
from settlement.core.tiers import PER_REQUEST
from settlement.core.units import decimal_text

PICO_PLACES = 12
"""Decimal places of a picoCU in CU."""
_REASONS = {
    multipliers.HOURS: "the time of day, {at}",
    multipliers.ASK: "what the provider asks in its signed offer",
    multipliers.DEMAND: "the demand that was quoted with the hold",
    multipliers.STANDING: "the account's standing by the policy",
}


def explained(charge: Charge, at: datetime, on_file: int | None = None) -> dict[str, Any]:
    """Every factor of a charge in numbers (`pico` as text, CU with all places) and in words (`says`).

    With `on_file`, less than the charge is on file, because the record's hold had no more left.
    """
    final = charge.pico if on_file is None else on_file
    pico = charge.par
    steps = []
    for each in charge.multipliers:
        before, pico = pico, multipliers.apply(pico, each.value)
        value = multipliers.to_text(each.value)
        reason = _REASONS[each.name].format(at=times.text(at))
        says = f"times {value} for {reason}: {cu(before)} becomes {cu(pico)} CU"
        steps.append({"name": each.name, "multiplier": value, "pico": str(pico), "says": says})
    return {
        "model": charge.model,
        "tier": charge.tier,
        "above_input_tokens": charge.above_input_tokens,
        "lines": [_line(line) for line in charge.lines],
        "minimum": None
        if not charge.topped_up
        else {
            "pico": str(charge.topped_up),
            "says": f"{cu(charge.topped_up)} CU more: a request of this tier costs {cu(charge.par)} CU at least",
        },
        "par_pico": str(charge.par),
        "multipliers": steps,
        "capped": None
        if final == charge.pico
        else {
            "pico": str(charge.pico - final),
            "says": f"{cu(charge.pico - final)} CU less, because a record never costs more than its hold has left",
        },
        "charge_pico": str(final),
        "charge": cu(final),
        "says": list(_sentences(charge, final)),
    }


def cu(pico: int) -> str:
    """picoCU as CU with all places that there are."""
    return decimal_text(pico, PICO_PLACES)


def _line(line: ChargeLine) -> dict[str, Any]:
    found: dict[str, Any] = {"meter": line.meter, "units": line.units, "rate": line.rate, "pico": str(line.pico)}
    rate = decimal_text(line.rate, 6)
    if line.meter == PER_REQUEST:
        says = f"{cu(line.pico)} CU for the request itself"
    elif line.above_input_tokens:
        found["above_input_tokens"] = line.above_input_tokens
        says = (
            f"{line.units:,} {line.meter} above {line.above_input_tokens:,} cost {rate} CU per million more: "
            f"{cu(line.pico)} CU"
        )
    else:
        says = f"{line.units:,} {line.meter} at {rate} CU per million: {cu(line.pico)} CU"
    return found | {"says": says}


def _sentences(charge: Charge, final: int) -> Iterator[str]:
    yield f"Rated as {charge.model}, tier {charge.tier}, by rate table {charge.rates}."
    if charge.above_input_tokens:
        above = f"{charge.above_input_tokens:,}"
        yield f"The prompt has more than {above} input tokens, so the whole request is charged by that band."
    if not charge.lines and not charge.topped_up:
        yield "Nothing was counted that costs anything, or the request ended in an error, which costs nothing."
    yield "A meter's units are those that belong to no meter below it, so no token is charged twice."
    yield f"Together {cu(final)} CU, exactly; what is below a microCU is carried to the pair's next report."
