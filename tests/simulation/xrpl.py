"""Crash schedules on the real XRP Ledger adapter, with scripted rippled servers behind it on real sockets."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Self

from adapters.xrpl import XrplAdapter
from adapters.xrpl.account_setup import Wanted
from settlement.core.signatures import SigningKey
from settlement.services.context import Context
from tests.rippled.engine import REQUIRE_TAG
from tests.rippled.peer import KEY, RLUSD, STABLE, XrplPeer
from tests.rippled.wallets import Wallet
from tests.simulation.crashing import CrashingAdapter, CrashingDatabase, Effects
from tests.simulation.harness import Installation
from tests.world import SeededSources

RATES = {
    "unreachable": 4_000,
    "request_lost": 120_000,
    "reply_lost": 150_000,
    "duplicate": 80_000,
    "late": 150_000,
    "at_last": 60_000,
    "restart": 80_000,
    "failed": 100_000,
    "fee_spike": 50_000,
    "lagging": 12_000,
    "gap": 40_000,
    "hostile": 3_000,
    "rate_limited": 3_000,
}
"""Chances in millionths, most of them for each request: far worse than any real node."""
STRANGER = {**RATES, "stranger": 500_000}
START_BALANCE = 10**12


class XrplInstallation(Installation):
    """A database and an XRP Ledger that many schedules run on, one window each."""

    chain = "xrpl"
    asset = STABLE
    peer: XrplPeer
    adapter: XrplAdapter

    @classmethod
    async def begin(cls, url: str, seed: int, *, nodes: int, tickets: bool) -> Self:
        sources = SeededSources(seed)
        peer = await XrplPeer.start(
            nodes=nodes, sources=sources, agreement=nodes, wanted=Wanted(tickets=200 if tickets else 0)
        )
        effects = Effects(random.Random(seed))
        database = CrashingDatabase(url, effects)
        made = cls(None, Path(), None, sources, effects, database, None)  # type: ignore[arg-type]
        made.peer, made.adapter = peer, peer.adapter
        if tickets:
            peer.wallet.send(peer.engine, TransactionType="TicketCreate", TicketCount=200)
            peer.engine.close()
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
        if usd:
            return self.peer.payer
        wallet = Wallet(self.sources.entropy(32))
        self.peer.engine.account(wallet.address)
        self.peer.engine.give(wallet.address, KEY, "0")
        self.peer.engine.close()
        return wallet

    def _pay(self, amount: int, tag: int | None) -> None:
        value = {"currency": RLUSD, "issuer": STABLE.issuer, "value": f"{amount // 10**6}.{amount % 10**6:06d}"}
        self.peer.payer.pay(self.peer.engine, self.peer.adapter.treasury, value, tag)

    def _balance(self, wallet: Any) -> int:
        return int(self.peer.engine.held(wallet.address, KEY) * 10**6)

    def _shy(self, address: str, shy: bool) -> None:
        root = self.peer.engine.state.accounts[address]
        root.flags = root.flags | REQUIRE_TAG if shy else root.flags & ~REQUIRE_TAG
        self.peer.engine.close()

    def _break(self, seed: int, rates: dict[str, int]) -> None:
        for number, node in enumerate(self.peer.nodes):
            node.dice = random.Random(seed * 7 + number)
            node.rates = dict(rates)

    def _mend(self) -> None:
        for node in self.peer.nodes:
            node.rates = {}
        self.peer.engine.fee_until = 0
        self.sources.settable.advance(seconds=60)

    def _next_number(self, account: str) -> int:
        return self.peer.engine.state.accounts[account].sequence

    def _landed(self, order_id: str, attempts: Any) -> list[tuple[str, int]]:
        memo = order_id.encode().hex().upper()
        found = []
        for landed in self.peer.engine.by_account.get(self.peer.adapter.treasury, []):
            named = [each["Memo"]["MemoData"] for each in landed.tx.get("Memos", [])]
            if memo in named and landed.result == "tesSUCCESS":
                found.append((landed.id, landed.ledger))
        return found

    def _spent(self) -> dict[str, int]:
        ours = self.peer.engine.by_account[self.peer.adapter.treasury]
        own = [each for each in ours if each.tx["Account"] == self.peer.adapter.treasury]
        return {each.id: int(each.tx["Fee"]) for each in own if each.tx["TransactionType"] != "TicketCreate"}

    async def _pause(self) -> None:
        """One ledger; while faults are on, now and then so many that nobody looked while a transaction could land."""
        slow = self.effects.armed and self.effects.dice.random() < 0.15
        self.peer.engine.close(self.effects.dice.randint(2, 16) if slow else 1)
