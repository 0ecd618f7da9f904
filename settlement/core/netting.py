"""Multilateral netting of one window: who owes whom becomes one position for each party, exactly.

An obligation is what a consumer owes a provider, in whole microCU (what is below one microCU is carried outside, per
pair). A *party* is an organisation: a provider and the consumer account that it named as its own are one party, known
by the provider's id. Positions sum to zero, and no party's position differs from the sum of its obligations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from settlement.core.errors import Broken


@dataclass(frozen=True, slots=True)
class Obligation:
    """`amount` microCU, >= 0, that `consumer` owes `provider` for one window."""

    consumer: str
    provider: str
    amount: int


@dataclass(frozen=True, slots=True)
class Position:
    """A party's window in microCU: `spent` as a consumer, `earned` as a provider.

    `netted` is the part of its earnings that pays for its own usage: it moves from the provider's account back to the
    consumer's, and leaves nothing to be paid out for it.
    """

    party: str
    spent: int
    earned: int
    netted: int

    @property
    def net(self) -> int:
        """What the others owe the party; below zero when the party owes them."""
        return self.earned - self.spent


def net(obligations: Iterable[Obligation], links: Mapping[str, str]) -> list[Position]:
    """The position of every party that has an obligation, in the order of party ids.

    `links` leads from a consumer account to the provider that named it. Raises Broken ``obligation_negative``.
    """
    spent: dict[str, int] = {}
    earned: dict[str, int] = {}
    for owed in obligations:
        if owed.amount < 0:
            raise Broken("obligation_negative", f"{owed.consumer} owes {owed.provider} {owed.amount} microCU")
        spent[owed.consumer] = spent.get(owed.consumer, 0) + owed.amount
        earned[owed.provider] = earned.get(owed.provider, 0) + owed.amount
    return positions(spent, earned, links)


def positions(spent: Mapping[str, int], earned: Mapping[str, int], links: Mapping[str, str]) -> list[Position]:
    """`net` from sums: what each consumer account owes and what each provider is owed, in microCU."""
    paid: dict[str, int] = {}
    for account, amount in spent.items():
        payer = links.get(account, account)
        paid[payer] = paid.get(payer, 0) + amount
    linked = set(links.values())
    return [
        _position(party, paid.get(party, 0), earned.get(party, 0), party in linked)
        for party in sorted(paid.keys() | earned.keys())
    ]


def _position(party: str, spent: int, earned: int, linked: bool) -> Position:
    return Position(party, spent, earned, min(spent, earned) if linked else 0)


def owed_after_netting(positions: Iterable[Position]) -> int:
    """What must still change hands in microCU: the sum of the positions above zero."""
    return sum(max(0, position.net) for position in positions)


def value_netting_ratio(gross: int, positions: Iterable[Position]) -> Fraction:
    """nu = 1 - sum(max(0, net)) : sum(obligations) (ECONOMICS 7.1); 0 when nothing was owed."""
    return 1 - Fraction(owed_after_netting(positions), gross) if gross else Fraction(0)
