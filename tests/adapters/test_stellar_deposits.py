"""What reaches the treasury on Stellar: which events count, whom they name, and where they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from stellar_sdk import Asset as SdkAsset
from stellar_sdk import (
    Claimant,
    ClaimClaimableBalance,
    CreateClaimableBalance,
    IdMemo,
    MuxedAccount,
    Payment,
    TextMemo,
)
from stellar_sdk.memo import HashMemo, Memo

from adapters.stellar import events
from adapters.stellar.assets import XLM, sdk_asset
from settlement.chain import (
    Deposit,
    Gap,
    PayoutOrder,
    Transfer,
    Unreachable,
)
from tests.adapters.contract import FUNDED, all_deposits
from tests.stellarnet.network import PASSPHRASE
from tests.stellarnet.peer import ISSUER, TREASURY, USDC, StellarPeer, key_of, payment

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


# --- deposits ---------------------------------------------------------------------------------------------------------


async def arrived(peer: StellarPeer, cursor: str | None) -> list[Deposit]:
    peer.net.close()
    return (await all_deposits(peer.adapter, cursor))[0]


async def start_of(peer: StellarPeer) -> str:
    return (await all_deposits(peer.adapter))[1]


def forget(peer: StellarPeer) -> None:
    """From now on only Horizon knows what has been."""
    peer.net.emitting = False
    peer.adapter._emitting.clear()
    peer.net.oldest = peer.net.tip
    peer.net.close()


async def test_a_payment_straight_from_the_issuer_is_a_mint_and_counts(peer: StellarPeer) -> None:
    cursor = await start_of(peer)
    name = peer.net.send(ISSUER, [payment(25)], IdMemo(9))
    (found,) = await arrived(peer, cursor)
    assert (found.id[0], found.amount, found.reference, found.sender) == (name, 25, 9, ISSUER.public_key)


@pytest.mark.parametrize(
    ("memo", "muxed", "reference"),
    [
        (IdMemo(42), None, 42),
        (IdMemo(0), None, 0),
        (IdMemo(2**64 - 1), None, 2**64 - 1),
        (None, 42, 42),
        (IdMemo(41), 42, 42),
        (TextMemo("42"), None, None),
        (TextMemo("42"), 43, 43),
        (HashMemo(bytes(31) + b"\x2a"), None, None),
        (None, None, None),
    ],
)
async def test_only_a_memo_id_or_a_muxed_id_is_a_reference_and_the_muxed_one_goes_first(
    with_history: StellarPeer, memo: Memo | None, muxed: int | None, reference: int | None
) -> None:
    peer = with_history
    cursor = await start_of(peer)
    to = MuxedAccount(TREASURY.public_key, muxed)
    made = Payment(to, sdk_asset(USDC), "0.0000005")
    peer.net.send(peer.customer(usdc=100), [made], memo)
    found = await arrived(peer, cursor)
    assert [(each.amount, each.reference) for each in found] == [(5, reference)]
    forget(peer)
    assert (await all_deposits(peer.adapter, cursor))[0] == found, "Horizon says the same, id for id"


@pytest.mark.parametrize("inner", [True, False])
async def test_a_sender_who_writes_itself_with_an_id_is_known_by_it(with_history: StellarPeer, inner: bool) -> None:
    """A custodian pays for many: what goes back to it without the id would be nobody's there."""
    peer = with_history
    cursor = await start_of(peer)
    customer = peer.customer(usdc=100)
    muxed = MuxedAccount(customer.public_key, 2**63 + 5)
    by_operation = Payment(TREASURY.public_key, sdk_asset(USDC), "0.0000005", source=muxed if inner else None)
    peer.net.send(customer, [by_operation], IdMemo(7), source=None if inner else muxed)
    found = await arrived(peer, cursor)
    assert [(each.sender, each.sender_reference) for each in found] == [(muxed.universal_account_id, None)]
    forget(peer)
    assert (await all_deposits(peer.adapter, cursor))[0] == found, "Horizon says the same, id for id"
    back = PayoutOrder("ord_1", (Transfer(found[0].sender, USDC, 5),))
    await peer.adapter.submit(await peer.adapter.prepare(back, slot=None, busy=()))
    peer.net.close()
    (paid,) = peer.net.order[-1].inner.operations
    assert isinstance(paid, Payment)
    assert paid.destination == muxed


async def test_many_payments_of_one_transaction_are_as_many_deposits(peer: StellarPeer) -> None:
    cursor = await start_of(peer)
    payer = peer.customer(usdc=1_000)
    name = peer.net.send(payer, [payment(3), payment(4, XLM), payment(5, to=payer.public_key), payment(3)], IdMemo(1))
    found = await arrived(peer, cursor)
    assert [(each.id, each.amount) for each in found] == [((name, 0), 3), ((name, 1_000), 4), ((name, 3_000), 3)]


async def test_a_claimed_balance_is_a_deposit_that_names_nobody_wherever_it_is_read(with_history: StellarPeer) -> None:
    """Such as what a payee never claimed, when the treasury takes it back."""
    peer = with_history
    cursor = await start_of(peer)
    kept = CreateClaimableBalance(sdk_asset(USDC), "0.0000070", [Claimant(TREASURY.public_key)])
    peer.net.send(peer.customer(usdc=100), [kept], IdMemo(9))
    peer.net.close()
    (name,) = peer.net.claimables
    peer.net.send(TREASURY, [ClaimClaimableBalance(f"00000000{name}")], IdMemo(9))
    found = await arrived(peer, cursor)
    assert [(each.amount, each.sender[0], each.id[1]) for each in found] == [(70, "B", 0)]
    assert (await peer.adapter.holdings()).amounts[USDC] == FUNDED + 70
    forget(peer)
    assert (await all_deposits(peer.adapter, cursor))[0] == found, "Horizon says the same, id for id"


async def test_what_we_pay_ourselves_is_no_deposit(peer: StellarPeer) -> None:
    cursor = await start_of(peer)
    peer.net.send(TREASURY, [payment(3)])
    assert await arrived(peer, cursor) == []


async def test_a_page_is_cut_at_a_whole_ledger_and_a_full_ledger_is_read_to_its_end(
    peer: StellarPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LIMIT", 4)
    cursor = await start_of(peer)
    for count in (2, 1, 9, 3):
        for _ in range(count):
            peer.net.send(peer.customer(usdc=100), [payment(1)], IdMemo(count))
        peer.net.close()
    pages, seen = 0, list[int]()
    more = True
    while more:
        page = await peer.adapter.deposits(cursor)
        seen += [each.reference or 0 for each in page.deposits]
        cursor, more, pages = page.cursor, page.more, pages + 1
    assert seen == [2] * 2 + [1] + [9] * 9 + [3] * 3
    assert pages > 2


async def test_the_cursor_moves_through_ledgers_without_events(peer: StellarPeer) -> None:
    cursor = await start_of(peer)
    await peer.close_ledgers(10_050)
    await peer.pay_in(USDC, 5, 7)
    peer.net.close()
    page = await peer.adapter.deposits(cursor)
    assert (page.deposits, page.more) == ((), True), "a node searches ten thousand ledgers at a time"
    assert int(page.cursor) == int(cursor) + 10_000
    (found,) = (await peer.adapter.deposits(page.cursor)).deposits
    assert found.reference == 7


async def test_a_node_without_classic_events_is_not_read_from(peer: StellarPeer) -> None:
    peer.net.emitting = False
    await peer.pay_in(USDC, 5, 7)
    peer.net.close()
    with pytest.raises(Unreachable, match="does not emit"):
        await peer.adapter.deposits(None)
    peer.net.emitting = True
    await peer.pay_in(USDC, 6, 7)
    peer.net.close()
    assert [each.amount for each in (await peer.adapter.deposits(None)).deposits] == [6]


async def test_what_the_nodes_have_forgotten_is_read_from_horizon(with_history: StellarPeer) -> None:
    peer = with_history
    cursor = await start_of(peer)
    await peer.pay_in(USDC, 5, 7)
    await peer.close_ledgers(20)
    peer.net.oldest = peer.net.tip - 3
    assert [each.amount for each in (await all_deposits(peer.adapter, cursor))[0]] == [5]
    assert peer.horizon is not None
    peer.horizon.oldest = peer.net.tip - 3
    with pytest.raises(Gap):
        await peer.adapter.deposits(cursor)
    without = peer.second()
    without._history = None
    with pytest.raises(Gap):
        await without.deposits(cursor)
    await without.close()


async def test_events_of_another_contract_say_nothing_about_our_asset(peer: StellarPeer) -> None:
    cursor = await start_of(peer)
    await peer.pay_in(USDC, 5, 7)
    peer.net.close()
    lie = next(each for each in peer.net.events if each["topic"][0] == events.symbol("transfer"))
    lie["contractId"] = SdkAsset("USDC", key_of("a thief").public_key).contract_id(PASSPHRASE)
    assert events.arrival(lie, TREASURY.public_key, peer.adapter._contracts) is None
    assert (await all_deposits(peer.adapter, cursor))[0] == []
