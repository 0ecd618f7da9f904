"""The XRP Ledger and Stellar in one service: failover in the middle of a payout, on the shipped adapters, pays once.

Processes die, and both networks have their faults. How many schedules is decided by SETTLEMENT_NETWORK_SCHEDULES; `make
nightly` runs 1,000. A service that takes silence for death must be caught by the same judge.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from settlement.services import outcomes, rails
from settlement.services.context import Context
from settlement.services.rails import GivenUp
from settlement.storage import chain_orders
from tests.simulation import stellar, xrpl
from tests.simulation.two_rails import MOMENTS, TwoRails, judge
from tests.simulation.xrpl import XrplInstallation
from tests.stellarnet.network import Plan
from tests.stellarnet.peer import USDC, StellarPeer

pytestmark = pytest.mark.network

FRESH = int.from_bytes(os.urandom(4), "big")
MOST = 30
"""Schedules within which the shortcut must have been caught."""


class TwoNetworks(TwoRails, XrplInstallation):
    """First the XRP Ledger, then Stellar."""

    second, second_asset, rates = "stellar", USDC, xrpl.RATES
    other: StellarPeer

    @classmethod
    async def both(cls, url: str, seed: int) -> TwoNetworks:
        made = await cls.begin(url, seed, nodes=1, tickets=False)
        made.other = await stellar.started(made.sources)
        made.there = made.other.adapter
        await made.begin_there()
        return made

    async def close(self) -> None:
        await super().close()
        await self.other.stop()

    def _new_there(self) -> Any:
        return stellar.Account(self.other.customer())

    def _there(self, wallet: Any) -> int:
        return self.other.net.balance(wallet.address, USDC.text)

    def _break_there(self, seed: int) -> None:
        rates = {**stellar.RATES, "failed": 0}  # a payee at fault would be paid by a third window
        self.other.net.plan = Plan(seed, rates, fired=self.other.net.plan.fired)

    def _mend_there(self) -> None:
        self.other.net.plan = Plan(fired=self.other.net.plan.fired)
        self.other.net.spike_until = 0
        self.sources.settable.advance(seconds=60)

    async def _pause(self) -> None:
        await super()._pause()
        if self.there is not None:
            self.other.net.close()


async def run(url: str, schedules: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    made = await TwoNetworks.both(url, 78)
    try:
        for turn in range(schedules):
            await made.two_windows(turn if turn % 2 else FRESH * MOMENTS + turn, seen)
        seen.update(made.effects.died)
        seen.update({f"stellar {kind}": count for kind, count in made.other.net.plan.fired.items()})
        seen.update({f"xrpl {kind}": count for node in made.peer.nodes for kind, count in node.fired.items()})
    finally:
        await made.close()
    return seen


async def test_failover_from_the_xrp_ledger_to_stellar_pays_everybody_once(new_database: Callable[[], str]) -> None:
    schedules = int(os.environ.get("SETTLEMENT_NETWORK_SCHEDULES", "5"))
    judge(schedules, await run(new_database(), schedules))


async def test_a_service_that_takes_silence_for_death_is_caught(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded: what isn't known to have landed is given up with the rest, as a time-out would. What arrived shows it, or
    one of the checks before: books and chains can't agree any more."""

    async def impatient(context: Context, chain: str) -> GivenUp:
        async with context.database.read() as connection:
            out = await chain_orders.in_states(connection, chain, ("planned", "submitted", "unknown"))
        found = [await outcomes.give_up(context, order, "no answer") for order in out if order.kind == "payout"]
        return GivenUp(sum(found), 0)

    monkeypatch.setattr(rails, "give_up", impatient)
    with pytest.raises(AssertionError, match="SIM_SEED"):
        await run(new_database(), MOST)


@pytest.mark.nightly
async def test_a_thousand_failovers_from_the_xrp_ledger_to_stellar(new_database: Callable[[], str]) -> None:
    judge(1_000, await run(new_database(), 1_000))
