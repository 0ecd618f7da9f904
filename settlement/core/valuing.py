"""The index as a section of the policy: its rules, the value at which it begins, and the sources that it believes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from settlement.core.observations import Oracle
from settlement.core.value import IndexRules


@dataclass(frozen=True, slots=True)
class IndexPolicy:
    """No source is named at first, so that nothing is fixed before a council has chosen whom to believe."""

    begins_at: Fraction = Fraction(45, 10_000)
    """USD for 1 CU at the first fixing."""
    oracles: tuple[Oracle, ...] = ()
    rules: IndexRules = field(default_factory=IndexRules)

    def __post_init__(self) -> None:
        if self.begins_at <= 0:
            raise ValueError("the index begins above zero")
        if len({oracle.source for oracle in self.oracles}) != len(self.oracles):
            raise ValueError("a source is named once")
