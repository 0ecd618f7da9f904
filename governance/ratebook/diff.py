"""What differs between two rate tables, for people who sign the later one and for anybody afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from settlement.core.rates import Model, RateTable
from settlement.core.units import decimal_text

TOKEN_SHIFT_PERCENT = 3
"""How far tokens per kilobyte may move before it is another model (ECONOMICS 5.5)."""


@dataclass(frozen=True, slots=True)
class Change:
    """A rate that is another one; None where the meter or band is only in one of the tables. `percent` is text."""

    model: str
    tier: str
    above: int
    meter: str
    old: int | None
    new: int | None

    @property
    def percent(self) -> str:
        """The relative change with one decimal place, rounded down; empty where there is none."""
        if not self.old or self.new is None:
            return ""
        tenths = (self.new - self.old) * 1_000 // self.old
        return ("+" if tenths > 0 else "") + decimal_text(tenths, 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """From an earlier table to a later one. `terms`: (model, tier) whose context, minimum or hours differ.

    `tokens` are models whose tokens per kilobyte moved by more than 3 %, which makes them other models.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    terms: tuple[tuple[str, str], ...]
    tokens: tuple[str, ...]


def difference(old: RateTable, new: RateTable) -> Difference:
    """What differs from `old` to `new`, in order of models."""
    both = sorted(old.models.keys() & new.models.keys())
    return Difference(
        added=tuple(sorted(new.models.keys() - old.models.keys())),
        removed=tuple(sorted(old.models.keys() - new.models.keys())),
        changed=tuple(change for name in both for change in _changes(old.models[name], new.models[name])),
        terms=tuple((name, tier) for name in both for tier in _terms(old.models[name], new.models[name])),
        tokens=tuple(name for name in both if token_shift(old.models[name], new.models[name])),
    )


def token_shift(old: Model, new: Model) -> bool:
    """Whether a class of text has more than 3 % more or fewer tokens than before."""
    for kind in old.tokens_per_kilobyte.keys() & new.tokens_per_kilobyte.keys():
        was, will = (Fraction(each.tokens_per_kilobyte[kind]) for each in (old, new))
        if abs(will - was) * 100 > was * TOKEN_SHIFT_PERCENT:
            return True
    return False


def _changes(old: Model, new: Model) -> Iterator[Change]:
    was, will = _rates(old), _rates(new)
    for tier, above, meter in sorted(was.keys() | will.keys()):
        key = (tier, above, meter)
        if was.get(key) != will.get(key):
            yield Change(old.name, tier, above, meter, was.get(key), will.get(key))


def _rates(model: Model) -> dict[tuple[str, int, str], int]:
    return {
        (tier, band.above_input_tokens, meter): rate
        for tier, terms in model.tiers.items()
        for band in terms.bands
        for meter, rate in band.rates.items()
    }


def _terms(old: Model, new: Model) -> Iterator[str]:
    for tier in sorted(old.tiers.keys() & new.tiers.keys()):
        was, will = old.tiers[tier], new.tiers[tier]
        if (was.excess, was.minimum, was.hours) != (will.excess, will.minimum, will.hours):
            yield tier
