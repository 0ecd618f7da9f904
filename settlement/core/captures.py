"""Which holds the records of a report name, and whether they are what the records say: before any lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec import UNSET

from settlement.core.multipliers import ONE
from settlement.core.rates import RateTable
from settlement.core.usage import UsageReport


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """What never changes of a hold, and what the records that name it must agree with; `rates` is their version."""

    provider: str
    consumer: str
    model: str
    tier: str
    rates: int
    demand: int = ONE
    """The multiplier that was quoted with it, in ten-thousandths."""


def named_holds(
    report: UsageReport, holds: Mapping[str, HoldTerms], table: Callable[[int], RateTable]
) -> tuple[dict[int, str], dict[int, tuple[str, str]]]:
    """The hold of each line that names one rightly, and (code, detail) of each line that does not.

    `holds` are those that exist; `table` gives the rate table of a version, in which a model's aliases count.
    """
    found: dict[int, str] = {}
    wrong: dict[int, tuple[str, str]] = {}
    if report.holds.count(UNSET) == len(report.holds):
        return found, wrong
    for line, name in enumerate(report.holds):
        if name is UNSET:
            continue
        hold = holds.get(name)
        if hold is None or hold.provider != report.provider:
            wrong[line] = "unknown_hold", "this provider has no such hold"
            continue
        model = table(hold.rates).resolve(report.models[line])
        said = {"consumer": report.consumers[line], "model": model, "tier": report.tiers[line]}
        other = next((member for member, value in said.items() if value != getattr(hold, member)), None)
        if other is None:
            found[line] = name
        else:
            wrong[line] = "hold_mismatch", f"the hold is for another {other}"
    return found, wrong
