"""What came of building a rate table, for the people who sign it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from governance.ratebook.catalogue import MAX_PLACES, Skip
from settlement.core.units import decimal_text


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two vendors of one model id whose posted prices differ tenfold or more. ``usd`` is per million units."""

    model: str
    meter: str
    low_vendor: str
    low_usd: str
    high_vendor: str
    high_usd: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A main price of one vendor's model that two sources state more than 5 % apart, in USD per million units."""

    vendor: str
    model: str
    meter: str
    source: str
    usd: str
    other_source: str
    other_usd: str


@dataclass(frozen=True, slots=True)
class Held:
    """A rate that would move tenfold: the model keeps what it has until a person accepts it. Rates are microCU."""

    model: str
    tier: str
    meter: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Report:
    """Counts, and everything that a signer should look at. ``models`` counts the priced models a vendor hosts."""

    models: Mapping[str, int]
    priced: int
    aliases: int
    skipped: tuple[Skip, ...]
    notes: tuple[Skip, ...]
    disagreements: tuple[Disagreement, ...]
    contradictions: tuple[Contradiction, ...] = ()
    held: tuple[Held, ...] = ()
    gone: tuple[str, ...] = ()
    """Names that the table before rates and this one does not: models that it would retire."""

    def text(self) -> str:
        """The report as lines of text; reasons are counted, not listed one by one."""
        lines = [f"{self.priced} models priced, {self.aliases} aliases"]
        lines += [f"  {vendor}: {count}" for vendor, count in sorted(self.models.items())]
        for title, items in (("not used", self.skipped), ("to note", self.notes)):
            lines.append(f"{title}: {len(items)}")
            counts = Counter(f"{item.what.split(' ')[0]} {item.reason}" for item in items)
            lines += [f"  {count} x {reason}" for reason, count in counts.most_common()]
        lines.append(f"tenfold disagreements: {len(self.disagreements)}")
        lines += [
            f"  {item.model} {item.meter}: {item.low_vendor} {item.low_usd}, {item.high_vendor} {item.high_usd}"
            for item in self.disagreements
        ]
        lines.append(f"sources that differ by more than 5 %: {len(self.contradictions)}")
        lines += [
            f"  {item.vendor} {item.model} {item.meter}: {item.source} {item.usd}, {item.other_source} {item.other_usd}"
            for item in self.contradictions
        ]
        lines.append(f"tenfold moves held for a person: {len(self.held)}")
        lines += [f"  {item.model} {item.tier} {item.meter}: {item.old} would be {item.new}" for item in self.held]
        lines.append(f"models and aliases that the table before has and this one has not: {len(self.gone)}")
        lines += [f"  {name}" for name in self.gone]
        return "\n".join(lines) + "\n"


def usd_text(amount: Fraction) -> str:
    """A posted price as exact decimal text. Posted prices have at most ``MAX_PLACES`` places, by construction."""
    scaled = amount * 10**MAX_PLACES
    if scaled.denominator != 1:
        raise ValueError("a posted price has finitely many decimal places")
    return decimal_text(scaled.numerator, MAX_PLACES)
