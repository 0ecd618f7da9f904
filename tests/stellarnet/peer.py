"""Stellar's side of the contract: an adapter over real sockets, and everybody else on the network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256

from stellar_sdk import Asset as SdkAsset
from stellar_sdk import IdMemo, Keypair, Payment

from adapters.nodes import Nodes
from adapters.stellar import Settings, StellarAdapter, horizon, rpc
from adapters.stellar.assets import XLM, network_of, sdk_asset
from settlement.chain import AnchorOrder, Asset, Order, PayoutOrder, Transfer
from settlement.signers.local import LocalSigner
from tests.adapters.contract import FUNDED, Landed
from tests.loopback import Loopback
from tests.stellarnet.face import HorizonFace, RpcFace
from tests.stellarnet.network import PASSPHRASE, StellarNet, payments_with
from tests.world import SeededSources

CHANNELS = 5


def key_of(name: str) -> Keypair:
    return Keypair.from_raw_ed25519_seed(sha256(name.encode()).digest())


TREASURY, ISSUER, OTHER_ISSUER = key_of("treasury"), key_of("issuer"), key_of("another issuer")
TREASURY_SEED = TREASURY.raw_secret_key()
USDC = Asset("USDC", ISSUER.public_key)


class StellarPeer:
    """One node, one Horizon server if asked for, and an adapter with five channels."""

    def __init__(self, net: StellarNet, sources: SeededSources | None = None) -> None:
        self.net = net
        self.sources = sources or SeededSources()
        self.stable = USDC
        self.foreign = Asset("USDC", OTHER_ISSUER.public_key)
        self.channels = [key_of(f"channel {number}").public_key for number in range(CHANNELS)]
        self.key: Keypair | None = None
        """What signs for the treasury, when that is not its master key."""
        self.rpc: list[RpcFace] = []
        self.horizon: HorizonFace | None = None
        self.adapter: StellarAdapter
        self._urls: list[str] = []
        self._history: list[str] = []
        self._closing = AsyncExitStack()
        self._count = 0

    @classmethod
    async def start(
        cls,
        net: StellarNet | None = None,
        *,
        nodes: int = 1,
        history: bool = False,
        sources: SeededSources | None = None,
        **more: object,
    ) -> StellarPeer:
        made = cls(net or StellarNet(), sources)
        made.populate()
        for _ in range(nodes):
            made.rpc.append(RpcFace(made.net))
            made._urls.append((await made._closing.enter_async_context(Loopback(made.rpc[-1].answer))).url)
        if history:
            made.horizon = HorizonFace(made.net)
            made._history.append((await made._closing.enter_async_context(Loopback(made.horizon.answer))).url)
        made.adapter = made.second(**more)
        return made

    async def stop(self) -> None:
        await self.adapter.close()
        await self._closing.aclose()

    def populate(self) -> None:
        net, asset = self.net, sdk_asset(USDC)
        for key in (TREASURY, ISSUER, OTHER_ISSUER):
            net.create(key.public_key)
        net.trust(TREASURY.public_key, asset, balance=FUNDED)
        net.trust(TREASURY.public_key, sdk_asset(self.foreign))
        for channel in self.channels:
            net.create(channel, xlm=0, signers={TREASURY.public_key})
        net.thieves = dict.fromkeys((*self.channels, TREASURY.public_key), TREASURY)

    def second(self, **more: object) -> StellarAdapter:
        settings = Settings(
            nodes=tuple(self._urls),
            passphrase=PASSPHRASE,
            treasury=TREASURY.public_key,
            assets=(USDC,),
            channels=tuple(self.channels),
        )
        apart = {name: more.pop(name) for name in ("issuing", "links") if name in more}
        settings = replace(settings, **more)  # type: ignore[arg-type]
        network = network_of(PASSPHRASE)
        clock, entropy = self.sources.clock, self.sources.entropy
        nodes = Nodes(self._urls, network=network, identify=rpc.identify, clock=clock, entropy=entropy, tries=1)
        history = None
        if self._history:
            identify = horizon.identify
            history = Nodes(self._history, network=network, identify=identify, clock=clock, entropy=entropy, tries=1)
        signer = LocalSigner("ed25519", TREASURY_SEED if self.key is None else self.key.raw_secret_key())
        # keywords or a stand-in of any type
        return StellarAdapter(settings, nodes, history, signer, **apart)  # type: ignore[arg-type]

    def unknown(self) -> str:
        return key_of("nobody").public_key

    async def payee(self, *, needs_reference: bool = False) -> str:
        return self.customer(needs_reference=needs_reference).public_key

    def customer(self, *, needs_reference: bool = False, usdc: int = 0) -> Keypair:
        """A fresh account with a trust line."""
        self._count += 1
        key = key_of(f"customer {self._count}")
        self.net.create(key.public_key)
        self.net.trust(key.public_key, sdk_asset(USDC), balance=usdc)
        if needs_reference:
            self.net.accounts[key.public_key].data["config.memo_required"] = b"1"
        return key

    async def pay_in(self, asset: Asset, amount: int, reference: int | None, *, partial: int | None = None) -> str:
        payer = OTHER_ISSUER if asset == self.foreign else self.customer(usdc=FUNDED)
        arrives = amount if partial is None else partial
        memo = None if reference is None else IdMemo(reference)
        return self.net.send(payer, [payment(arrives, asset)], memo)

    async def pay_in_failing(self, reference: int) -> str:
        payer = self.customer()
        return self.net.send(payer, [payment(5, USDC)], IdMemo(reference))

    async def balance(self, address: str, asset: Asset) -> int:
        return self.net.balance(address, asset.text)

    async def on_chain(self, order: Order) -> Sequence[Landed]:
        memo = order.digest if isinstance(order, AnchorOrder) else root_of(order)
        digest = order.digest if isinstance(order, AnchorOrder) else b""
        return [Landed(each.ok, digest) for each in payments_with(self.net, memo)]

    async def close_ledgers(self, count: int = 1) -> None:
        for _ in range(count):
            self.net.close()

    def arm(self, fault: str, times: int = 1) -> None:
        self.net.plan.armed[fault] += times


async def batch(peer: StellarPeer, count: int) -> PayoutOrder:
    """So many payouts of 100 units and more to fresh accounts."""
    made = [Transfer(await peer.payee(), USDC, 100 + n, None, f"pay_{n}") for n in range(count)]
    return PayoutOrder("ord_1", tuple(made))


def payment(amount: int, asset: Asset = USDC, to: str = TREASURY.public_key) -> Payment:
    return Payment(
        to, SdkAsset.native() if asset == XLM else sdk_asset(asset), f"{amount // 10**7}.{amount % 10**7:07d}"
    )


def root_of(order: Order) -> bytes:
    """The Merkle root that a batch's memo must carry, written out again from RFC 9162."""
    assert not isinstance(order, AnchorOrder)
    level = [sha256(b"\0" + (each.id or order.id).encode()).digest() for each in order.transfers]

    def root(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        half = 1 << (len(leaves) - 1).bit_length() - 1
        return sha256(b"\1" + root(leaves[:half]) + root(leaves[half:])).digest()

    return root(level)
