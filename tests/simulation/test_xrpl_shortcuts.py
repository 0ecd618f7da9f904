"""The shortcuts that everybody takes, taken on purpose: each must turn the crash schedules red.

The fourth, expiry before the lookup, is caught where schedules are cheap: test_xrpl_adapter_schedules.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapters.xrpl import XrplAdapter
from settlement.chain import Failed, Outcome, Pending, Rejected, Settled, Transaction, Unreachable
from settlement.core.errors import SettlementError
from tests.simulation.xrpl import RATES, XrplInstallation

pytestmark = pytest.mark.network

MOST = 20
"""Schedules within which a shortcut must have been caught; most are in the first two."""


class Shortcut(XrplAdapter):
    """The shipped adapter, but for one thing."""

    accepted: set[str]
    lost: set[str]

    @classmethod
    def of(cls, adapter: XrplAdapter) -> Shortcut:
        made = cls(adapter._settings, adapter._nodes, adapter._keys)
        made.accepted, made.lost = set(), set()
        return made

    async def submit(self, tx: Transaction) -> None:
        try:
            await super().submit(tx)
            self.accepted.add(tx.id)
        except Unreachable:
            self.lost.add(tx.id)
            raise


class ProvisionalIsFinal(Shortcut):
    async def status(self, tx: Transaction) -> Outcome:
        found = await super().status(tx)
        if not isinstance(found, Pending) or tx.id not in self.accepted:
            return found
        tip = (await self.holdings()).at
        amount = _amount(tx)
        return Settled(tip, () if amount is None else (amount,), tx.fee)


class TimeoutIsFailure(Shortcut):
    async def status(self, tx: Transaction) -> Outcome:
        found = await super().status(tx)
        return Failed("timeout", None, used_slot=False) if tx.id in self.lost and isinstance(found, Pending) else found


class NotFoundIsFailure(Shortcut):
    async def status(self, tx: Transaction) -> Outcome:
        found = await super().status(tx)
        return Failed("not_found", None, used_slot=False) if isinstance(found, Pending) else found


def _amount(tx: Transaction) -> int | None:
    from adapters.xrpl.amounts import from_ledger, units
    from adapters.xrpl.transactions import decoded

    fields = decoded(tx.blob)
    return units(from_ledger(fields["Amount"]).value, 6)[0] if "Amount" in fields else None


@pytest.mark.parametrize("shortcut", [ProvisionalIsFinal, TimeoutIsFailure, NotFoundIsFailure])
async def test_a_shortcut_is_caught(new_database: Callable[[], str], shortcut: Any) -> None:
    found = await XrplInstallation.begin(new_database(), 5, nodes=1, tickets=False)
    found.adapter = shortcut.of(found.adapter)
    found.patience = (3, 40)  # one that signs again for ever is stuck long before
    try:
        with pytest.raises((AssertionError, SettlementError, Rejected)):
            for seed in range(MOST):
                await found.schedule(seed, RATES)
            await found.audit()
    finally:
        await found.close()
