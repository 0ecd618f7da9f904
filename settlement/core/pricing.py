"""The rules of pricing as a section of the policy: how far a provider's ask may be from par, and how soon it holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class PricingRules:
    """The band of asks. Hosts of one model differ by a median factor of 3.9 (ECONOMICS 5.3), so par needs room."""

    lowest_ask: Fraction = Fraction(1, 4)
    highest_ask: Fraction = Fraction(4)
    offer_notice: timedelta = timedelta(minutes=10)
    """From the receipt of an offer to the time in force, at least."""

    def __post_init__(self) -> None:
        if not Fraction(1, 100) <= self.lowest_ask <= 1 <= self.highest_ask <= 100:
            raise ValueError("the band of asks contains 1 and lies between 1/100 and 100")
        if self.offer_notice <= timedelta(minutes=5):
            raise ValueError("an offer's notice is longer than the 5 minutes that a record may be dated ahead")
