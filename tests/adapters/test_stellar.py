"""The Stellar adapter: the contract of every chain, and what is this network's alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from stellar_sdk import FeeBumpTransactionEnvelope, IdMemo, MuxedAccount, Payment
from stellar_sdk.memo import HashMemo

from adapters.stellar.assets import XLM
from adapters.stellar.preflight import Habits
from adapters.stellar.transactions import operations, signed, unpacked, unsigned
from settlement.chain import (
    AnchorOrder,
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
)
from tests.adapters.contract import FUNDED, AdapterContract, hand_over
from tests.stellarnet.network import PASSPHRASE, RESERVE, StellarNet
from tests.stellarnet.peer import ISSUER, TREASURY, USDC, StellarPeer, batch, key_of, root_of

pytestmark = pytest.mark.network


@pytest.fixture
async def peer() -> AsyncIterator[StellarPeer]:
    made = await StellarPeer.start()
    yield made
    await made.stop()


@pytest.fixture
async def with_history() -> AsyncIterator[StellarPeer]:
    made = await StellarPeer.start(history=True)
    yield made
    await made.stop()


class TestStellar(AdapterContract):
    """All of it on one scripted node."""


# --- payouts ----------------------------------------------------------------------------------------------------------


async def prepared(peer: StellarPeer, *transfers: Transfer) -> Transaction:
    return await peer.adapter.prepare(PayoutOrder("ord_1", transfers), slot=None, busy=())


async def land(peer: StellarPeer, tx: Transaction) -> Outcome:
    await hand_over(peer.adapter, tx)
    peer.net.close()
    return await peer.adapter.status(tx)


async def refusal(peer: StellarPeer, *transfers: Transfer) -> tuple[str, int | None]:
    with pytest.raises(Unpayable) as refused:
        await prepared(peer, *transfers)
    return refused.value.code, refused.value.culprit


async def test_fifty_payouts_are_one_transaction_after_one_question_about_the_ledger(peer: StellarPeer) -> None:
    order = await batch(peer, 50)
    peer.rpc[0].asked.clear()
    tx = await peer.adapter.prepare(order, slot=None, busy=())
    assert peer.rpc[0].asked.count("getLedgerEntries") == 1
    outcome = await land(peer, tx)
    assert isinstance(outcome, Settled)
    assert outcome.delivered == tuple(range(100, 150))
    assert [await peer.balance(each.to, USDC) for each in order.transfers] == list(range(100, 150))
    with pytest.raises(Unpayable, match="too_many_transfers"):
        await peer.adapter.prepare(await batch(peer, 51), slot=None, busy=())


async def test_the_memo_commits_to_the_payouts_ids_and_each_payment_says_its_own(peer: StellarPeer) -> None:
    order = await batch(peer, 5)
    await land(peer, await peer.adapter.prepare(order, slot=None, busy=()))
    (final,) = peer.net.order
    assert isinstance(final.inner.memo, HashMemo)
    assert final.inner.memo.memo_hash == root_of(order)
    tags = [each.source.account_muxed_id.to_bytes(8, "big") for each in final.inner.operations]  # type: ignore[union-attr]
    assert tags == [sha256(f"pay_{n}".encode()).digest()[:8] for n in range(5)] == list(peer.adapter.marks(order))


async def test_the_treasury_pays_the_fee_and_a_channel_needs_no_money(peer: StellarPeer) -> None:
    before = (await peer.adapter.holdings()).amounts[XLM]
    tx = await peer.adapter.prepare(await batch(peer, 3), slot=None, busy=())
    assert peer.net.accounts[tx.slot.account].balance == 0
    outcome = await land(peer, tx)
    assert isinstance(outcome, Settled)
    assert outcome.fee == 400, "three operations and the fee bump, at what the network asks and not at what was bid"
    assert (await peer.adapter.holdings()).amounts[XLM] == before - 400
    assert tx.fee == 100_000 * 4


async def test_what_is_late_is_bid_ten_times_more_under_the_same_inner_transaction(peer: StellarPeer) -> None:
    tx = await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=())
    low, high = unpacked(tx.blob, PASSPHRASE)
    assert (low.hash().hex(), high.hash().hex()) == tx.aliases
    assert high.transaction.fee == 10 * low.transaction.fee
    assert low.transaction.inner_transaction_envelope.hash() == high.transaction.inner_transaction_envelope.hash()
    peer.arm("fee_spike")
    assert await hand_over(peer.adapter, tx) == "txINSUFFICIENT_FEE"
    assert await peer.adapter.status(tx) == Pending(again=False)
    await peer.close_ledgers(3)
    assert await peer.adapter.status(tx) == Pending(again=True)
    outcome = await land(peer, tx)
    assert isinstance(outcome, Settled)
    assert outcome.fee == 200_000
    assert peer.net.order[0].outer_hash == tx.aliases[1]
    assert await peer.adapter.status(replace(tx, id=tx.aliases[1], aliases=())) == outcome


async def test_death_is_proven_under_every_name_and_waiting_costs_two_questions(peer: StellarPeer) -> None:
    asked = peer.rpc[0].asked
    tx = await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=())

    async def questions(expected: object) -> list[str]:
        del asked[:]
        assert await peer.adapter.status(tx) == expected
        return asked[:]

    assert await questions(Pending(again=False)) == ["getTransaction", "getLedgerEntries"]
    await peer.close_ledgers(tx.last - tx.first + 2)
    assert await questions(Expired()) == ["getTransaction", "getLedgerEntries", "getTransaction", "getTransaction"]
    landed = await land(peer, tx2 := await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=()))
    await peer.close_ledgers(30)
    del peer.net.final[tx2.id]  # a node that knows transactions by their outer hashes alone
    assert await peer.adapter.status(tx2) == landed


async def test_bids_stay_under_the_cap(peer: StellarPeer) -> None:
    order = await batch(peer, 1)
    capped = peer.second(fee_bid=50_000, fee_cap=60_000)
    (only,) = unpacked((await capped.prepare(order, slot=None, busy=())).blob, PASSPHRASE)
    assert only.transaction.fee == 2 * 50_000
    await capped.close()
    peer.rpc[0].asks = 200_000
    with pytest.raises(Unpayable, match="fee_above_cap"):
        await peer.adapter.prepare(order, slot=None, busy=())


async def test_bounds_come_from_the_ledgers_clock_and_end_a_slow_network_too() -> None:
    peer = await StellarPeer.start(StellarNet(start=datetime(2031, 1, 1, tzinfo=UTC)))
    try:
        tx = await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=())
        inner = unpacked(tx.blob, PASSPHRASE)[0].transaction.inner_transaction_envelope.transaction
        assert inner.preconditions is not None
        assert inner.preconditions.time_bounds is not None
        assert inner.preconditions.ledger_bounds is not None
        assert inner.preconditions.time_bounds.max_time == int(datetime(2031, 1, 1, 0, 1, 30, tzinfo=UTC).timestamp())
        assert inner.preconditions.ledger_bounds.max_ledger == tx.last + 1 == peer.net.tip + 19
        peer.net.close(seconds=90)
        assert isinstance(await peer.adapter.status(tx), Pending), "a ledger that closes just then may hold it"
        peer.net.close(seconds=1)
        assert isinstance(await peer.adapter.status(tx), Expired), "dead by the clock, long before its last ledger"
        assert await hand_over(peer.adapter, tx) == "txTOO_LATE"
    finally:
        await peer.stop()


async def test_nothing_is_signed_without_bounds(peer: StellarPeer) -> None:
    from adapters.stellar.transactions import Bounds

    slot = Slot(peer.channels[0], 1)
    made = operations(await batch(peer, 1), TREASURY.public_key, slot, {})
    endless = unsigned(slot, made, HashMemo(bytes(32)), Bounds(9, datetime(2026, 1, 1, tzinfo=UTC)), PASSPHRASE)
    for bound in ("time_bounds", "ledger_bounds"):
        conditions = endless.transaction.preconditions
        kept = getattr(conditions, bound)
        setattr(conditions, bound, None)
        with pytest.raises(ValueError, match="never signed"):
            await signed(endless, TREASURY.public_key, (100,), PASSPHRASE, peer.adapter._signer)
        setattr(conditions, bound, kept)
    assert endless.signatures == []


async def test_the_culprit_of_a_batch_is_named_and_nothing_of_it_was_paid(peer: StellarPeer) -> None:
    order = await batch(peer, 4)
    tx = await peer.adapter.prepare(order, slot=None, busy=())
    del peer.net.accounts[order.transfers[2].to].lines[USDC.text]
    outcome = await land(peer, tx)
    assert outcome == Failed("PAYMENT_NO_TRUST", 2, used_slot=True, fee=500)
    assert [await peer.balance(each.to, USDC) for each in order.transfers] == [0, 0, 0, 0]


async def test_what_only_the_treasury_is_to_blame_for_has_no_culprit(peer: StellarPeer) -> None:
    tx = await peer.adapter.prepare(await batch(peer, 2), slot=None, busy=())
    peer.net.accounts[TREASURY.public_key].lines[USDC.text][0] = 0
    assert await land(peer, tx) == Failed("PAYMENT_UNDERFUNDED", None, used_slot=True, fee=300)


async def test_what_would_not_arrive_is_refused_with_its_reason(peer: StellarPeer) -> None:
    good = Transfer(await peer.payee(), USDC, 100)
    to = await peer.payee()
    line = peer.net.accounts[to].lines[USDC.text]
    bad = replace(good, to=to)
    line[1] = 150
    assert await refusal(peer, good, bad, bad) == ("trust_line_full", 2), "two transfers to one payee add up"
    line[2] = 0
    assert await refusal(peer, good, bad) == ("not_authorized", 1)
    del peer.net.accounts[to].lines[USDC.text]
    assert await refusal(peer, bad) == ("no_trust_line", 0)
    assert await refusal(peer, replace(good, to=peer.unknown(), asset=XLM, amount=10**8)) == ("no_destination", 0)
    assert await refusal(peer, replace(good, to=TREASURY.public_key)) == ("self_payment", 0)
    muxed = MuxedAccount(good.to, 7).universal_account_id
    assert await refusal(peer, replace(good, to=muxed, reference=8)) == ("reference_out_of_range", 0)
    contract = "CA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJUWDA"
    assert await refusal(peer, replace(good, to=contract)) == ("address_malformed", 0)
    peer.net.accounts[TREASURY.public_key].lines[USDC.text][2] = 0
    assert await refusal(peer, good) == ("underfunded", None), "our own line is not authorized any more"


async def test_what_goes_back_to_its_issuer_needs_no_line(peer: StellarPeer) -> None:
    outcome = await land(peer, await prepared(peer, Transfer(ISSUER.public_key, USDC, 7)))
    assert isinstance(outcome, Settled)
    assert (await peer.adapter.holdings()).amounts[USDC] == FUNDED - 7


async def test_a_memo_id_is_paid_alone_and_an_m_address_in_a_batch(peer: StellarPeer) -> None:
    exchange = await peer.payee(needs_reference=True)
    with_memo = Transfer(exchange, USDC, 5, 42, "pay_m")
    assert await refusal(peer, with_memo, Transfer(await peer.payee(), USDC, 5)) == ("reference_not_alone", None)
    assert not peer.adapter.facts.shares_references
    assert isinstance(await land(peer, await prepared(peer, with_memo)), Settled)
    assert isinstance(peer.net.order[-1].inner.memo, IdMemo)
    assert peer.net.order[-1].inner.memo.memo_id == 42
    muxed = MuxedAccount(exchange, 2**40).universal_account_id
    both = Transfer(muxed, USDC, 6), Transfer(await peer.payee(), USDC, 7)
    assert isinstance(await land(peer, await prepared(peer, *both)), Settled)
    first = peer.net.order[-1].inner.operations[0]
    assert isinstance(first, Payment)
    assert (first.destination.account_id, first.destination.account_muxed_id) == (exchange, 2**40)
    assert await peer.balance(exchange, USDC) == 11


async def test_accounts_and_claimable_balances_are_made_for_payees_only_when_allowed(peer: StellarPeer) -> None:
    stranger, without_line = peer.unknown(), key_of("without a line").public_key
    peer.net.create(without_line)
    generous = peer.second(habits=Habits(create_accounts=True, claimable_balances=True))
    order = PayoutOrder("ord_1", (Transfer(stranger, XLM, 2 * RESERVE), Transfer(without_line, USDC, 9)))
    with pytest.raises(Unpayable, match="no_destination"):
        await peer.adapter.prepare(order, slot=None, busy=())
    too_little = PayoutOrder("ord_1", (Transfer(stranger, XLM, 2 * RESERVE - 1),))
    with pytest.raises(Unpayable, match="no_destination"):
        await generous.prepare(too_little, slot=None, busy=())
    outcome = await land(peer, await generous.prepare(order, slot=None, busy=()))
    assert isinstance(outcome, Settled)
    assert outcome.delivered == (2 * RESERVE, 9)
    assert await peer.balance(stranger, XLM) == 2 * RESERVE
    claimants = peer.net.order[-1].inner.operations[1].claimants  # type: ignore[attr-defined]
    assert [each.destination for each in claimants] == [without_line, TREASURY.public_key], (
        "else it lies there for ever"
    )
    await generous.close()


async def test_one_channel_has_one_transaction_out(peer: StellarPeer) -> None:
    order, busy = await batch(peer, 1), set[Slot]()
    for _ in peer.channels:
        busy.add((await peer.adapter.prepare(order, slot=None, busy=busy)).slot)
    assert {slot.account for slot in busy} == set(peer.channels)
    with pytest.raises(Unpayable, match="no_free_slot"):
        await peer.adapter.prepare(order, slot=None, busy=busy)
    with pytest.raises(Unpayable, match="slot_foreign"):
        await peer.adapter.prepare(order, slot=Slot(ISSUER.public_key, 5), busy=())


async def test_an_anchor_is_on_the_treasurys_own_sequence(peer: StellarPeer) -> None:
    tx = await peer.adapter.prepare(AnchorOrder("anc_1", bytes(range(32))), slot=None, busy=())
    assert tx.slot.account == TREASURY.public_key
    assert isinstance(await land(peer, tx), Settled)
    assert peer.net.order[-1].inner.source.account_id == TREASURY.public_key


async def test_without_channels_the_treasurys_own_sequence_is_the_slot(peer: StellarPeer) -> None:
    alone = peer.second(channels=())
    tx = await alone.prepare(await batch(peer, 2), slot=None, busy=())
    assert tx.slot.account == TREASURY.public_key
    assert isinstance(await land(peer, tx), Settled)
    await alone.close()


async def test_try_again_later_is_a_hint_and_the_same_bytes_land(peer: StellarPeer) -> None:
    tx = await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=())
    peer.arm("try_again")
    with pytest.raises(Rejected, match="TRY_AGAIN_LATER"):
        await peer.adapter.submit(tx)
    assert isinstance(await land(peer, tx), Settled)


async def test_expiry_is_said_by_as_many_nodes_as_must_agree() -> None:
    peer = await StellarPeer.start(nodes=2, agreement=2)
    try:
        tx = await peer.adapter.prepare(await batch(peer, 1), slot=None, busy=())
        await peer.close_ledgers(tx.last + 1 - peer.net.tip)
        peer.rpc[0].faulty = False
        peer.arm("gap")
        assert isinstance(await peer.adapter.status(tx), Pending), "the second node has forgotten"
        assert isinstance(await peer.adapter.status(tx), Expired)
        peer.arm("stranger")
        again = await peer.adapter.prepare(await batch(peer, 1), slot=tx.slot, busy=())
        peer.rpc[0].faulty = True
        await hand_over(peer.adapter, again)
        peer.net.close()
        assert isinstance(await peer.adapter.status(again), Contested)
    finally:
        await peer.stop()


# --- lost books -------------------------------------------------------------------------------------------------------


async def test_without_horizon_nodes_tell_what_was_paid_behind_a_ledger_that_they_have(peer: StellarPeer) -> None:
    order, anchor = await batch(peer, 3), AnchorOrder("anc_1", bytes(range(32)))
    since = str(peer.net.tip)
    tx = await peer.adapter.prepare(order, slot=None, busy=())
    second = await peer.adapter.prepare(anchor, slot=None, busy={tx.slot})
    settled, _ = await land(peer, tx), await land(peer, second)
    await peer.pay_in(USDC, 5, 7)
    peer.net.close()
    page = await peer.adapter.sent(since)
    (found,) = page.sent  # an anchor moves nothing, and what came in is a deposit
    assert (found.tx.id, found.tx.slot, found.outcome) == (tx.id, tx.slot, settled)
    assert found.marks == peer.adapter.marks(order)
    assert found.transfers == tuple(replace(each, id="") for each in order.transfers)
    assert (page.cursor, page.more) == (str(peer.net.tip), False)
    assert (await peer.adapter.sent(page.cursor)).sent == ()
    with pytest.raises(Unreachable, match="HORIZON"):
        await peer.adapter.sent(None)
    peer.net.oldest = int(since) + 2
    with pytest.raises(Gap):
        await peer.adapter.sent(since)


async def test_history_tells_what_was_signed_for_which_payout(with_history: StellarPeer) -> None:
    peer = with_history
    order, anchor = await batch(peer, 3), AnchorOrder("anc_1", bytes(range(32)))
    tx = await peer.adapter.prepare(order, slot=None, busy=())
    second = await peer.adapter.prepare(anchor, slot=None, busy={tx.slot})
    memo = Transfer(await peer.payee(), USDC, 5, 42, "pay_m")
    third = await peer.adapter.prepare(PayoutOrder("ord_3", (memo,)), slot=None, busy={tx.slot, second.slot})
    settled = await land(peer, tx), await land(peer, second), await land(peer, third)
    failing = await peer.adapter.prepare(order, slot=None, busy=())
    del peer.net.accounts[order.transfers[0].to].lines[USDC.text]
    failed = await land(peer, failing)
    await peer.pay_in(USDC, 5, 7)
    peer.net.close()
    page = await peer.adapter.sent(None)
    assert [each.tx.id for each in page.sent] == [tx.id, second.id, third.id, failing.id]
    assert [each.tx.slot for each in page.sent] == [tx.slot, second.slot, third.slot, failing.slot]
    assert [each.outcome for each in page.sent] == [*settled, failed]
    expected = [peer.adapter.marks(each) for each in (order, anchor, PayoutOrder("ord_3", (memo,)), order)]
    assert [each.marks for each in page.sent] == expected
    assert page.sent[0].transfers == tuple(replace(each, id="") for each in order.transfers)
    assert page.sent[2].transfers == (replace(memo, id=""),)
    assert [each.tx.last for each in page.sent] == [tx.last, second.last, third.last, failing.last]
    assert (await peer.adapter.sent(page.cursor)).sent == ()
    assert FeeBumpTransactionEnvelope.from_xdr(peer.net.order[0].raw.to_xdr(), PASSPHRASE).hash().hex() in tx.aliases
