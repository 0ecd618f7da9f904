"""Two simulated chains in one service: failover in the middle of a payout pays nobody twice, and is quick to run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.simulated import USD, Network, SimulatedAdapter, Wallet
from tests.simulation.harness import RATES
from tests.simulation.two_rails import MOMENTS, TwoRails, judge


class SimulatedRails(TwoRails):
    """Two networks in files; the first one has the faults."""

    second, second_asset, rates = "second", USD, RATES
    other: Network

    async def begin(self, folder: Path, seed: int) -> None:
        path = folder / f"second-{seed}.sqlite"
        clock, interval = self.sources.clock, timedelta(0)
        self.other = Network(
            path, "second", clock=clock, close_interval=interval, transfers=3, atomic=True, durable=False
        )
        self.other.create_account(self.treasury.address, sim=10**12, usd=10**12)
        self.there = SimulatedAdapter(self.other, self.treasury)
        await self.begin_there()

    def _new_there(self) -> Wallet:
        return Wallet.create(self.other, self.sources.entropy(32))

    def _there(self, wallet: Any) -> int:
        return int(wallet.balance(USD))

    async def _pause(self) -> None:
        self.network.close_ledger()


async def run(url: str, folder: Path, schedules: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    made = await SimulatedRails.found(url, folder, 77)
    assert isinstance(made, SimulatedRails)
    await made.begin(folder, 77)
    try:
        fresh = int.from_bytes(os.urandom(4), "big")
        for turn in range(schedules):
            await made.two_windows(turn if turn % 2 else fresh * MOMENTS + turn, seen)
        seen.update(made.effects.died)
    finally:
        await made.close()
        made.other.close()
    return seen


async def test_failover_between_two_chains_pays_everybody_once(new_database: Callable[[], str], tmp_path: Path) -> None:
    schedules = int(os.environ.get("SETTLEMENT_RAIL_SCHEDULES", "8"))
    judge(schedules, await run(new_database(), tmp_path, schedules))


@pytest.mark.nightly
async def test_a_thousand_failovers_between_two_chains(new_database: Callable[[], str], tmp_path: Path) -> None:
    judge(1_000, await run(new_database(), tmp_path, 1_000))
