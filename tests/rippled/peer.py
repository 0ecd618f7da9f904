"""The adapter under test with a scripted network behind it: servers on loopback, a treasury, an issuer, strangers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from typing import Any

from adapters.nodes import Nodes
from adapters.xrpl import Settings, XrplAdapter, rpc
from adapters.xrpl.amounts import XRP
from adapters.xrpl.signing import Keys
from settlement.chain import Asset, Order, Signer
from settlement.signers.local import LocalSigner
from tests.adapters.contract import FUNDED, Landed
from tests.loopback import Loopback
from tests.rippled.engine import REQUIRE_TAG, Engine
from tests.rippled.face import Node
from tests.rippled.wallets import Wallet
from tests.world import SeededSources

ISSUER, IMPOSTOR = Wallet("issuer"), Wallet("impostor")
RLUSD = "524C555344000000000000000000000000000000"
STABLE = Asset("RLUSD", ISSUER.address)
KEY = (RLUSD, ISSUER.address)


def signer(name: str) -> LocalSigner:
    """The key of the wallet of that name, as the service holds it."""
    return LocalSigner("ed25519", sha256(name.encode()).digest())


class XrplPeer:
    """A `Peer` of tests/adapters/contract.py, and more of the network for the tests of this adapter alone."""

    stable = STABLE
    foreign = Asset("RLUSD", IMPOSTOR.address)

    def __init__(self, engine: Engine, nodes: Sequence[Node], sources: SeededSources) -> None:
        self.engine = engine
        self.nodes = list(nodes)
        self.sources = sources
        self.wallet = Wallet("treasury")  # the same key as the signer's, for the stranger who has stolen it
        self.payer = Wallet("payer")
        self.urls: list[str] = []
        self.keys: list[Signer] = [signer("treasury")]
        """What the adapters that are opened sign with."""
        self.settings: Settings
        self.adapter: XrplAdapter
        self._opened: list[XrplAdapter] = []
        self._closing = AsyncExitStack()
        self._count = 0

    @classmethod
    async def start(
        cls, *, nodes: int = 1, network_id: int = 1, sources: SeededSources | None = None, **settings: Any
    ) -> XrplPeer:
        """A network with a funded treasury, and an adapter on `nodes` servers of it."""
        engine = Engine(network_id)
        made = cls(engine, [Node(engine, seed) for seed in range(nodes)], sources or SeededSources())
        for node in made.nodes:
            node.stranger_blob = made.wallet.overtaking
            made.urls.append((await made._closing.enter_async_context(Loopback(node.answer))).url)
        for wallet in (made.wallet, made.payer, ISSUER, IMPOSTOR):
            engine.account(wallet.address, 10**12)
        engine.give(made.wallet.address, KEY, f"{FUNDED // 10**6}")
        engine.give(made.payer.address, KEY, "1000000000")
        engine.give(made.wallet.address, (RLUSD, IMPOSTOR.address), "5")
        engine.give(made.payer.address, (RLUSD, IMPOSTOR.address), "1000000")
        engine.close()
        given = {"assets": {STABLE: 6}, **settings}
        made.settings = Settings(tuple(made.urls), network_id, made.wallet.address, **given)
        made.adapter = made.open()
        return made

    def open(self, *, tries: int = 1) -> XrplAdapter:
        """An adapter as another process would open it."""
        nodes = Nodes(
            self.settings.nodes,
            network=f"xrpl:{self.settings.network_id}",
            identify=rpc.identify,
            clock=self.sources.clock,
            entropy=self.sources.entropy,
            tries=tries,
        )
        made = XrplAdapter(self.settings, nodes, Keys(self.keys))
        self._opened.append(made)
        return made

    async def stop(self) -> None:
        for adapter in self._opened:
            await adapter.close()
        await self._closing.aclose()

    def second(self) -> XrplAdapter:
        return self.open()

    async def payee(self, *, needs_reference: bool = False) -> str:
        self._count += 1
        wallet = Wallet(f"payee {self._count}")
        self.engine.account(wallet.address, flags=REQUIRE_TAG if needs_reference else 0)
        self.engine.give(wallet.address, KEY, "0")
        self.engine.close()
        return wallet.address

    def unknown(self) -> str:
        return Wallet("nobody").address

    def stated(self, asset: Asset, amount: int) -> Any:
        """The network's form of an amount, written independently of the adapter's."""
        if asset == XRP:
            return str(amount)
        return {"currency": RLUSD, "issuer": asset.issuer, "value": f"{amount // 10**6}.{amount % 10**6:06d}"}

    async def pay_in(self, asset: Asset, amount: int, reference: int | None, *, partial: int | None = None) -> str:
        more: dict[str, Any] = {}
        if partial is not None:
            more = {"Flags": 0x00020000, "SendMax": self.stated(asset, partial)}
        return self.payer.pay(self.engine, self.adapter.treasury, self.stated(asset, amount), reference, **more)

    async def pay_in_failing(self, reference: int) -> str:
        beyond = self.stated(STABLE, 10**18)
        return self.payer.pay(self.engine, self.adapter.treasury, beyond, reference)

    async def balance(self, address: str, asset: Asset) -> int:
        if asset == XRP:
            return int(self.engine.held(address, ("XRP", "")))
        return int(self.engine.held(address, (RLUSD, asset.issuer)) * 10**6)

    async def on_chain(self, order: Order) -> Sequence[Landed]:
        name = order.id.encode()
        invoice = name.ljust(32, b"\0").hex().upper()
        found = []
        for landed in self.engine.landed.values():
            memos = [each["Memo"] for each in landed.tx.get("Memos", [])]
            named = any(bytes.fromhex(memo["MemoData"]) == name for memo in memos)
            if landed.tx.get("InvoiceID") == invoice or named:
                anchors = [memo["MemoData"] for memo in memos if memo["MemoType"] == b"settlement/anchor".hex().upper()]
                found.append(Landed(landed.result == "tesSUCCESS", bytes.fromhex("".join(anchors))))
        return found

    async def close_ledgers(self, count: int = 1) -> None:
        self.engine.close(count)

    def arm(self, fault: str, times: int = 1) -> None:
        self.nodes[0].armed[fault] += times
