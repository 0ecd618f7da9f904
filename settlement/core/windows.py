"""The rules of windows as a section of the policy: how long one stays open before it is settled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class WindowRules:
    """A longer window means fewer payouts, and providers that wait longer for more (ECONOMICS 7.4)."""

    span: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.span <= timedelta(days=366):
            raise ValueError("a window stays open for a second to 366 days")
