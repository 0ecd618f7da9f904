"""Which of a provider's two rails a window pays on: a choice with its reason, made from recorded facts alone.

A rail is a chain as a way to pay. The provider's own choice goes first; its fallback is taken only when the first can't
be used and the fallback can. When neither can, the first keeps the payout, which waits there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

STALE = timedelta(minutes=15)
"""A chain whose last known ledger is older than this when a window is netted is not relied on."""

STUCK = timedelta(hours=1)
"""Nor is one on which a payout has waited for longer than this."""


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
    """A chain and asset that a provider can be paid on: what is due there, and what is free there, in its units."""

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


def choose(first: Rail, fallback: Rail | None, now: datetime) -> Choice:
    """The rail to pay on."""
    trouble = unusable(first, now)
    if trouble is None:
        return Choice(first, f"{first.chain} is the provider's first choice and can be used")
    if fallback is None:
        return Choice(first, f"{first.chain}: {trouble}; there is no fallback")
    other = unusable(fallback, now)
    if other is None:
        return Choice(fallback, f"{first.chain}: {trouble}; {fallback.chain} can be used")
    return Choice(first, f"{first.chain}: {trouble}; {fallback.chain}: {other}")


def unusable(rail: Rail, now: datetime) -> str | None:
    """Why nothing should be sent on a rail now, by the first rule that it breaks; None when it can be used."""
    condition = rail.condition
    if condition.closed is not None:
        return f"closed by the operator: {condition.closed}"
    if condition.tip_at is None:
        return "not opened yet"
    if now - condition.tip_at > STALE:
        return f"no ledger is known since {condition.tip_at.isoformat()}"
    if condition.frozen:
        return f"{len(condition.frozen)} of its accounts may not sign"
    if condition.waiting_since is not None and now - condition.waiting_since > STUCK:
        return f"a payout waits since {condition.waiting_since.isoformat()}"
    if rail.due <= 0:
        return "what is due is less than one unit there"
    if rail.free < rail.due:
        return f"{rail.free} units of {rail.asset} are free, {rail.due} are due"
    return None
