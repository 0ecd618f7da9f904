"""What is owed against what is held on chain, at one moment: `solvency/1` (docs/reference/solvency.md).

What waits in suspense belongs to whoever sent it, so it covers nothing. An asset without a worth covers nothing either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from settlement.core import canonical, times
from settlement.core.journal import Head

TYPE = "solvency/1"


@dataclass(frozen=True, slots=True)
class Held:
    """An asset that an account held in a final ledger, in its smallest unit; `suspense` of it is nobody's yet."""

    chain: str
    network: str
    account: str
    asset: str
    amount: int
    suspense: int
    ledger: int
    closed_at: datetime
    micro_per_unit: Fraction | None

    @property
    def ours(self) -> int:
        """What there is beyond suspense; below zero when somebody's money is missing."""
        return self.amount - self.suspense

    @property
    def worth(self) -> Fraction:
        """The same in microCU, exactly."""
        return self.ours * (self.micro_per_unit or Fraction(0))


@dataclass(frozen=True, slots=True)
class Solvency:
    """Owed after entry `journal.seq`, in microCU, against assets. `window` is the newest with a checkpoint."""

    window: int
    at: datetime
    journal: Head
    owed: int
    assets: tuple[Held, ...]

    @property
    def held(self) -> int:
        """What all assets are worth in microCU, rounded down together."""
        return total(self.assets)

    @property
    def short(self) -> str | None:
        """The first asset of which less is held than sits in suspense."""
        return shortage(self.assets)

    @property
    def covered(self) -> bool:
        """Whether every claim could be paid at that moment."""
        return self.short is None and self.held >= self.owed

    def document(self) -> bytes:
        """The canonical bytes that are signed."""
        return canonical.encode(
            {
                "type": TYPE,
                "window": self.window,
                "at": times.text(self.at),
                "journal": {"seq": self.journal.seq, "hash": self.journal.hash.hex()},
                "owed": str(self.owed),
                "held": str(self.held),
                "covered": self.covered,
                "assets": [
                    {
                        "chain": each.chain,
                        "network": each.network,
                        "account": each.account,
                        "asset": each.asset,
                        "amount": str(each.amount),
                        "suspense": str(each.suspense),
                        "ledger": each.ledger,
                        "closed_at": times.text(each.closed_at),
                        "micro_per_unit": None if each.micro_per_unit is None else str(each.micro_per_unit),
                    }
                    for each in self.assets
                ],
            }
        )


def total(assets: Iterable[Held]) -> int:
    """The worth of assets in whole microCU, rounded down once, at the end."""
    worth = sum((each.worth for each in assets), Fraction(0))
    return worth.numerator // worth.denominator


def shortage(assets: Iterable[Held]) -> str | None:
    """The first asset, as ``chain/asset``, of which less is held than sits in suspense."""
    return next((f"{each.chain}/{each.asset}" for each in assets if each.ours < 0), None)
