"""The one door between CU and assets: which price converts what, by the value mode in force (ECONOMICS 6.3).

In the modes ``fixed_usd`` and ``settlement_asset`` one worth holds for everything. In mode ``index`` the newest fixing
in the journal says what a CU is worth, and it depends on the use: a deposit pays the higher of value and basket, a
payout is at the value, a withdrawal gets the lower one less the spread, but what was deposited lately comes back at
what it cost. A fixing that is frozen or old converts nothing. Service and verifier decide by these functions alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Literal

from settlement.core.errors import Unavailable
from settlement.core.policy import Policy, to_units
from settlement.core.value import Fixing, deposit_price, payout_price, refund_price

Use = Literal["deposit", "payout", "withdrawal"]

APART = timedelta(hours=23)
"""Between two fixings that may move the value, at least: the band is a day's."""
LOOK_BACK = timedelta(days=7)
"""How old an observation may be to count as a source that has gone stale; older ones are of no source."""


@dataclass(frozen=True, slots=True)
class Worth:
    """microCU per smallest unit of an asset, the number of the fixing that said so, and whether it is an own rate."""

    micro_per_unit: Fraction
    fixing: int | None = None
    own_rate: bool = False


@dataclass(frozen=True, slots=True)
class Lot:
    """What a deposit brought: microCU, and the USD that were paid for 1 CU."""

    micro: int
    usd_per_cu: Fraction


@dataclass(frozen=True, slots=True)
class Fresh:
    """What an account has of late: lots within the span of own rates, what was taken out of them at such a rate within
    it, and the account's balance, all microCU."""

    lots: Sequence[Lot] = ()
    returned: int = 0
    balance: int = 0

    @property
    def left(self) -> int:
        """How much of the lots is still there: what was spent was older money first."""
        return max(min(self.balance, sum(lot.micro for lot in self.lots) - self.returned), 0)

    @property
    def price(self) -> Fraction:
        """What 1 CU of the lots cost on average."""
        paid = sum((lot.micro * lot.usd_per_cu for lot in self.lots), Fraction(0))
        return paid * Fraction(1, max(sum(lot.micro for lot in self.lots), 1))


def paused(policy: Policy, fixing: Fixing | None, at: datetime) -> str | None:
    """Why nothing can be converted at a time, or None. Only an index can pause."""
    if policy.fixing_good_for is None:
        return None
    if fixing is None:
        return "there is no fixing of the index yet"
    if fixing.frozen is not None:
        return f"the index is frozen: {fixing.frozen}"
    if at - fixing.at > policy.fixing_good_for:
        return f"the last fixing, number {fixing.number}, is too old"
    return None


def worth(policy: Policy, fixing: Fixing | None, use: Use, code: str, decimals: int, at: datetime) -> Worth | None:
    """What the smallest unit of an asset is worth for a use at a time; None when the policy gives the asset no worth.

    `fixing` is the newest one in the journal. Raises Unavailable ``conversions_paused``.
    """
    if not policy.follows_index:
        fixed = policy.micro_per_unit(code, decimals)
        return None if fixed is None else Worth(fixed)
    if code not in policy.usd_per_asset:
        return None
    why = paused(policy, fixing, at)
    if fixing is None or why is not None:
        raise Unavailable("conversions_paused", f"nothing is converted now: {why}; usage goes on")
    return _at(policy, fixing, price(policy, fixing, use), code, decimals)


def withdrawal(
    policy: Policy, fixing: Fixing | None, code: str, decimals: int, at: datetime, wanted: int, fresh: Fresh
) -> Worth | None:
    """`worth` for a withdrawal of `wanted` microCU: the own rate where that is better and fresh money covers all of it.

    Raises Unavailable ``conversions_paused``.
    """
    usual = worth(policy, fixing, "withdrawal", code, decimals, at)
    if usual is None or usual.fixing is None or fixing is None or not fresh.left:
        return usual
    own = _at(policy, fixing, fresh.price, code, decimals, own_rate=True)
    covered = to_units(wanted, own.micro_per_unit)[1] <= fresh.left
    return own if covered and own.micro_per_unit < usual.micro_per_unit else usual


def price(policy: Policy, fixing: Fixing, use: Use) -> Fraction:
    """USD for 1 CU by a fixing, for a use."""
    if use == "deposit":
        return deposit_price(fixing)
    return payout_price(fixing) if use == "payout" else refund_price(fixing, policy.index.rules)


def measured(policy: Policy, fixing: Fixing | None, code: str, decimals: int) -> Fraction | None:
    """microCU per smallest unit for counting what is held: at the value of the newest fixing, be it frozen or old."""
    if not policy.follows_index:
        return policy.micro_per_unit(code, decimals)
    return None if fixing is None else policy.micro_per_unit(code, decimals, fixing.usd_per_cu)


def revalued(policy: Policy, fixing: Fixing, held: Iterable[tuple[str, int, int]]) -> int:
    """What the conversion account in CU stands at once all that the conversions hold is valued by a fixing.

    `held` are (asset code, decimals, smallest units) of the conversion accounts. What that differs from the balance is
    a gain or a loss of exchange. Below zero: it is our own side.
    """
    total = Fraction(0)
    for code, decimals, amount in held:
        total += amount * (measured(policy, fixing, code, decimals) or Fraction(0))
    return -(total.numerator // total.denominator)


def too_soon(moved: Fixing | None, at: datetime) -> bool:
    """Whether a fixing at a time would come too soon after `moved`, the last one that sources could be trusted for."""
    return moved is not None and at - moved.at < APART


def is_distrusted(fixing: Fixing) -> bool:
    """Whether a fixing moved nothing because its sources could not be trusted."""
    return fixing.frozen is not None and not is_gap(fixing)


def is_gap(fixing: Fixing) -> bool:
    """Whether a fixing is frozen by a gap, which a person has to end."""
    return fixing.frozen is not None and fixing.frozen.startswith("gap")


def _at(
    policy: Policy, fixing: Fixing, usd_per_cu: Fraction, code: str, decimals: int, *, own_rate: bool = False
) -> Worth:
    found = policy.micro_per_unit(code, decimals, usd_per_cu)
    assert found is not None, "the policy gives the asset a worth"
    return Worth(found, fixing.number, own_rate)
