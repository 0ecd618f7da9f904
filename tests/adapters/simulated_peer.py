"""The simulated network's side of the contract: accounts, strangers and faults, through the node itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from adapters.simulated import USD, Key, Network, SimulatedAdapter, Wallet
from settlement.chain import Asset, Order
from tests.adapters.contract import FUNDED, Landed

START = datetime(2026, 11, 22, tzinfo=UTC)


def seed_of(text: str) -> bytes:
    return sha256(text.encode()).digest()


class SimulatedPeer:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.network = Network(path, "contract", clock=lambda: START, durable=False)
        self.adapter = SimulatedAdapter(self.network, Key(seed_of("treasury")), page_rows=3)
        self.network.create_account(self.adapter.treasury, usd=FUNDED)
        self._consumer = Wallet.create(self.network, seed_of("consumer"), usd=FUNDED)
        self._issuer = Wallet.create(self.network, seed_of("another issuer"))
        self.stable = USD
        self.foreign = Asset("USD", self._issuer.address)
        self._count = 0

    def second(self) -> SimulatedAdapter:
        network = Network(self._path, "contract", clock=lambda: START, durable=False)
        return SimulatedAdapter(network, Key(seed_of("treasury")))

    def unknown(self) -> str:
        return Key(seed_of("nobody")).address

    async def payee(self, *, needs_reference: bool = False) -> str:
        self._count += 1
        address = Wallet.create(self.network, seed_of(f"payee {self._count}")).address
        self.network.require_reference(address, needs_reference)
        return address

    async def pay_in(self, asset: Asset, amount: int, reference: int | None, *, partial: int | None = None) -> str:
        payer = self._issuer if asset == self.foreign else self._consumer
        return payer.pay(self.adapter.treasury, asset, amount, reference, partial=partial)

    async def pay_in_failing(self, reference: int) -> str:
        return self._consumer.pay(self.adapter.treasury, USD, FUNDED + 1, reference)

    async def balance(self, address: str, asset: Asset) -> int:
        return self.network.balance(address, asset)

    async def on_chain(self, order: Order) -> Sequence[Landed]:
        return [Landed(found.result == "ok", found.memo) for found in self.network.by_invoice(order.id)]

    async def close_ledgers(self, count: int = 1) -> None:
        for _ in range(count):
            self.network.close_ledger()

    def arm(self, fault: str, times: int = 1) -> None:
        self.network.arm(fault, times)
