"""The unchanged adapter on a real node: the whole contract, and tickets, partial payments and trust lines beside it.

The node is go-xrpl in standalone mode. Skipped, loudly, when it isn't there: `make test-nodes` obtains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from xrpl.core.addresscodec import decode_classic_address
from xrpl.core.binarycodec import encode, encode_for_signing

from adapters.nodes import Nodes
from adapters.xrpl import Settings, XrplAdapter, rpc
from adapters.xrpl.account_setup import Wanted
from adapters.xrpl.amounts import XRP
from adapters.xrpl.rpc import SignerList
from adapters.xrpl.signing import Keys
from adapters.xrpl.transactions import decoded, half_sha512
from settlement.chain import (
    AnchorOrder,
    Asset,
    Expired,
    Order,
    Outcome,
    PayoutOrder,
    Settled,
    SetupOrder,
    Signer,
    Slot,
    Transaction,
    Transfer,
    Unpayable,
)
from settlement.client.anchors import Anchor, check_anchor
from tests.adapters.contract import FUNDED, AdapterContract, Landed, Peer, all_deposits, hand_over
from tests.loopback import Loopback
from tests.nodes.xrpld import GENESIS, Proxy, Xrpld, binary, master
from tests.rippled.peer import IMPOSTOR, ISSUER, RLUSD, STABLE, signer
from tests.rippled.wallets import Wallet
from tests.world import SeededSources

pytestmark = [
    pytest.mark.network,
    pytest.mark.nodes,
    pytest.mark.skipif(binary() is None, reason="NO NODE: there is no xrpld; make test-nodes obtains one"),
]
REQUIRE_TAG, DEFAULT_RIPPLE = 1, 8


class RealPeer:
    """A `Peer` whose other side is the real node."""

    stable = STABLE
    foreign = Asset("RLUSD", IMPOSTOR.address)

    def __init__(self, node: Xrpld, proxy: Proxy, url: str) -> None:
        self.node, self.proxy, self.url = node, proxy, url
        self.sources = SeededSources()
        self.treasury, self.payer = Wallet("treasury"), Wallet("payer")
        self.payees: dict[str, Wallet] = {}
        self.sequences: dict[str, int] = {}
        self.opened: list[XrplAdapter] = []
        self.wanted = Wanted()
        self.assets = {STABLE: 6}
        self.keys: list[Signer] = [signer("treasury")]
        proxy.overtake = self.treasury.overtaking
        proxy.sabotage = self._sabotage
        self.adapter = self.second()

    def second(self) -> XrplAdapter:
        settings = Settings((self.url,), 1, self.treasury.address, self.assets, wanted=self.wanted)
        clock, entropy = self.sources.clock, self.sources.entropy
        nodes = Nodes(settings.nodes, network="xrpl:1", identify=rpc.identify, clock=clock, entropy=entropy, tries=1)
        made = XrplAdapter(settings, nodes, Keys(self.keys))
        self.opened.append(made)
        return made

    async def found(self) -> None:
        """Accounts, trust lines and money, by ordinary transactions."""
        for wallet in (self.treasury, self.payer, ISSUER, IMPOSTOR):
            await self.genesis_pays(wallet.address, 10**10)
        await self.node.close()
        for issuer in (ISSUER, IMPOSTOR):
            await self.send(issuer, TransactionType="AccountSet", SetFlag=DEFAULT_RIPPLE)
            for holder in (self.treasury, self.payer):
                await self.trust(holder, issuer, "10000000000")
        await self.node.close()
        for issuer in (ISSUER, IMPOSTOR):
            await self.pay(issuer, self.payer.address, _stated(issuer, "1000000000"))
        await self.pay(ISSUER, self.treasury.address, _stated(ISSUER, str(FUNDED // 10**6)))
        await self.node.close()

    async def stop(self) -> None:
        for adapter in self.opened:
            await adapter.close()

    async def genesis_pays(self, to: str, drops: int) -> None:
        public, signer = master()
        fields = await self._filled(GENESIS, TransactionType="Payment", Destination=to, Amount=str(drops))
        fields["SigningPubKey"] = public
        signature = await signer.sign(half_sha512(bytes.fromhex(encode_for_signing(fields))))
        await self._submit(encode({**fields, "TxnSignature": signature.hex().upper()}))

    async def send(self, wallet: Wallet, **fields: Any) -> str:
        return await self._submit(wallet.sign(await self._filled(wallet.address, **fields)))

    async def pay(self, wallet: Wallet, to: str, amount: Any, tag: int | None = None, **more: Any) -> str:
        tagged = {} if tag is None else {"DestinationTag": tag}
        return await self.send(wallet, TransactionType="Payment", Destination=to, Amount=amount, **tagged, **more)

    async def trust(self, holder: Wallet, issuer: Wallet, limit: str) -> None:
        await self.send(holder, TransactionType="TrustSet", LimitAmount=_stated(issuer, limit), Flags=0x00020000)

    async def _filled(self, address: str, **fields: Any) -> dict[str, Any]:
        info = await self.node.ask("account_info", account=address, ledger_index="validated")
        sequence = max(info["account_data"]["Sequence"], self.sequences.get(address, 0))
        self.sequences[address] = sequence + 1
        return {"Account": address, "Sequence": sequence, "Fee": "20", "Flags": 0, **fields}

    async def _submit(self, blob: str) -> str:
        done = await self.node.ask("submit", tx_blob=blob)
        assert done["engine_result"][:3] in ("tes", "tec"), done
        return str(done["tx_json"]["hash"])

    async def _sabotage(self) -> None:
        """The payee gives its trust line up just before it is paid."""
        for wallet in self.payees.values():
            await self.trust(wallet, ISSUER, "0")
        await self.node.close()

    async def payee(self, *, needs_reference: bool = False) -> str:
        wallet = Wallet(f"payee {len(self.payees)}")
        self.payees[wallet.address] = wallet
        await self.genesis_pays(wallet.address, 10**8)
        await self.node.close()
        await self.trust(wallet, ISSUER, "10000000000")
        if needs_reference:
            await self.send(wallet, TransactionType="AccountSet", SetFlag=REQUIRE_TAG)
        await self.node.close()
        return wallet.address

    def unknown(self) -> str:
        return Wallet("nobody").address

    async def pay_in(self, asset: Asset, amount: int, reference: int | None, *, partial: int | None = None) -> str:
        issuer = ISSUER if asset.issuer == ISSUER.address else IMPOSTOR
        value = str(amount) if asset == XRP else _stated(issuer, _units(amount))
        more: dict[str, Any] = {}
        if partial is not None:
            more = {"Flags": 0x00020000, "SendMax": _stated(issuer, _units(partial))}
        return await self.pay(self.payer, self.treasury.address, value, reference, **more)

    async def pay_in_failing(self, reference: int) -> str:
        return await self.pay(self.payer, self.treasury.address, _stated(ISSUER, "5000000000"), reference)

    async def balance(self, address: str, asset: Asset) -> int:
        if asset == XRP:
            info = await self.node.ask("account_info", account=address, ledger_index="validated")
            return int(info["account_data"]["Balance"]) if "account_data" in info else 0
        wanted = {"accounts": [address, asset.issuer], "currency": RLUSD}
        line = await self.node.ask("ledger_entry", ripple_state=wanted, ledger_index="validated")
        whole, _, part = line["node"]["Balance"]["value"].lstrip("-").partition(".")
        return int(whole) * 10**6 + int(part.ljust(6, "0")[:6])

    async def on_chain(self, order: Order) -> Sequence[Landed]:
        invoice = order.id.encode().ljust(32, b"\0").hex().upper()
        asked = {"account": self.treasury.address, "ledger_index_min": -1, "ledger_index_max": -1, "forward": True}
        found = []
        for row in (await self.node.ask("account_tx", **asked))["transactions"]:
            memos = [each["Memo"] for each in row["tx_json"].get("Memos", [])]
            named = any(bytes.fromhex(memo["MemoData"]) == order.id.encode() for memo in memos)
            if row["tx_json"].get("InvoiceID") == invoice or named:
                anchors = [memo["MemoData"] for memo in memos if memo["MemoType"] == b"settlement/anchor".hex().upper()]
                ok = row["meta"]["TransactionResult"] == "tesSUCCESS"
                found.append(Landed(ok, bytes.fromhex("".join(anchors))))
        return found

    async def close_ledgers(self, count: int = 1) -> None:
        await self.proxy.close(count)
        lines = [await self.node.ask("account_lines", account=each) for each in self.payees]
        for wallet, held in zip(self.payees.values(), lines, strict=True):
            if not held.get("lines"):  # the sabotage is over
                await self.trust(wallet, ISSUER, "10000000000")
                await self.node.close()

    def arm(self, fault: str, times: int = 1) -> None:
        self.proxy.armed[fault] += times


def _stated(issuer: Wallet, value: str) -> dict[str, str]:
    return {"currency": RLUSD, "issuer": issuer.address, "value": value}


def _units(amount: int) -> str:
    return f"{amount // 10**6}.{amount % 10**6:06d}"


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[RealPeer]:
    async with AsyncExitStack() as closing:
        node = await closing.enter_async_context(Xrpld(tmp_path))
        proxy = Proxy(node)
        server = await closing.enter_async_context(Loopback(proxy.answer))
        made = RealPeer(node, proxy, server.url)
        closing.push_async_callback(made.stop)
        await made.found()
        yield made


class TestXrpld(AdapterContract):
    """All of the contract on the real node."""

    async def test_busy_slots_are_left_alone(self, peer: Peer) -> None:
        """As everywhere, but in order: bytes that came before their turn are kept by rippled, and lost by this node."""
        busy: set[Slot] = set()
        orders = [await self.order(peer, f"pay_{n}", 1 + n) for n in range(4)]
        attempts = []
        for order in orders:
            attempts.append(await peer.adapter.prepare(order, slot=None, busy=busy))
            busy.add(attempts[-1].slot)
        assert len(busy) == 4
        for tx in attempts:
            await hand_over(peer.adapter, tx)
        await peer.close_ledgers(2)
        assert all([isinstance(await peer.adapter.status(tx), Settled) for tx in attempts])
        assert [await self.received(peer, order) for order in orders] == [[1], [2], [3], [4]]


async def test_tickets_on_the_real_node(peer: RealPeer) -> None:
    await peer.send(peer.treasury, TransactionType="TicketCreate", TicketCount=3)
    await peer.node.close()
    peer.wanted = Wanted(tickets=3)
    adapter, to = peer.second(), await peer.payee()
    orders = [PayoutOrder(f"ord_{n}", (Transfer(to, STABLE, 1 + n),)) for n in range(3)]
    first = await adapter.prepare(orders[0], slot=None, busy=())
    second = await adapter.prepare(orders[1], slot=None, busy={first.slot})
    assert [first.slot.kind, second.slot.kind] == ["ticket", "ticket"]
    await adapter.submit(second)
    await peer.node.close(14)
    assert isinstance(await adapter.status(second), Settled), "a stuck ticket blocks nobody"
    assert isinstance(await adapter.status(first), Expired)
    again = await adapter.prepare(orders[0], slot=first.slot, busy=())
    await adapter.submit(again)
    await peer.node.close()
    assert isinstance(await adapter.status(again), Settled)
    assert await peer.balance(to, STABLE) == 3


async def landed(peer: RealPeer, adapter: XrplAdapter, tx: Transaction) -> Outcome:
    await adapter.submit(tx)
    await peer.node.close()
    return await adapter.status(tx)


async def test_the_account_is_set_up_and_its_new_keys_sign_on_the_real_node(peer: RealPeer) -> None:
    names = ("one", "two", "three")
    listed = SignerList(2, {Wallet(name).address: 1 for name in names})
    peer.wanted = Wanted(Wallet("one").address, listed, tickets=5, cu_token=True)
    adapter = peer.second()
    for step in await adapter.setup():
        if not step.done and step.orderable:
            tx = await adapter.prepare_step(SetupOrder(f"ord_{step.name}", step.name), slot=None, busy=())
            outcome = await landed(peer, adapter, tx)
            assert isinstance(outcome, Settled), (step.name, outcome)
            assert outcome.next_number == (tx.slot.number + 6 if step.name == "tickets" else None)
    assert [step.name for step in await adapter.setup() if not step.done] == ["master_off"]
    with pytest.raises(Unpayable, match="step_done"):
        await adapter.prepare_step(SetupOrder("ord_again", "cu_token"), slot=None, busy=())
    await peer.send(peer.treasury, TransactionType="AccountSet", SetFlag=4)
    await peer.node.close()
    with pytest.raises(Unpayable, match="key_not_authorized"):
        await adapter.prepare(PayoutOrder("ord_1", (Transfer(peer.unknown(), XRP, 20_000_000),)), slot=None, busy=())
    to = await peer.payee()
    for keys in (("one",), names):
        peer.keys = [signer(name) for name in keys]
        adapter = peer.second()
        assert {step.name for step in await adapter.setup() if not step.done} <= {"tickets"}
        order = PayoutOrder(f"ord_{len(keys)}", (Transfer(to, STABLE, 7),))
        tx = await adapter.prepare(order, slot=None, busy=())
        assert len(decoded(tx.blob).get("Signers", [])) == (2 if len(keys) == 3 else 0)
        assert isinstance(await landed(peer, adapter, tx), Settled)
    assert await peer.balance(to, STABLE) == 14


async def test_what_is_multi_signed_expires_and_is_signed_again_on_the_real_node(peer: RealPeer) -> None:
    names = ("one", "two", "three")
    entries = [{"SignerEntry": {"Account": each, "SignerWeight": 1}} for each in sorted_by_id(names)]
    await peer.send(peer.treasury, TransactionType="SignerListSet", SignerQuorum=2, SignerEntries=entries)
    await peer.node.close()
    peer.keys = [signer(name) for name in names]
    adapter, to = peer.second(), await peer.payee()
    order = PayoutOrder("ord_1", (Transfer(to, STABLE, 9),))
    first = await adapter.prepare(order, slot=None, busy=())
    await peer.node.close(14)
    assert isinstance(await adapter.status(first), Expired)
    again = await adapter.prepare(order, slot=first.slot, busy=())
    assert isinstance(await landed(peer, adapter, again), Settled)
    assert await peer.balance(to, STABLE) == 9


async def test_a_multi_purpose_token_is_paid_and_received_on_the_real_node(peer: RealPeer) -> None:
    await peer.send(ISSUER, TransactionType="MPTokenIssuanceCreate", Flags=0x24, TransferFee=1_000)
    await peer.node.close()
    (issued,) = (await peer.node.ask("account_objects", account=ISSUER.address, type="mpt_issuance"))["account_objects"]
    gem = Asset("GEM", f"{issued['Sequence']:08X}{decode_classic_address(ISSUER.address).hex().upper()}")
    peer.assets[gem] = 0
    adapter, to, order = peer.second(), await peer.payee(), "ord_1"

    async def refused() -> str:
        with pytest.raises(Unpayable) as why:
            await adapter.prepare(PayoutOrder(order, (Transfer(to, gem, 500),)), slot=None, busy=())
        return why.value.code

    assert await refused() == "no_trust_line"
    for wallet in (peer.payees[to], peer.payer):
        await peer.send(wallet, TransactionType="MPTokenAuthorize", MPTokenIssuanceID=gem.issuer)
    tx = await adapter.prepare_step(SetupOrder("ord_0", f"line:{gem.text}"), slot=None, busy=())
    assert isinstance(await landed(peer, adapter, tx), Settled)
    assert await refused() == "not_authorized"
    for holder in (to, adapter.treasury, peer.payer.address):
        await peer.send(ISSUER, TransactionType="MPTokenAuthorize", MPTokenIssuanceID=gem.issuer, Holder=holder)
    await peer.node.close()
    assert await refused() == "underfunded"
    _, cursor = await all_deposits(adapter)
    await peer.pay(ISSUER, peer.payer.address, {"mpt_issuance_id": gem.issuer, "value": "5000"})
    await peer.node.close()
    more = {"SendMax": {"mpt_issuance_id": gem.issuer, "value": "909"}, "Flags": 0x00020000}
    await peer.pay(peer.payer, adapter.treasury, {"mpt_issuance_id": gem.issuer, "value": "2000"}, 7, **more)
    await peer.node.close()
    found, _ = await all_deposits(adapter, cursor)
    assert [(each.asset, each.amount, each.reference) for each in found] == [(gem, 900, 7)], "what was delivered"
    assert (await adapter.holdings()).amounts[gem] == 900
    tx = await adapter.prepare(PayoutOrder(order, (Transfer(to, gem, 500),)), slot=None, busy=())
    outcome = await landed(peer, adapter, tx)
    assert isinstance(outcome, Settled)
    assert (outcome.delivered, outcome.surcharge) == ((500,), (5,))
    assert (await adapter.holdings()).amounts[gem] == 395


def sorted_by_id(names: Sequence[str]) -> list[str]:
    return sorted((Wallet(name).address for name in names), key=decode_classic_address)


async def test_a_new_account_is_funded_in_xrp_on_the_real_node(peer: RealPeer) -> None:
    order = PayoutOrder("ord_1", (Transfer(peer.unknown(), XRP, 20_000_000),))
    tx = await peer.adapter.prepare(order, slot=None, busy=())
    await peer.adapter.submit(tx)
    await peer.node.close()
    outcome = await peer.adapter.status(tx)
    assert isinstance(outcome, Settled)
    assert outcome.delivered == (20_000_000,)
    assert await peer.balance(peer.unknown(), XRP) == 20_000_000


async def test_a_partial_payment_in_xrps_cousin_credits_the_delivered_amount_on_the_real_node(peer: RealPeer) -> None:
    _, cursor = await all_deposits(peer.adapter)
    await peer.pay_in(STABLE, 5_000_000, 9, partial=1_234_567)
    await peer.node.close()
    found, _ = await all_deposits(peer.adapter, cursor)
    assert [(each.amount, each.reference) for each in found] == [(1_234_567, 9)]


async def test_the_history_of_the_treasury_on_the_real_node(peer: RealPeer) -> None:
    to = await peer.payee()
    tx = await peer.adapter.prepare(PayoutOrder("ord_1", (Transfer(to, STABLE, 5, 7, "pay_1"),)), slot=None, busy=())
    await peer.adapter.submit(tx)
    await peer.node.close()
    (*_, last) = (await peer.adapter.sent(None)).sent
    assert (last.tx.id, last.tx.blob, last.marks) == (tx.id, tx.blob, (b"pay_1".ljust(32, b"\0"),))
    assert last.transfers == (Transfer(to, STABLE, 5, 7),)


async def test_an_anchor_is_read_back_as_anybody_would_on_the_real_node(peer: RealPeer) -> None:
    digest = sha256(b"checkpoint").digest()
    tx = await peer.adapter.prepare(AnchorOrder("anc_1", digest), slot=None, busy=())
    await peer.adapter.submit(tx)
    await peer.close_ledgers()
    outcome = await peer.adapter.status(tx)
    assert isinstance(outcome, Settled)
    named = (tx.id, outcome.at.number, f"sha256:{digest.hex()}")
    anchor = Anchor("xrpl", "xrpl:1", *named, account=peer.adapter.treasury)
    assert await asyncio.to_thread(check_anchor, anchor, peer.url) is None
    changes: tuple[dict[str, Any], ...] = (
        {"digest": f"sha256:{bytes(32).hex()}"},
        {"ledger": 7},
        {"network": "xrpl:0"},
    )
    for changed in changes:
        assert await asyncio.to_thread(check_anchor, replace(anchor, **changed), peer.url) is not None
