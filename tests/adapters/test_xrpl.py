"""The XRP Ledger adapter: the contract of every chain, and what is this network's alone."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from xrpl.core.addresscodec import classic_address_to_xaddress

from adapters.xrpl.account_setup import Wanted
from adapters.xrpl.amounts import XRP
from adapters.xrpl.transactions import decoded
from settlement.chain import (
    AnchorOrder,
    Asset,
    Contested,
    Expired,
    Failed,
    Gap,
    Outcome,
    PayoutOrder,
    Pending,
    Rejected,
    Settled,
    Slot,
    Transaction,
    Transfer,
    Unpayable,
    Unreachable,
    WrongNetwork,
)
from settlement.client.anchors import Anchor, check_anchor
from tests.adapters.contract import FUNDED, AdapterContract, all_deposits
from tests.rippled.engine import DEPOSIT_AUTH, GLOBAL_FREEZE, PARTIAL, REQUIRE_AUTH, Holding, Issuance
from tests.rippled.peer import ISSUER, KEY, RLUSD, STABLE, XrplPeer

pytestmark = pytest.mark.network


@pytest.fixture
async def peer() -> AsyncIterator[XrplPeer]:
    made = await XrplPeer.start()
    yield made
    await made.stop()


class TestXrpl(AdapterContract):
    """All of it on one scripted server."""


# --- payouts ----------------------------------------------------------------------------------------------------------


async def pay(peer: XrplPeer, to: str, asset: Asset = STABLE, amount: int = 1_500_000, **more: Any) -> Transaction:
    order = PayoutOrder("ord_1", (Transfer(to, asset, amount, **more),))
    return await peer.adapter.prepare(order, slot=None, busy=())


async def land(peer: XrplPeer, tx: Transaction) -> Outcome:
    await peer.adapter.submit(tx)
    peer.engine.close()
    return await peer.adapter.status(tx)


async def refusal(peer: XrplPeer, to: str, asset: Asset = STABLE, amount: int = 1_500_000) -> tuple[str, int | None]:
    with pytest.raises(Unpayable) as refused:
        await pay(peer, to, asset, amount)
    return refused.value.code, refused.value.culprit


async def test_xrp_is_paid_and_makes_an_account(peer: XrplPeer) -> None:
    to = peer.unknown()
    assert await refusal(peer, to, XRP, 999_999) == ("no_destination", 0)
    outcome = await land(peer, await pay(peer, to, XRP, 1_000_000))
    assert isinstance(outcome, Settled)
    assert outcome.delivered == (1_000_000,)
    assert await peer.balance(to, XRP) == 1_000_000


async def test_the_payouts_own_id_is_the_invoice_of_every_attempt(peer: XrplPeer) -> None:
    tx = await pay(peer, await peer.payee(), id="pay_of_window_9")
    assert decoded(tx.blob)["InvoiceID"] == b"pay_of_window_9".ljust(32, b"\0").hex().upper()
    order = PayoutOrder("ord_9", (Transfer("", STABLE, 1, None, "pay_of_window_9"),))
    assert peer.adapter.marks(order) == (b"pay_of_window_9".ljust(32, b"\0"),)


async def test_what_would_not_arrive_is_refused_with_its_reason(peer: XrplPeer) -> None:
    accounts = peer.engine.state.accounts
    to = await peer.payee()
    line = accounts[to].held[KEY]
    for change, code in (
        ({"limit": Decimal(1)}, "trust_line_full"),
        ({"deep": True}, "destination_frozen"),
    ):
        before = dict(vars(line))
        vars(line).update(change)
        peer.engine.close()
        assert await refusal(peer, to) == (code, 0)
        vars(line).update(before)
    accounts[ISSUER.address].flags |= REQUIRE_AUTH
    line.authorized = False
    peer.engine.close()
    assert await refusal(peer, to) == ("not_authorized", 0)
    accounts[ISSUER.address].flags = GLOBAL_FREEZE
    peer.engine.close()
    assert await refusal(peer, to) == ("asset_frozen", None)
    accounts[ISSUER.address].flags = 0
    del accounts[to].held[KEY]
    accounts[to].flags |= DEPOSIT_AUTH
    peer.engine.close()
    assert await refusal(peer, to) == ("destination_refuses", 0)
    accounts[to].admits.add(peer.adapter.treasury)
    peer.engine.close()
    assert await refusal(peer, to) == ("no_trust_line", 0)
    accounts[peer.adapter.treasury].held[KEY].frozen = True
    peer.engine.close()
    assert await refusal(peer, await peer.payee()) == ("asset_frozen", None)


async def test_an_issuer_that_takes_a_rate_is_allowed_for_and_counted(peer: XrplPeer) -> None:
    peer.engine.state.accounts[ISSUER.address].rate = 1_002_000_000
    to = await peer.payee()
    tx = await pay(peer, to, amount=1_000_001)
    assert decoded(tx.blob)["SendMax"]["value"] == "1.002002"
    outcome = await land(peer, tx)
    assert isinstance(outcome, Settled)
    assert (outcome.delivered, outcome.surcharge) == ((1_000_001,), (2_001,))
    held = (await peer.adapter.holdings()).amounts[STABLE]
    assert 0 <= held - (FUNDED - 1_000_001 - 2_001) <= 1, "rounded up, never down"


async def test_a_multi_purpose_token_is_paid_and_received() -> None:
    gem = Asset("GEM", "0" * 8 + "AB" * 20)
    peer = await XrplPeer.start(assets={STABLE: 6, gem: 2})
    try:
        key = ("", gem.issuer)
        peer.engine.state.issuances[gem.issuer] = Issuance(ISSUER.address)
        to = await peer.payee()
        peer.engine.close()
        assert await refusal(peer, to, gem, 5) == ("no_trust_line", 0)
        peer.engine.give(peer.adapter.treasury, key, "0")
        peer.engine.give(peer.payer.address, key, "1000")
        peer.engine.state.accounts[to].held[key] = Holding(limit=None)
        peer.engine.close()
        assert await refusal(peer, to, gem, 5) == ("underfunded", None)
        _, cursor = await all_deposits(peer.adapter)
        amount = {"mpt_issuance_id": gem.issuer, "value": "500"}
        peer.payer.pay(peer.engine, peer.adapter.treasury, amount, 3, Flags=PARTIAL, SendMax={**amount, "value": "400"})
        peer.engine.close()
        found, _ = await all_deposits(peer.adapter, cursor)
        assert [(each.asset, each.amount, each.reference) for each in found] == [(gem, 400, 3)]
        assert (await peer.adapter.holdings()).amounts[gem] == 400
        outcome = await land(peer, await pay(peer, to, gem, 5))
        assert isinstance(outcome, Settled)
        assert outcome.delivered == (5,)
        peer.engine.state.issuances[gem.issuer].flags = 0x24
        peer.engine.state.accounts[to].held[key].authorized = False
        peer.engine.close()
        assert await refusal(peer, to, gem, 5) == ("not_authorized", 0)
        peer.engine.state.issuances[gem.issuer].flags = 0
        peer.engine.close()
        assert await refusal(peer, to, gem, 5) == ("not_transferable", 0)
    finally:
        await peer.stop()


async def test_a_fee_is_never_signed_above_the_cap(peer: XrplPeer) -> None:
    peer.engine.open_fee, peer.engine.fee_until = 1_000, peer.engine.number + 100
    assert (await pay(peer, await peer.payee())).fee == 1_200
    peer.engine.open_fee = 2_000_000
    tx = await pay(peer, await peer.payee())
    assert tx.fee == 5_000 == int(decoded(tx.blob)["Fee"])


async def test_at_most_eight_sequences_are_out(peer: XrplPeer) -> None:
    busy: set[Slot] = set()
    to = await peer.payee()
    for _ in range(8):
        order = PayoutOrder("ord_1", (Transfer(to, STABLE, 1),))
        busy.add((await peer.adapter.prepare(order, slot=None, busy=busy)).slot)
    with pytest.raises(Unpayable, match="no_free_slot"):
        await peer.adapter.prepare(order, slot=None, busy=busy)


# --- tickets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def ticketed() -> AsyncIterator[XrplPeer]:
    made = await XrplPeer.start(wanted=Wanted(tickets=3))
    made.wallet.send(made.engine, TransactionType="TicketCreate", TicketCount=3)
    made.engine.close()
    yield made
    await made.stop()


async def test_tickets_are_taken_first_and_a_stuck_one_blocks_nobody(ticketed: XrplPeer) -> None:
    peer, busy, made = ticketed, set[Slot](), []
    to = await peer.payee()
    for number in range(4):
        order = PayoutOrder(f"ord_{number}", (Transfer(to, STABLE, 1),))
        made.append(await peer.adapter.prepare(order, slot=None, busy=busy))
        busy.add(made[-1].slot)
    assert [tx.slot.kind for tx in made] == ["ticket"] * 3 + ["sequence"]
    for tx in reversed(made[1:]):
        await peer.adapter.submit(tx)
    peer.engine.close()
    assert [type(await peer.adapter.status(tx)) for tx in made] == [Pending, Settled, Settled, Settled]
    peer.engine.close(13)
    assert isinstance(await peer.adapter.status(made[0]), Expired)
    again = await peer.adapter.prepare(PayoutOrder("ord_0", (Transfer(to, STABLE, 1),)), slot=made[0].slot, busy=busy)
    assert again.slot == made[0].slot
    assert isinstance(await land(peer, again), Settled)
    assert isinstance(await peer.adapter.status(made[0]), Contested)


async def test_a_ticket_that_a_stranger_used_is_contested(ticketed: XrplPeer) -> None:
    tx = await pay(ticketed, await ticketed.payee())
    ticketed.arm("stranger")
    with suppress(Rejected):
        await ticketed.adapter.submit(tx)
    ticketed.engine.close()
    assert isinstance(await ticketed.adapter.status(tx), Contested)


# --- several nodes ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def pair() -> AsyncIterator[XrplPeer]:
    made = await XrplPeer.start(nodes=2, agreement=2)
    yield made
    await made.stop()


async def test_expiry_needs_as_many_nodes_as_are_asked_for(pair: XrplPeer) -> None:
    tx = await pay(pair, await pair.payee())
    pair.engine.close(14)
    pair.nodes[1].rates["gap"] = 1_000_000
    assert isinstance(await pair.adapter.status(tx), Pending), "the second one does not know"
    pair.nodes[1].rates["unreachable"] = 1_000_000
    assert isinstance(await pair.adapter.status(tx), Pending), "the second one is silent"
    pair.nodes[1].rates.clear()
    assert isinstance(await pair.adapter.status(tx), Expired)


async def test_a_node_that_denies_a_payment_is_not_believed_against_one_that_shows_it(pair: XrplPeer) -> None:
    tx = await pay(pair, await pair.payee())
    await pair.adapter.submit(tx)
    pair.engine.close(14)
    lying = pair.nodes[0]
    hidden = {name: landed for name, landed in pair.engine.landed.items() if name != tx.id}
    honest = pair.nodes[1].engine
    lying.engine = copy.copy(honest)
    lying.engine.landed = hidden
    lying.engine.by_account = {}
    assert isinstance(await pair.adapter.status(tx), Settled)
    pair.nodes[1].rates["unreachable"] = 1_000_000
    assert isinstance(await pair.adapter.status(tx), Pending)


async def test_the_next_node_answers_when_one_fails(pair: XrplPeer) -> None:
    for fault in ("unreachable", "hostile", "rate_limited"):
        pair.nodes[0].rates = {fault: 1_000_000}
        tx = await pay(pair, await pair.payee())
        assert isinstance(await land(pair, tx), Settled)
    pair.nodes[0].rates = {"gap": 1_000_000}
    assert (await pair.adapter.deposits("1000")).cursor == str(pair.engine.number)


async def test_a_node_of_another_network_is_never_used() -> None:
    peer = await XrplPeer.start()
    try:
        peer.nodes[0].network_id = 0
        for ask in (peer.adapter.holdings(), peer.adapter.deposits(None), pay(peer, peer.unknown(), XRP, 10**6)):
            with pytest.raises(WrongNetwork):
                await ask
        assert set(peer.nodes[0].commands) == {"server_info"}
        peer.nodes[0].network_id = 1
        await peer.adapter.holdings()
        peer.nodes[0].armed["unreachable"] = 1
        peer.nodes[0].network_id = 2
        with suppress(Unreachable):
            await peer.adapter.holdings()
        with pytest.raises(WrongNetwork):  # asked anew after the connection was lost
            await peer.adapter.holdings()
        peer.nodes[0].network_id, peer.nodes[0].blocked = 1, True
        with pytest.raises(Unreachable, match="amendment"):
            await peer.adapter.holdings()
    finally:
        await peer.stop()


async def test_networks_with_high_ids_get_theirs_signed() -> None:
    peer = await XrplPeer.start(network_id=21_337)
    try:
        tx = await pay(peer, await peer.payee())
        assert decoded(tx.blob)["NetworkID"] == 21_337
        assert isinstance(await land(peer, tx), Settled)
    finally:
        await peer.stop()


# --- hostile and malformed answers ------------------------------------------------------------------------------------


async def test_hostile_answers_are_no_answers(peer: XrplPeer) -> None:
    to = await peer.payee()
    for _ in range(10):
        peer.arm("hostile")
        with pytest.raises(Unreachable):
            await pay(peer, to)
    assert peer.nodes[0].fired["hostile"] == 10
    peer.sources.settable.advance(seconds=60)
    assert isinstance(await land(peer, await pay(peer, to)), Settled)


# --- deposits ---------------------------------------------------------------------------------------------------------


async def test_what_is_less_than_a_unit_adds_up_and_never_to_anybodys_credit(peer: XrplPeer) -> None:
    _, cursor = await all_deposits(peer.adapter)
    for _ in range(25):
        value = {"currency": RLUSD, "issuer": ISSUER.address, "value": "0.0000019"}
        peer.payer.pay(peer.engine, peer.adapter.treasury, value, 7)
        peer.engine.close()
    found, after = await all_deposits(peer.adapter, cursor)
    credited = [each.amount for each in found if each.reference == 7]
    nobodys = [each.amount for each in found if each.reference is None]
    assert credited == [1] * 25
    assert sum(nobodys) == 22
    assert (await peer.adapter.holdings()).amounts[STABLE] == FUNDED + 47
    assert after.endswith("=0.5")
    assert (await all_deposits(peer.adapter, cursor)) == (found, after), (
        "reading on from a cursor always gives the same"
    )


async def test_pages_are_followed_on_one_server_and_many_rows_stop_between_ledgers(
    peer: XrplPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.xrpl.rpc.MOST_ROWS", 60)
    _, cursor = await all_deposits(peer.adapter)
    for number in range(160):
        peer.payer.pay(peer.engine, peer.adapter.treasury, "5", number)
        if number % 40 == 39:
            peer.engine.close()
    first = await peer.adapter.deposits(cursor)
    assert first.more
    found, _ = await all_deposits(peer.adapter, cursor)
    assert [each.reference for each in found] == list(range(160))


async def test_history_that_begins_too_late_is_a_gap(peer: XrplPeer) -> None:
    await peer.pay_in(STABLE, 5, 7)
    peer.engine.close(5)
    peer.nodes[0].lowest = peer.engine.number - 2
    with pytest.raises(Gap):
        await peer.adapter.deposits("1001")


async def test_what_comes_by_no_payment_is_nobodys(peer: XrplPeer) -> None:
    """A check that was cashed for us, an escrow that ended: the balance rose, and no tag says for whom."""
    _, cursor = await all_deposits(peer.adapter)
    name = await peer.pay_in(XRP, 5, 7)
    peer.engine.close()
    landed = peer.engine.landed[name]
    landed.tx = {**landed.tx, "TransactionType": "EscrowFinish"}
    found, _ = await all_deposits(peer.adapter, cursor)
    assert [(each.amount, each.reference) for each in found] == [(5, None)]


# --- what was sent ----------------------------------------------------------------------------------------------------


async def test_the_accounts_history_names_every_payout_and_anchor(peer: XrplPeer) -> None:
    to = await peer.payee()
    paid = await pay(peer, to, id="pay_1", reference=9)
    await land(peer, paid)
    peer.arm("failed")
    failed = await pay(peer, to, id="pay_2")
    await land(peer, failed)
    anchor = await peer.adapter.prepare(AnchorOrder("anc_1", bytes(range(32))), slot=None, busy=())
    await land(peer, anchor)
    peer.wallet.send(peer.engine, TransactionType="TicketCreate", TicketCount=2)
    peer.engine.close()
    page = await peer.adapter.sent(None)
    assert not page.more
    assert [each.tx.id for each in page.sent[:3]] == [paid.id, failed.id, anchor.id]
    assert [each.tx.blob for each in page.sent[:3]] == [paid.blob, failed.blob, anchor.blob]
    assert [each.marks for each in page.sent] == [
        (b"pay_1".ljust(32, b"\0"),),
        (b"pay_2".ljust(32, b"\0"),),
        (bytes(range(32)),),
        (),
    ]
    assert page.sent[0].transfers == (Transfer(to, STABLE, 1_500_000, 9),)
    assert [type(each.outcome) for each in page.sent] == [Settled, Failed, Settled, Settled]
    assert (await peer.adapter.sent(page.cursor)).sent == ()


# --- the address of things --------------------------------------------------------------------------------------------


async def test_payment_uris_and_x_addresses(peer: XrplPeer) -> None:
    uri = await peer.adapter.payment_uri(STABLE, 42, 1_500_000)
    assert uri == f"xrpl:{peer.adapter.treasury}?dt=42&amount=1.500000&currency={RLUSD}&issuer={ISSUER.address}"
    assert await peer.adapter.payment_uri(XRP, 0, None) == f"xrpl:{peer.adapter.treasury}?dt=0"
    address = peer.adapter.combined_address(42)
    assert address.startswith("T")
    assert peer.adapter.payee(address, None) == (peer.adapter.treasury, 42)
    with pytest.raises(Unpayable, match="address_malformed"):
        peer.adapter.payee(classic_address_to_xaddress(peer.adapter.treasury, 42, False), None)


async def test_an_x_address_brings_its_tag(peer: XrplPeer) -> None:
    to = classic_address_to_xaddress(await peer.payee(needs_reference=True), 77, True)
    assert decoded((await pay(peer, to)).blob)["DestinationTag"] == 77
    with pytest.raises(Unpayable, match="reference_out_of_range"):
        await pay(peer, to, reference=78)


# --- handed over again, and confirmed ---------------------------------------------------------------------------------


async def test_bytes_that_a_server_has_lost_are_to_be_handed_over_again(peer: XrplPeer) -> None:
    tx = await pay(peer, await peer.payee())
    peer.arm("restart")
    await peer.adapter.submit(tx)
    seen = []
    for _ in range(4):
        peer.engine.close()
        seen.append(await peer.adapter.status(tx))
    assert seen == [Pending(), Pending(), Pending(again=True), Pending(again=True)]
    assert isinstance(await land(peer, tx), Settled)


async def test_what_came_before_its_turn_is_not_offered_again_before_that(peer: XrplPeer) -> None:
    to, busy = await peer.payee(), set[Slot]()
    made = []
    for number in range(2):
        order = PayoutOrder(f"ord_{number}", (Transfer(to, STABLE, 1),))
        made.append(await peer.adapter.prepare(order, slot=None, busy=busy))
        busy.add(made[-1].slot)
    await peer.adapter.submit(made[1])
    peer.engine.close(4)
    assert await peer.adapter.status(made[1]) == Pending()
    peer.engine.queue.clear()  # the server has lost it, as real ones do
    await peer.adapter.submit(made[0])
    peer.engine.close()
    assert await peer.adapter.status(made[1]) == Pending(again=True)
    assert isinstance(await land(peer, made[1]), Settled)


async def test_a_refusal_for_good_is_told_from_one_for_now(peer: XrplPeer) -> None:
    tx = await pay(peer, await peer.payee())
    for fault, lasting in (("malformed", True), ("fee_spike", False)):
        peer.arm(fault)
        with pytest.raises(Rejected) as refused:
            await peer.adapter.submit(tx)
        assert refused.value.lasting is lasting


async def test_a_large_deposit_is_believed_when_two_nodes_show_it() -> None:
    made = await XrplPeer.start(nodes=2, agreement=2, confirm={STABLE: 1_000_000})
    try:
        _, cursor = await all_deposits(made.adapter)
        await made.pay_in(STABLE, 999_999, 1)
        made.engine.close()
        large = await made.pay_in(STABLE, 1_000_000, 2)
        await made.pay_in(XRP, 9_000_000, 3)
        made.engine.close()
        honest = made.nodes[1].engine
        made.nodes[1].engine = copy.copy(honest)
        made.nodes[1].engine.landed = {name: each for name, each in honest.landed.items() if name != large}
        page = await made.adapter.deposits(cursor)
        assert ([each.reference for each in page.deposits], page.more) == ([1], True)
        with pytest.raises(Unreachable, match="shown by 1 nodes, 2 are needed"):
            await made.adapter.deposits(page.cursor)
        altered = copy.deepcopy(honest.landed[large])
        altered.tx["DestinationTag"] = 9
        made.nodes[1].engine.landed[large] = altered
        with pytest.raises(Unreachable):
            await made.adapter.deposits(page.cursor)
        made.nodes[1].engine = honest
        found, _ = await all_deposits(made.adapter, page.cursor)
        assert sorted((each.reference or 0, each.amount) for each in found) == [(2, 1_000_000), (3, 9_000_000)]
    finally:
        await made.stop()


async def test_an_anchor_is_read_back_as_anybody_would(peer: XrplPeer) -> None:
    digest = sha256(b"checkpoint").digest()
    tx = await peer.adapter.prepare(AnchorOrder("anc_1", digest), slot=None, busy=())
    await peer.adapter.submit(tx)
    await peer.close_ledgers()
    outcome = await peer.adapter.status(tx)
    assert isinstance(outcome, Settled)
    named = (tx.id, outcome.at.number, f"sha256:{digest.hex()}")
    anchor = Anchor("xrpl", "xrpl:1", *named, account=peer.adapter.treasury)
    assert await asyncio.to_thread(check_anchor, anchor, peer.urls[0]) is None
    changes: tuple[dict[str, Any], ...] = (
        {"digest": f"sha256:{bytes(32).hex()}"},
        {"ledger": 7},
        {"network": "xrpl:0"},
    )
    for changed in changes:
        assert await asyncio.to_thread(check_anchor, replace(anchor, **changed), peer.urls[0]) is not None
