"""What every chain adapter must do, as a suite: subclass `AdapterContract` with a `peer` fixture.

The peer drives the other side of the adapter under test: it makes accounts, pays as a stranger would, closes ledgers
and lets things go wrong. Each test goes through the port alone, then asks the peer what really happened on the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pytest

from settlement.chain import (
    AnchorOrder,
    Asset,
    ChainAdapter,
    Contested,
    Deposit,
    Expired,
    Failed,
    Gap,
    Order,
    Outcome,
    Page,
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

FUNDED = 10**12
"""What the treasury holds of the stable asset at the start of each test."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction found in a closed ledger by the order's id on chain."""

    ok: bool
    memo: bytes


class Peer(Protocol):
    """The other side of the adapter under test. Everything here acts on the chain, nothing through the adapter."""

    adapter: ChainAdapter
    stable: Asset
    foreign: Asset
    """Same code as `stable`, another issuer."""

    def second(self) -> ChainAdapter:
        """Another adapter with the same treasury on the same network, as another process would open it."""

    async def payee(self, *, needs_reference: bool = False) -> str:
        """The address of a fresh account that can be paid `stable`."""

    def unknown(self) -> str:
        """A well-formed address that nobody has an account at."""

    async def pay_in(self, asset: Asset, amount: int, reference: int | None, *, partial: int | None = None) -> str:
        """A consumer pays the treasury; returns the transaction's id. Final after `close_ledgers`."""

    async def pay_in_failing(self, reference: int) -> str:
        """A payment to the treasury that lands in a ledger as failed."""

    async def balance(self, address: str, asset: Asset) -> int: ...

    async def on_chain(self, order: Order) -> Sequence[Landed]:
        """Every final transaction that says that it is this order's."""

    async def close_ledgers(self, count: int = 1) -> None: ...

    def arm(self, fault: str, times: int = 1) -> None:
        """Let one of the faults of docs/reference/simulated-chain.md fire at its next opportunities."""


async def hand_over(adapter: ChainAdapter, tx: Transaction) -> str:
    """Submit as the service does: whatever it raises is a hint, returned as a word."""
    try:
        await adapter.submit(tx)
    except Unreachable:
        return "unreachable"
    except Rejected as refusal:
        return refusal.code
    return ""


async def all_deposits(adapter: ChainAdapter, after: str | None = None) -> tuple[list[Deposit], str]:
    """Every deposit behind the cursor, over as many pages as there are."""
    found: list[Deposit] = []
    while True:
        page: Page = await adapter.deposits(after)
        found += page.deposits
        after = page.cursor
        if not page.more:
            return found, after


class Crash(BaseException):
    """The process died here."""


@dataclass
class Books:
    """What a process has committed; all that survives a crash."""

    orders: dict[str, PayoutOrder]
    attempts: dict[str, list[Transaction]] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    """Orders whose attempts are all proven expired."""
    ended: dict[str, str] = field(default_factory=dict)
    cursor: str | None = None
    credited: list[Deposit] = field(default_factory=list)


def verdict(outcomes: Sequence[Outcome]) -> str:
    """How an order ended, from the outcomes of all attempts on its slot: one that landed makes the others contested."""
    if any(isinstance(outcome, Settled) for outcome in outcomes):
        return "settled"
    if any(isinstance(outcome, Failed) for outcome in outcomes):
        return "failed"
    if all(isinstance(outcome, Contested) for outcome in outcomes):
        return "contested"
    return "again" if isinstance(outcomes[-1], Expired) else "pending"


class Worker:
    """The rules of CHAINS 0 as a service keeps them: sign, persist, submit, look all attempts up, reuse the slot."""

    adapter: ChainAdapter
    books: Books

    def may_die(self) -> None:
        """Called around every await; raises Crash when the process is to die there."""

    async def step(self, name: str) -> None:
        attempts = self.books.attempts.setdefault(name, [])
        if not attempts or name in self.books.again:
            used = {tx.slot for others in self.books.attempts.values() for tx in others}
            slot = attempts[-1].slot if attempts else None
            tx = await self.adapter.prepare(self.books.orders[name], slot=slot, busy=used)
            self.may_die()
            attempts.append(tx)
            self.books.again.discard(name)
            self.may_die()
        await hand_over(self.adapter, attempts[-1])
        self.may_die()
        outcomes = []
        for tx in attempts:
            outcomes.append(await self.adapter.status(tx))
            self.may_die()
        if (found := verdict(outcomes)) == "again":
            self.books.again.add(name)
        elif found != "pending":
            self.books.ended[name] = found

    async def poll(self) -> None:
        page = await self.adapter.deposits(self.books.cursor)
        self.may_die()
        self.books.credited += page.deposits
        self.books.cursor = page.cursor


class AdapterContract:
    """Subclass as ``class TestX(AdapterContract)`` and give a fixture `peer`."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def order(self, peer: Peer, name: str = "pay_1", amount: int = 1_500_000, count: int = 1) -> PayoutOrder:
        return PayoutOrder(name, tuple([Transfer(await peer.payee(), peer.stable, amount) for _ in range(count)]))

    async def outlive(self, peer: Peer, tx: Transaction) -> None:
        """Close ledgers until the last one that could hold `tx` is history."""
        tip = (await peer.adapter.holdings()).at.number
        await peer.close_ledgers(max(tx.last + 1 - tip, 0))

    async def received(self, peer: Peer, order: PayoutOrder) -> list[int]:
        return [await peer.balance(transfer.to, transfer.asset) for transfer in order.transfers]

    # --- payouts --------------------------------------------------------------------------------------------------

    async def test_a_payout_is_prepared_submitted_and_settled(self, peer: Peer) -> None:
        order = await self.order(peer, count=peer.adapter.facts.transfers)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        assert tx.first <= tx.last
        assert isinstance(await peer.adapter.status(tx), Pending)
        await peer.adapter.submit(tx)
        assert isinstance(await peer.adapter.status(tx), Pending), "provisional success is no outcome"
        await peer.close_ledgers()
        outcome = await peer.adapter.status(tx)
        assert isinstance(outcome, Settled)
        assert outcome.delivered == tuple(transfer.amount for transfer in order.transfers)
        assert tx.first <= outcome.at.number <= tx.last
        assert 0 < outcome.fee <= tx.fee
        assert outcome.at.closed_at.tzinfo is not None
        assert await self.received(peer, order) == list(outcome.delivered)

    async def test_prepare_alone_moves_nothing(self, peer: Peer) -> None:
        before = await peer.adapter.holdings()
        order = await self.order(peer)
        await peer.adapter.prepare(order, slot=None, busy=())
        await peer.close_ledgers()
        assert (await peer.adapter.holdings()).amounts == before.amounts
        assert await self.received(peer, order) == [0]

    async def test_the_same_bytes_twice_land_once(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        await peer.adapter.submit(tx)
        await peer.adapter.submit(tx)
        await peer.close_ledgers()
        await peer.adapter.submit(tx)  # already final: nothing is raised for "already done"
        await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(tx), Settled)
        assert await self.received(peer, order) == [1_500_000]

    async def test_a_lost_reply_is_looked_up(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("reply_lost")
        with pytest.raises(Unreachable):
            await peer.adapter.submit(tx)
        await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(tx), Settled)
        assert await self.received(peer, order) == [1_500_000]

    async def test_a_lost_request_expires_provably_and_is_signed_again_on_its_slot(self, peer: Peer) -> None:
        order = await self.order(peer)
        first = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("request_lost")
        with pytest.raises(Unreachable):
            await peer.adapter.submit(first)
        while (tip := (await peer.adapter.holdings()).at.number) <= first.last:
            assert isinstance(await peer.adapter.status(first), Pending), f"not provably dead at {tip} of {first.last}"
            await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(first), Expired)
        second = await peer.adapter.prepare(order, slot=first.slot, busy={first.slot})
        assert second.slot == first.slot
        assert second.id != first.id
        assert second.first > first.last
        assert await hand_over(peer.adapter, first) != ""
        await peer.adapter.submit(second)
        await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(second), Settled)
        assert isinstance(await peer.adapter.status(first), Contested), "its slot was used by the second attempt"
        assert await self.received(peer, order) == [1_500_000]

    async def test_an_attempt_wrongly_given_up_cannot_pay_twice(self, peer: Peer) -> None:
        order = await self.order(peer)
        first = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("at_last")
        await hand_over(peer.adapter, first)
        await peer.close_ledgers(2)
        assert isinstance(await peer.adapter.status(first), Pending)
        second = await peer.adapter.prepare(order, slot=first.slot, busy={first.slot})
        await hand_over(peer.adapter, second)
        await self.outlive(peer, second)
        outcomes = [await peer.adapter.status(tx) for tx in (first, second)]
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Contested", "Settled"]
        assert await self.received(peer, order) == [1_500_000]

    async def test_inclusion_in_the_very_last_ledger_counts(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("at_last")
        await hand_over(peer.adapter, tx)
        while (await peer.adapter.holdings()).at.number < tx.last:
            assert isinstance(await peer.adapter.status(tx), Pending)
            await peer.close_ledgers()
        outcome = await peer.adapter.status(tx)
        assert isinstance(outcome, Settled)
        assert outcome.at.number == tx.last

    async def test_a_provisional_success_that_is_dropped_is_submitted_again(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("restart")
        assert await hand_over(peer.adapter, tx) == ""
        await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(tx), Pending)
        await peer.adapter.submit(tx)
        await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(tx), Settled)
        assert await self.received(peer, order) == [1_500_000]

    async def test_absence_proves_nothing_where_history_is_missing(self, peer: Peer) -> None:
        tx = await peer.adapter.prepare(await self.order(peer), slot=None, busy=())
        await self.outlive(peer, tx)
        peer.arm("gap")
        assert isinstance(await peer.adapter.status(tx), Pending)
        assert isinstance(await peer.adapter.status(tx), Expired)

    async def test_a_node_that_lags_proves_nothing(self, peer: Peer) -> None:
        tx = await peer.adapter.prepare(await self.order(peer), slot=None, busy=())
        await self.outlive(peer, tx)
        peer.arm("lagging")
        assert isinstance(await peer.adapter.status(tx), Pending)
        assert isinstance(await peer.adapter.status(tx), Expired)

    async def test_a_slot_used_by_a_stranger_is_contested(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("stranger")
        await hand_over(peer.adapter, tx)
        await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(tx), Contested)
        await self.outlive(peer, tx)
        assert isinstance(await peer.adapter.status(tx), Contested)
        assert await self.received(peer, order) == [0]

    async def test_failure_in_a_ledger_names_the_culprit_and_uses_the_slot(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("failed")
        await hand_over(peer.adapter, tx)
        await peer.close_ledgers()
        outcome = await peer.adapter.status(tx)
        assert isinstance(outcome, Failed)
        assert outcome.culprit == 0
        assert outcome.used_slot
        assert outcome.fee > 0
        assert await self.received(peer, order) == [0]
        again = await peer.adapter.prepare(order, slot=None, busy=())
        assert again.slot != tx.slot

    async def test_busy_slots_are_left_alone(self, peer: Peer) -> None:
        orders = [await self.order(peer, f"pay_{n}", 1 + n) for n in range(4)]
        busy: set[Slot] = set()
        attempts = []
        for order in orders:
            attempts.append(await peer.adapter.prepare(order, slot=None, busy=busy))
            busy.add(attempts[-1].slot)
        assert len(busy) == 4
        for tx in reversed(attempts):
            await hand_over(peer.adapter, tx)
        await peer.close_ledgers(2)
        assert all([isinstance(await peer.adapter.status(tx), Settled) for tx in attempts])
        assert [await self.received(peer, order) for order in orders] == [[1], [2], [3], [4]]

    async def test_equal_orders_are_two_payments(self, peer: Peer) -> None:
        one = await self.order(peer, "pay_1")
        two = replace(one, id="pay_2")
        first = await peer.adapter.prepare(one, slot=None, busy=())
        second = await peer.adapter.prepare(two, slot=None, busy={first.slot})
        assert first.id != second.id
        await peer.adapter.submit(first)
        await peer.adapter.submit(second)
        await peer.close_ledgers()
        assert await self.received(peer, one) == [3_000_000]

    async def test_a_fee_spike_is_waited_out_under_the_cap(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("fee_spike")
        assert await hand_over(peer.adapter, tx) != ""
        await self.outlive(peer, tx)
        assert isinstance(await peer.adapter.status(tx), Expired)
        again = await peer.adapter.prepare(order, slot=tx.slot, busy=())
        await peer.adapter.submit(again)
        await peer.close_ledgers()
        assert isinstance(await peer.adapter.status(again), Settled)

    async def test_an_unreachable_node_is_said_so_by_every_call(self, peer: Peer) -> None:
        order = await self.order(peer)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        peer.arm("unreachable", 5)
        with pytest.raises(Unreachable):
            await peer.adapter.prepare(order, slot=None, busy=())
        with pytest.raises(Unreachable):
            await peer.adapter.submit(tx)
        with pytest.raises(Unreachable):
            await peer.adapter.status(tx)
        with pytest.raises(Unreachable):
            await peer.adapter.deposits(None)
        with pytest.raises(Unreachable):
            await peer.adapter.holdings()
        assert isinstance(await peer.adapter.status(tx), Pending)

    @pytest.mark.parametrize("amount", [1, 10**9 + 1, FUNDED])
    async def test_amounts_arrive_to_the_last_unit(self, peer: Peer, amount: int) -> None:
        order = await self.order(peer, amount=amount)
        tx = await peer.adapter.prepare(order, slot=None, busy=())
        await peer.adapter.submit(tx)
        await peer.close_ledgers()
        assert await self.received(peer, order) == [amount]
        assert (await peer.adapter.holdings()).amounts[peer.stable] == FUNDED - amount

    async def test_the_orders_id_and_the_anchors_digest_are_on_chain(self, peer: Peer) -> None:
        digest = bytes(range(32))
        orders = await self.order(peer, "pay_77"), AnchorOrder("anc_77", digest)
        payout = await peer.adapter.prepare(orders[0], slot=None, busy=())
        anchor = await peer.adapter.prepare(orders[1], slot=None, busy={payout.slot})
        await peer.adapter.submit(payout)
        await peer.adapter.submit(anchor)
        await peer.close_ledgers()
        outcome = await peer.adapter.status(anchor)
        assert isinstance(outcome, Settled)
        assert outcome.delivered == ()
        assert await peer.on_chain(orders[0]) == [Landed(True, b"")]
        assert await peer.on_chain(orders[1]) == [Landed(True, digest)]

    async def test_an_anchor_that_does_not_fit_is_refused_before_it_is_signed(self, peer: Peer) -> None:
        with pytest.raises(Unpayable):
            await peer.adapter.prepare(AnchorOrder("anc_1", bytes(peer.adapter.facts.memo + 1)), slot=None, busy=())

    async def test_what_cannot_be_paid_is_refused_before_a_slot_is_used(self, peer: Peer) -> None:
        facts = peer.adapter.facts
        good = Transfer(await peer.payee(), peer.stable, 1)
        picky = await peer.payee(needs_reference=True)
        bad = {
            "no_destination": replace(good, to=peer.unknown()),
            "address_malformed": replace(good, to=good.to[:-1]),
            "destination_needs_reference": replace(good, to=picky),
            "asset_unknown": replace(good, asset=peer.foreign),
            "amount_out_of_range": replace(good, amount=0),
            "reference_out_of_range": replace(good, reference=1 << facts.reference_bits),
        }
        for code, transfer in bad.items():
            for index in range(min(facts.transfers, 3)):
                order = PayoutOrder("pay_1", (good,) * index + (transfer,))
                with pytest.raises(Unpayable) as refusal:
                    await peer.adapter.prepare(order, slot=None, busy=())
                assert (refusal.value.code, refusal.value.culprit) == (code, index)
        for code, transfers in {
            "underfunded": (replace(good, amount=FUNDED + 1),),
            "no_transfers": (),
            "too_many_transfers": (good,) * (facts.transfers + 1),
        }.items():
            with pytest.raises(Unpayable) as refusal:
                await peer.adapter.prepare(PayoutOrder("pay_1", transfers), slot=None, busy=())
            assert (refusal.value.code, refusal.value.culprit) == (code, None)
        tagged = PayoutOrder("pay_1", (replace(good, to=picky, reference=0),))
        assert (await peer.adapter.prepare(tagged, slot=None, busy=())).slot

    # --- deposits -------------------------------------------------------------------------------------------------

    async def test_deposits_are_given_exactly_once_over_pages_and_polls(self, peer: Peer) -> None:
        _, cursor = await all_deposits(peer.adapter)
        sent: dict[str, tuple[int, int | None]] = {}
        seen: list[Deposit] = []
        for number in range(23):
            reference = None if number == 5 else number  # 0 is a reference
            sent[await peer.pay_in(peer.stable, 100 + number, reference)] = (100 + number, reference)
            if number % 4 == 3:
                await peer.close_ledgers()
            if number % 6 == 0:
                found, cursor = await all_deposits(peer.adapter, cursor)
                seen += found
        await peer.close_ledgers()
        found, cursor = await all_deposits(peer.adapter, cursor)
        seen += found
        assert {deposit.id[0]: (deposit.amount, deposit.reference) for deposit in seen} == sent
        assert len({deposit.id for deposit in seen}) == len(seen) == len(sent)
        assert [deposit.at.number for deposit in seen] == sorted(deposit.at.number for deposit in seen)
        assert (await all_deposits(peer.adapter, cursor))[0] == []
        again, _ = await all_deposits(peer.adapter)
        assert [deposit.id for deposit in again][-len(seen) :] == [deposit.id for deposit in seen]

    async def test_a_partial_payment_credits_what_was_delivered(self, peer: Peer) -> None:
        _, cursor = await all_deposits(peer.adapter)
        await peer.pay_in(peer.stable, 1_000_000, 7, partial=1)
        await peer.close_ledgers()
        found, _ = await all_deposits(peer.adapter, cursor)
        assert [(deposit.amount, deposit.reference) for deposit in found] == [(1, 7)]
        assert (await peer.adapter.holdings()).amounts[peer.stable] == FUNDED + 1

    async def test_the_same_code_from_another_issuer_is_no_deposit(self, peer: Peer) -> None:
        _, cursor = await all_deposits(peer.adapter)
        await peer.pay_in(peer.foreign, 1_000_000, 7)
        await peer.close_ledgers()
        assert (await all_deposits(peer.adapter, cursor))[0] == []
        assert (await peer.adapter.holdings()).amounts[peer.stable] == FUNDED

    async def test_the_native_coin_is_credited_as_itself(self, peer: Peer) -> None:
        _, cursor = await all_deposits(peer.adapter)
        await peer.pay_in(peer.adapter.facts.fee_asset, 5, 7)
        await peer.close_ledgers()
        found, _ = await all_deposits(peer.adapter, cursor)
        assert [(deposit.asset, deposit.amount) for deposit in found] == [(peer.adapter.facts.fee_asset, 5)]

    async def test_what_is_not_validated_is_not_credited(self, peer: Peer) -> None:
        _, cursor = await all_deposits(peer.adapter)
        await peer.pay_in(peer.stable, 5, 7)
        found, cursor = await all_deposits(peer.adapter, cursor)
        assert found == []
        await peer.close_ledgers()
        assert len((await all_deposits(peer.adapter, cursor))[0]) == 1

    async def test_what_failed_in_a_ledger_is_not_credited(self, peer: Peer) -> None:
        _, cursor = await all_deposits(peer.adapter)
        await peer.pay_in_failing(7)
        await peer.close_ledgers()
        assert (await all_deposits(peer.adapter, cursor))[0] == []
        assert (await peer.adapter.holdings()).amounts[peer.stable] == FUNDED

    async def test_a_gap_in_history_is_raised_and_skips_nothing(self, peer: Peer) -> None:
        _, cursor = await all_deposits(peer.adapter)
        await peer.pay_in(peer.stable, 5, 7)
        await peer.close_ledgers()
        peer.arm("gap")
        with pytest.raises(Gap):
            await peer.adapter.deposits(cursor)
        assert len((await all_deposits(peer.adapter, cursor))[0]) == 1

    async def test_a_node_that_lags_never_moves_the_cursor_back(self, peer: Peer) -> None:
        await peer.pay_in(peer.stable, 5, 7)
        await peer.close_ledgers()
        _, cursor = await all_deposits(peer.adapter)
        peer.arm("lagging")
        page = await peer.adapter.deposits(cursor)
        assert page.deposits == ()
        assert page.cursor == cursor
        assert (await all_deposits(peer.adapter, page.cursor))[0] == []

    # --- the rest -------------------------------------------------------------------------------------------------

    async def test_addresses_are_checked_with_their_checksum(self, peer: Peer) -> None:
        good = await peer.payee()
        assert peer.adapter.payee(good, 7) == (good, 7)
        assert peer.adapter.payee(peer.adapter.treasury, None) == (peer.adapter.treasury, None)
        wrong_digit = good[:-3] + ("q" if good[-3] != "q" else "z") + good[-2:]
        for bad in (
            "",
            good[:-1],
            good + "2",
            good.swapcase(),
            f" {good}",
            wrong_digit,
            "0" * len(good),
            good[:4] + "é" * 40,
        ):
            with pytest.raises(Unpayable) as refusal:
                peer.adapter.payee(bad, None)
            assert refusal.value.code == "address_malformed"

    async def test_none_of_our_own_accounts_is_paid_in_any_form(self, peer: Peer) -> None:
        own = await peer.adapter.own_accounts()
        assert peer.adapter.treasury in own
        combined = peer.adapter.combined_address(7)
        for form in (*own, *([combined] if combined else [])):
            assert peer.adapter.payee(form, None)[0] in own
            with pytest.raises(Unpayable) as refusal:
                order = PayoutOrder("pay_1", (Transfer(form, peer.stable, 100),))
                await peer.adapter.prepare(order, slot=None, busy=())
            assert (refusal.value.code, refusal.value.culprit) == ("self_payment", 0)
        if combined:
            assert peer.adapter.payee(combined, 7) == peer.adapter.payee(combined, None)
            with pytest.raises(Unpayable, match="reference_out_of_range"):
                peer.adapter.payee(combined, 8)

    async def test_a_payment_uri_names_treasury_and_reference(self, peer: Peer) -> None:
        uri = await peer.adapter.payment_uri(peer.stable, 4_294_967_295, 1_500_000)
        assert peer.adapter.treasury in uri
        assert "4294967295" in uri
        assert await peer.adapter.payment_uri(peer.stable, 1, None) != uri

    async def test_what_the_chain_offers_next_is_what_is_signed_next(self, peer: Peer) -> None:
        for name in ("pay_1", "pay_2"):
            following = await peer.adapter.next_numbers()
            tx = await peer.adapter.prepare(await self.order(peer, name), slot=None, busy=())
            assert following.get(tx.slot.account, tx.slot.number) == tx.slot.number
            await peer.adapter.submit(tx)
            await peer.close_ledgers()

    async def test_two_processes_see_one_chain_and_one_wins_a_slot(self, peer: Peer) -> None:
        other = peer.second()
        try:
            assert other.treasury == peer.adapter.treasury
            assert other.facts == peer.adapter.facts
            mine, theirs = await self.order(peer, "pay_1", 3), await self.order(peer, "pay_2", 4)
            first = await peer.adapter.prepare(mine, slot=None, busy=())
            second = await other.prepare(theirs, slot=None, busy=())
            assert first.slot == second.slot
            await hand_over(peer.adapter, first)
            await hand_over(other, second)
            await peer.close_ledgers()
            outcomes = [await other.status(first), await peer.adapter.status(second)]
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Contested", "Settled"]
            paid = await self.received(peer, mine) + await self.received(peer, theirs)
            assert paid in ([3, 0], [0, 4])
        finally:
            await other.close()
