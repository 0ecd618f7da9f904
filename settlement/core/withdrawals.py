"""The rules of withdrawals as a section of the policy.

A consumer takes money out as a provider is paid: in whole units of a chain's asset, at the policy's value. What is less
than a unit stays on the account. The fee is a line of its own, in CU, and comes out of the same amount.
"""

from __future__ import annotations

from dataclasses import dataclass

from settlement.core.sections import Micro


@dataclass(frozen=True, slots=True)
class WithdrawalRules:
    """All amounts are microCU. The limits count every withdrawal of the last 24 hours that has not failed."""

    minimum: Micro = 222_222_222
    """The least that is withdrawn at once, fee included: 1 USD at the first value of a CU."""
    fee: Micro = 2_222_222
    """For each withdrawal, whatever its amount: 0.01 USD at the first value; given back when it fails."""
    daily_limit: Micro = 222_222_222_222
    """The most that one account withdraws in 24 hours: 1,000 USD at the first value."""
    daily_total: Micro = 2_222_222_222_222
    """The most that all accounts together withdraw in 24 hours. What a thief of many keys can take is bounded by it."""
    prove_payouts: bool = False
    """Whether a provider's payout address must be proven too, on chains that can."""

    def __post_init__(self) -> None:
        if not 0 <= self.fee < self.minimum <= self.daily_limit <= self.daily_total:
            raise ValueError("0 <= fee < minimum <= daily_limit <= daily_total does not hold")
