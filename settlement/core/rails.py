"""Which of a provider's two rails a window pays on: a choice with its reason, made from recorded facts by policy alone.

A rail is a chain as a way to pay. The provider's own choice goes first; its fallback is taken only when the first can't
be used and the fallback can. When neither can, the first keeps the payout, which waits there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from settlement.core.sections import Micro


@dataclass(frozen=True, slots=True)
class ChainRule:
    """What holds on one chain alone, in microCU. Zero leaves it to what holds everywhere."""

    chain: str
    minimum: Micro
    """The smallest payout there, where that is above the policy's."""
    float_least: Micro
    float_most: Micro
    """Between these the worth of what the treasury there has free should be: less pays late, more is at risk."""

    def __post_init__(self) -> None:
        if min(self.minimum, self.float_least, self.float_most) < 0 or 0 < self.float_most < self.float_least:
            raise ValueError("0 <= float_least <= float_most does not hold")


@dataclass(frozen=True, slots=True)
class RailRules:
    """When a chain is relied on, and what holds on each chain alone: a section of the policy."""

    stale: timedelta = timedelta(minutes=15)
    """A chain whose last known ledger is older than this when a window is netted is not relied on."""
    stuck: timedelta = timedelta(hours=1)
    """Nor is one on which a payout has waited for longer than this."""
    chains: tuple[ChainRule, ...] = ()

    def __post_init__(self) -> None:
        names = [each.chain for each in self.chains]
        if len(set(names)) < len(names) or min(self.stale, self.stuck) <= timedelta(0):
            raise ValueError("a chain has one rule, and both times are above zero")

    def of(self, chain: str) -> ChainRule:
        """The rule of a chain."""
        return next((each for each in self.chains if each.chain == chain), ChainRule(chain, 0, 0, 0))

    def least(self, chain: str, everywhere: int) -> int:
        """The smallest payout on a chain in microCU; `everywhere` is the policy's."""
        return max(self.of(chain).minimum, everywhere)


@dataclass(frozen=True, slots=True)
class Condition:
    """What is on record of a chain: why an operator closed it, its last known ledger's close, which accounts may not
    sign, and since when the oldest open payout waits."""

    closed: str | None = None
    tip_at: datetime | None = None
    frozen: tuple[str, ...] = ()
    waiting_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rail:
    """A chain and asset that a provider can be paid on: what is due there, nothing when it is too little to be paid,
    and what is free there, in its units."""

    chain: str
    asset: str
    due: int
    free: int
    condition: Condition


@dataclass(frozen=True, slots=True)
class Choice:
    """The rail that was taken, and why."""

    rail: Rail
    reason: str


def choose(first: Rail, fallback: Rail | None, now: datetime, rules: RailRules) -> Choice:
    """The rail to pay on."""
    trouble = unusable(first, now, rules)
    if trouble is None:
        return Choice(first, f"{first.chain} is the provider's first choice and can be used")
    if fallback is None:
        return Choice(first, f"{first.chain}: {trouble}; there is no fallback")
    other = unusable(fallback, now, rules)
    if other is None:
        return Choice(fallback, f"{first.chain}: {trouble}; {fallback.chain} can be used")
    return Choice(first, f"{first.chain}: {trouble}; {fallback.chain}: {other}")


def unusable(rail: Rail, now: datetime, rules: RailRules) -> str | None:
    """Why nothing should be sent on a rail now, by the first rule that it breaks; None when it can be used."""
    if (why := trouble(rail.condition, now, rules)) is not None:
        return why
    if rail.due <= 0:
        return "what is due is too little to be paid there"
    if rail.free < rail.due:
        return f"{rail.free} units of {rail.asset} are free, {rail.due} are due"
    return None


def trouble(condition: Condition, now: datetime, rules: RailRules) -> str | None:
    """Why a chain is not to be relied on now, whatever is due there; None when it is well."""
    if condition.closed is not None:
        return f"closed by the operator: {condition.closed}"
    if condition.tip_at is None:
        return "not opened yet"
    if now - condition.tip_at > rules.stale:
        return f"no ledger is known since {condition.tip_at.isoformat()}"
    if condition.frozen:
        return f"{len(condition.frozen)} of its accounts may not sign"
    if condition.waiting_since is not None and now - condition.waiting_since > rules.stuck:
        return f"a payout waits since {condition.waiting_since.isoformat()}"
    return None
