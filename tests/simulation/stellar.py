"""Crash schedules on the real Stellar adapter, with scripted RPC nodes behind it on real sockets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stellar_sdk import IdMemo, Keypair

from adapters.stellar import StellarAdapter
from adapters.stellar.assets import sdk_asset
from settlement.core.signatures import SigningKey
from settlement.services.context import Context
from tests.simulation.crashing import CrashingAdapter, CrashingDatabase, Effects
from tests.simulation.harness import Installation
from tests.stellarnet.network import Plan, StellarNet
from tests.stellarnet.peer import TREASURY, USDC, StellarPeer, payment
from tests.world import SeededSources

RATES = {
    "unreachable": 10_000,
    "request_lost": 120_000,
    "reply_lost": 150_000,
    "duplicate": 80_000,
    "late": 200_000,
    "at_last": 200_000,
    "restart": 80_000,
    "failed": 300_000,
    "fee_spike": 80_000,
    "lagging": 30_000,
    "gap": 30_000,
    "try_again": 120_000,
}
"""Chances in millionths, most of them for each request: far worse than any real node."""
STRANGER = {**RATES, "stranger": 500_000}
RICH = 10**17
"""Stroops of the treasury, which pays the fees of all schedules."""


@dataclass(frozen=True)
class Account:
    """Somebody's account on the network."""

    key: Keypair

    @property
    def address(self) -> str:
        return self.key.public_key


class StellarInstallation(Installation):
    """A database and a Stellar network that many schedules run on, one window each, three payouts a transaction."""

    chain = "stellar"
    asset = USDC
    peer: StellarPeer
    adapter: StellarAdapter

    @classmethod
    async def begin(cls, url: str, seed: int, *, nodes: int = 1) -> StellarInstallation:
        sources = SeededSources(seed)
        effects = Effects(random.Random(seed))
        database = CrashingDatabase(url, effects)
        # keywords or a stand-in of any type
        made = cls(None, Path(), None, sources, effects, database, None)  # type: ignore[arg-type]
        made.peer = await started(sources, nodes=nodes)
        made.adapter = made.peer.adapter
        await made._found()
        return made

    async def close(self) -> None:
        await self.database.close()
        await self.peer.stop()

    def process(self) -> Context:
        """A fresh process; the connections are shared, since a pool of its own would change nothing but the time."""
        adapter = CrashingAdapter(self.adapter, self.effects)
        return Context(self.database, self.sources, SigningKey(bytes(range(32))), {self.chain: adapter})

    # --- the hooks ------------------------------------------------------------------------------------------------

    def _wallet(self, *, usd: int = 0) -> Any:
        return Account(self.peer.customer(usdc=usd))

    def _pay(self, amount: int, tag: int | None) -> None:
        payer: Any = self.payer
        self.peer.net.send(payer.key, [payment(amount)], None if tag is None else IdMemo(tag))

    def _balance(self, wallet: Any) -> int:
        return self.peer.net.balance(wallet.address, USDC.text)

    def _shy(self, address: str, shy: bool) -> None:
        data = self.peer.net.accounts[address].data
        data.pop("config.memo_required", None)
        if shy:
            data["config.memo_required"] = b"1"

    def _break(self, seed: int, rates: dict[str, int]) -> None:
        self.peer.net.plan = Plan(seed, rates, fired=self.peer.net.plan.fired)

    def _mend(self) -> None:
        self.peer.net.plan = Plan(fired=self.peer.net.plan.fired)
        self.peer.net.spike_until = 0
        self.sources.settable.advance(seconds=60)

    def _next_number(self, account: str) -> int:
        return self.peer.net.accounts[account].sequence + 1

    def _landed(self, order_id: str, attempts: Sequence[str]) -> list[tuple[str, int]]:
        found = [self.peer.net.final.get(name) for name in attempts]
        return [(each.inner_hash, each.ledger) for each in found if each is not None and each.ok]

    def _spent(self) -> dict[str, int]:
        own = {TREASURY.public_key, *self.peer.channels}
        ours = [each for each in self.peer.net.order if each.inner.source.account_id in own]
        return {each.inner_hash: each.fee for each in ours}

    async def _pause(self) -> None:
        """One ledger; while faults are on, now and then so many that nobody looked while a transaction could land."""
        slow = self.effects.armed and self.effects.dice.random() < 0.15
        for _ in range(self.effects.dice.randint(2, 24) if slow else 1):
            self.peer.net.close()


async def started(sources: SeededSources, *, nodes: int = 1) -> StellarPeer:
    """A network whose treasury can pay for all that comes."""
    peer = await StellarPeer.start(StellarNet(), nodes=nodes, sources=sources, agreement=nodes, batch=3, expiry=60)
    treasury = peer.net.accounts[TREASURY.public_key]
    treasury.balance = RICH
    peer.net.trust(TREASURY.public_key, sdk_asset(USDC), balance=RICH)
    return peer
