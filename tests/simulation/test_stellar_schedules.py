"""Nothing lost, doubled or stuck on Stellar: crash schedules on the shipped adapter, services and database.

How many is decided by SETTLEMENT_STELLAR_SCHEDULES; `make nightly` runs 5,000. A long run that never saw some fault or
some legal step counts as failed. The shortcuts that everybody takes, taken on purpose, must turn the schedules red.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from adapters.stellar import StellarAdapter
from settlement.chain import Failed, Outcome, Pending, Rejected, Settled, Transaction, Unreachable
from settlement.core.errors import SettlementError
from settlement.core.states import ORDER_STEPS
from tests.simulation.harness import BY_A_PERSON, LONG, SURE
from tests.simulation.stellar import RATES, STRANGER, StellarInstallation
from tests.stellarnet.network import KINDS

pytestmark = pytest.mark.network

FRESH = int.from_bytes(os.urandom(4), "big")
MOST = 25
"""Schedules within which a shortcut must have been caught; most are in the first few."""


async def run(new_database: Callable[[], str], schedules: int) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """That many schedules: on one node, on two that must agree, and a fifth with a stranger who has our key."""
    fired: Counter[str] = Counter()
    walked: Counter[tuple[str, str]] = Counter()

    async def lane(number: int, count: int, rates: dict[str, int], *, nodes: int) -> None:
        found = await StellarInstallation.begin(new_database(), number, nodes=nodes)
        try:
            for turn in range(count):
                await found.schedule(number * 1_000_000 + turn + (0 if turn % 2 else FRESH), rates)
            await found.audit(strangers=rates is STRANGER)
        finally:
            await found.close()
        fired.update(found.peer.net.plan.fired)
        walked.update(found.walked)

    fifth = max(2, schedules // 5)
    async with asyncio.TaskGroup() as group:
        group.create_task(lane(1, schedules - 2 * fifth, RATES, nodes=1))
        group.create_task(lane(2, fifth, RATES, nodes=2))
        group.create_task(lane(3, fifth, STRANGER, nodes=1))
    return fired, walked


def judge(schedules: int, fired: Counter[str], walked: Counter[tuple[str, str]]) -> None:
    """Red when something never happened; in short runs, when what happens in every one did not."""
    print(f"\n{schedules} schedules; faults {dict(fired)}; steps {dict(walked)}")
    assert walked.keys() >= SURE
    assert sum(fired[name] > 0 for name in KINDS) >= len(KINDS) // 2
    if schedules < LONG:
        return
    each = 100 * schedules // 10_000
    assert {name for name in KINDS if fired[name] < each} == set()
    assert {step for step in ORDER_STEPS.keys() - BY_A_PERSON if walked[step] < max(1, each // 10)} == set()


async def test_nothing_lost_doubled_or_stuck_on_stellar(new_database: Callable[[], str]) -> None:
    schedules = int(os.environ.get("SETTLEMENT_STELLAR_SCHEDULES", "10"))
    judge(schedules, *await run(new_database, schedules))


@pytest.mark.nightly
async def test_five_thousand_schedules_on_stellar(new_database: Callable[[], str]) -> None:
    judge(5_000, *await run(new_database, 5_000))


# --- shortcuts --------------------------------------------------------------------------------------------------------


class Shortcut(StellarAdapter):
    """The shipped adapter, but for one thing."""

    lost: set[str]

    @classmethod
    def of(cls, adapter: StellarAdapter) -> Shortcut:
        made = cls(adapter._settings, adapter._nodes, adapter._history, adapter._signer)
        made.lost = set()
        return made

    async def submit(self, tx: Transaction) -> None:
        try:
            await super().submit(tx)
        except (Unreachable, Rejected):
            self.lost.add(tx.id)
            raise


class ProvisionalIsFinal(Shortcut):
    async def submit(self, tx: Transaction) -> None:
        await super().submit(tx)
        self.lost.discard(tx.id)

    async def status(self, tx: Transaction) -> Outcome:
        found = await super().status(tx)
        if not isinstance(found, Pending) or tx.id in self.lost:
            return found
        return Settled((await self.holdings()).at, _amounts(tx), 100)


class TimeoutIsFailure(Shortcut):
    async def status(self, tx: Transaction) -> Outcome:
        found = await super().status(tx)
        return Failed("timeout", None, used_slot=False) if tx.id in self.lost and isinstance(found, Pending) else found


class NotFoundIsFailure(Shortcut):
    async def status(self, tx: Transaction) -> Outcome:
        found = await super().status(tx)
        return Failed("not_found", None, used_slot=False) if isinstance(found, Pending) else found


def _amounts(tx: Transaction) -> tuple[int, ...]:
    from adapters.stellar.transactions import amount_of, payments_of, unpacked
    from tests.stellarnet.network import PASSPHRASE

    inner = unpacked(tx.blob, PASSPHRASE)[0].transaction.inner_transaction_envelope.transaction
    return tuple(amount_of(each) for each, _ in payments_of(inner))


@pytest.mark.parametrize("shortcut", [ProvisionalIsFinal, TimeoutIsFailure, NotFoundIsFailure])
async def test_a_shortcut_is_caught(new_database: Callable[[], str], shortcut: Any) -> None:
    found = await StellarInstallation.begin(new_database(), 5)
    found.adapter = shortcut.of(found.adapter)
    try:
        with pytest.raises((AssertionError, SettlementError, Rejected)):
            for seed in range(MOST):
                await found.schedule(seed, RATES)
            await found.audit()
    finally:
        await found.close()
