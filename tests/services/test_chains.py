"""The runner's promises, one by one: what wrong strategies would break can't happen, whatever the node says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from adapters.simulated import USD, SimulatedAdapter
from settlement.chain import (
    NO_OP,
    Contested,
    Expired,
    Failed,
    Outcome,
    Pending,
    Rejected,
    Settled,
    Slot,
    Transaction,
    Unreachable,
)
from settlement.core.errors import Broken, Conflict, NotFound, Unavailable
from settlement.services import anchoring, chains, halts, payouts
from settlement.services.context import Context
from settlement.storage import accounts, chain_orders
from settlement.storage.chain_orders import Order
from tests.simulation.crashing import CrashingAdapter
from tests.simulation.harness import CHAIN, Installation, installed


@pytest.fixture
async def installation(database_url: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database_url, tmp_path) as made:
        yield made


class Scripted(CrashingAdapter):
    """The simulated network's adapter behind a node that may say something else than the truth."""

    def __init__(self, installation: Installation) -> None:
        super().__init__(SimulatedAdapter(installation.network, installation.treasury), installation.effects)
        self.says: Callable[[Transaction, Outcome], Outcome] = lambda _, truth: truth
        self.loses: BaseException | None = None
        self.arrives = True
        self.prepared: list[tuple[Slot | None, Slot]] = []
        self.submitted: list[bytes] = []
        self.asked: list[str] = []

    async def prepare(self, order, *, slot, busy):  # type: ignore[no-untyped-def]
        made = await super().prepare(order, slot=slot, busy=busy)
        self.prepared.append((slot, made.slot))
        return made

    async def submit(self, tx: Transaction) -> None:
        self.submitted.append(tx.blob)
        if self.arrives:
            await super().submit(tx)
        if self.loses is not None:
            raise self.loses

    async def status(self, tx: Transaction) -> Outcome:
        self.asked.append(tx.id)
        return self.says(tx, await super().status(tx))


def scripted(installation: Installation) -> tuple[Context, Scripted]:
    adapter = Scripted(installation)
    return replace(installation.process(), chains={CHAIN: adapter}), adapter


async def orders(installation: Installation, kind: str = "payout") -> list[Order]:
    async with installation.database.read() as connection:
        rows = await connection.execute(
            text("SELECT id FROM chain_order WHERE kind = :kind ORDER BY id"), {"kind": kind}
        )
        found = [await chain_orders.get(connection, row.id) for row in rows]
    return [each for each in found if each is not None]


async def planned(installation: Installation, only: int = 1) -> int:
    """A planned window with payouts for the first `only` payees."""
    installation.payees = installation.payees[:only]
    number, _ = await installation.window(random.Random(1))
    await payouts.plan(installation.process(), number)
    return number


async def codes(context: Context) -> list[str]:
    return [halt.code for halt in await halts.open_halts(context)]


async def test_payouts_and_anchor_settle_and_are_booked(installation: Installation) -> None:
    number = await planned(installation, 5)
    context = installation.process()
    done = await chains.run_until_idle(context, CHAIN)
    assert done.idle
    assert (done.ordered, done.signed, done.settled) == (2, 3, 3)  # five payouts by three, and an anchor
    found = await payouts.of_window(context, number)
    assert {payout.state for payout in found} == {"settled"}
    assert [wallet.balance(USD) for _, _, wallet in installation.payees] == [
        next(payout.amount for payout in found if payout.party_id == party) for party, _, _ in installation.payees
    ]
    async with installation.database.read() as connection:
        assert (await accounts.get(connection, "transit/CU")).settled == 0
        assert (
            await connection.execute(text('SELECT anchored_at FROM "window" WHERE no = 1'))
        ).scalar_one() is not None
    assert [order.state for order in await anchoring.of_window(context, number)] == ["settled"]
    await installation.audit()


async def test_a_lost_answer_is_unknown_and_the_same_bytes_go_again(installation: Installation) -> None:
    await planned(installation)
    context, adapter = scripted(installation)
    adapter.loses, adapter.arrives = Unreachable("silence"), False
    await chains.run_once(context, CHAIN)
    assert {order.state for order in await orders(installation)} == {"unknown"}
    adapter.loses, adapter.arrives = None, True
    await chains.run_until_idle(context, CHAIN)
    assert {order.state for order in await orders(installation)} == {"settled"}
    assert len(adapter.submitted) == 4  # anchor and payout, twice each
    assert len(set(adapter.submitted)) == 2


async def test_what_was_taken_and_is_refused_when_it_is_offered_again_stays_taken(installation: Installation) -> None:
    await planned(installation)
    context, adapter = scripted(installation)
    adapter.arrives = False
    await chains.run_once(context, CHAIN)
    assert {order.state for order in await orders(installation)} == {"submitted"}
    adapter.says = lambda _, truth: Pending(again=True) if isinstance(truth, Pending) else truth
    adapter.loses = Rejected("TRY_AGAIN_LATER")
    await chains.run_once(context, CHAIN)
    assert len(adapter.submitted) == 4
    assert {order.state for order in await orders(installation)} == {"submitted"}
    assert await codes(context) == []
    adapter.loses, adapter.arrives = None, True
    await chains.run_until_idle(context, CHAIN)
    assert {order.state for order in await orders(installation)} == {"settled"}


@pytest.mark.parametrize("trouble", [Unreachable("x"), TimeoutError(), RuntimeError("the adapter itself failed")])
async def test_no_failure_of_a_submission_is_an_outcome(installation: Installation, trouble: Exception) -> None:
    await planned(installation)
    context, adapter = scripted(installation)
    adapter.loses = trouble  # after the bytes have arrived
    await chains.run_once(context, CHAIN)
    assert {order.state for order in await orders(installation)} == {"unknown"}
    await chains.run_until_idle(context, CHAIN)
    assert {(order.state, order.attempts) for order in await orders(installation)} == {("settled", 1)}


async def test_not_found_is_pending_for_ever_without_proof(installation: Installation) -> None:
    await planned(installation)
    context, adapter = scripted(installation)
    adapter.arrives = False
    adapter.says = lambda _tx, _truth: Pending()
    for _ in range(30):
        await chains.run_once(context, CHAIN)
    assert {(order.state, order.attempts) for order in await orders(installation)} == {("submitted", 1)}


async def test_a_retry_keeps_the_slot_and_every_attempt_is_asked_for(installation: Installation) -> None:
    await planned(installation)
    context, adapter = scripted(installation)
    adapter.arrives = False
    for _ in range(200):
        await chains.run_once(context, CHAIN)
        order = (await orders(installation))[0]
        if order.attempts == 3:
            break
    assert order.slot is not None
    kept = [used for asked, used in adapter.prepared if asked is not None]
    assert kept
    assert all(asked in (None, used) for asked, used in adapter.prepared)
    async with installation.database.read() as connection:
        attempts = (await chain_orders.attempts(connection, [order.id]))[order.id]
    assert {attempt.slot for attempt in attempts} == {order.slot}
    assert len({attempt.id for attempt in attempts}) == 3
    adapter.asked.clear()
    await chains.run_once(context, CHAIN)
    assert {attempt.id for attempt in attempts} <= set(adapter.asked)


async def test_expiry_declared_wrongly_still_pays_once_and_is_found(installation: Installation) -> None:
    """Rule 4 and rule 5 hold when rule 3 was judged wrongly: the first attempt lands after the second was signed."""
    number = await planned(installation)
    context, adapter = scripted(installation)
    adapter.says = lambda _tx, _truth: Expired()
    adapter.arrives = False
    await chains.run_once(context, CHAIN)  # signed, never arrived, as far as anybody knows
    await chains.run_once(context, CHAIN)  # "expired", signed again on the same slot
    found = await orders(installation)
    assert [order.attempts for order in found] == [2]
    async with installation.database.read() as connection:
        everything = await chain_orders.attempts(
            connection, [order.id for order in [*found, *await orders(installation, "anchor")]]
        )
    for attempts in everything.values():
        installation.network.submit(attempts[0].blob)  # the first attempts had only been slow
    adapter.says = lambda _tx, truth: truth
    adapter.arrives = True
    await chains.run_until_idle(context, CHAIN)
    order = (await orders(installation))[0]
    assert (order.state, order.tx_id) == ("settled", everything[order.id][0].id)
    (payout,) = await payouts.of_window(context, number)
    assert installation.payees[0][2].balance(USD) == payout.amount


async def test_two_workers_on_one_order_sign_once(installation: Installation) -> None:
    await planned(installation, 5)
    workers = [scripted(installation) for _ in range(4)]
    for _ in range(6):
        await asyncio.gather(*(chains.run_once(context, CHAIN) for context, _ in workers))
    assert (await chains.run_until_idle(installation.process(), CHAIN)).idle
    found = [*await orders(installation), *await orders(installation, "anchor")]
    assert {(order.state, order.attempts) for order in found} == {("settled", 1)}
    assert len({order.slot for order in found}) == len(found)
    await installation.audit()


async def test_the_transfer_at_fault_goes_back_and_the_rest_is_paid(installation: Installation) -> None:
    number = await planned(installation, 3)
    provider, _, wallet = installation.payees[1]
    installation.network.require_reference(wallet.address)
    context = installation.process()
    assert (await chains.run_until_idle(context, CHAIN)).idle
    found = {payout.party_id: payout for payout in await payouts.of_window(context, number)}
    assert [found[party].state for party, _, _ in installation.payees] == ["settled", "failed", "settled"]
    assert found[provider].detail == "destination_needs_reference"
    async with installation.database.read() as connection:
        assert (await accounts.get(connection, provider)).settled == found[provider].micro
        assert (await accounts.get(connection, "transit/CU")).settled == 0
    assert wallet.balance(USD) == 0


async def test_a_failure_in_a_ledger_costs_its_fee_and_its_slot(installation: Installation) -> None:
    number = await planned(installation, 2)
    context = installation.process()
    installation.network.arm("failed", 2)  # the anchor and the order with both payouts
    assert (await chains.run_until_idle(context, CHAIN)).idle
    everything = [*await orders(installation), *await orders(installation, "anchor")]
    assert sorted((order.kind, order.state) for order in everything) == [
        ("anchor", "failed"),
        ("anchor", "settled"),
        ("payout", "failed"),
        ("payout", "settled"),
    ]
    assert all(order.fee > 0 for order in everything)
    assert len({order.slot for order in everything} - {None}) == 4
    assert sorted(payout.state for payout in await payouts.of_window(context, number)) == ["failed", "settled"]
    await installation.audit()


async def test_part_of_a_transaction_may_fail_where_it_is_not_atomic(database_url: str, tmp_path: Path) -> None:
    async with installed(database_url, tmp_path, atomic=False) as installation:
        number = await planned(installation, 3)
        context, adapter = scripted(installation)
        adapter.arrives = True
        refusing = installation.payees[0]
        await chains.run_once(context, CHAIN)
        assert len(await orders(installation)) == 1
        installation.network.require_reference(refusing[2].address)  # after it was signed
        assert (await chains.run_until_idle(context, CHAIN)).idle
        found = {payout.party_id: payout.state for payout in await payouts.of_window(context, number)}
        arrived = {party: bool(wallet.balance(USD)) for party, _, wallet in installation.payees}
        assert {party: state == "settled" for party, state in found.items()} == arrived
        await installation.audit()


async def test_less_delivered_than_asked_halts(installation: Installation) -> None:
    await planned(installation)
    context, adapter = scripted(installation)

    def short(_tx: Transaction, truth: Outcome) -> Outcome:
        if isinstance(truth, Settled) and truth.delivered:
            return replace(truth, delivered=tuple(amount - 1 for amount in truth.delivered))
        return truth

    adapter.says = short
    await chains.run_until_idle(context, CHAIN)
    assert await codes(context) == ["delivery_mismatch"]
    order = (await orders(installation))[0]
    assert order.state == "contested"
    with pytest.raises(Broken, match="delivery_mismatch"):
        await chains.resolve_contested(context, order.id)
    adapter.says = lambda _tx, truth: truth  # the node is replaced by an honest one
    assert await chains.resolve_contested(context, order.id) == "settled"


async def test_a_stranger_on_our_slot_stops_everything_until_a_person_has_looked(installation: Installation) -> None:
    number = await planned(installation)
    context, adapter = scripted(installation)
    installation.network.arm("stranger", 1)
    await chains.run_until_idle(context, CHAIN)
    assert "slot_contested" in await codes(context)
    (contested,) = [
        o for o in [*await orders(installation), *await orders(installation, "anchor")] if o.state == "contested"
    ]
    signed = len(adapter.prepared)
    for _ in range(3):
        done = await chains.run_once(context, CHAIN)
    assert done.halted
    assert len(adapter.prepared) == signed
    async with installation.database.read() as connection:
        assert [account.frozen is not None for account in await chain_orders.signing_accounts(connection, CHAIN)] == [
            True
        ]
    assert await chains.resolve_contested(context, contested.id) == "failed"
    account = installation.network.account(installation.treasury.address)
    assert account is not None
    await chains.release_account(context, CHAIN, account.address, account.sequence)
    for halt in await halts.open_halts(context):
        await halts.clear(context, halt.no, "operator")
    assert (await chains.run_until_idle(context, CHAIN)).idle
    assert {payout.state for payout in await payouts.of_window(context, number)} == {"settled"}
    await installation.audit(strangers=True)


@pytest.mark.parametrize("state", ["signed", "submitted", "unknown"])
@pytest.mark.parametrize(
    "outcome",
    [Contested("somebody"), Failed("frozen", 0, used_slot=True, fee=12), Expired(), None],
    ids=lambda o: type(o).__name__ if o else "Settled",
)
async def test_every_way_out_of_every_state_in_flight(
    installation: Installation, state: str, outcome: Outcome | None
) -> None:
    """Without an outcome of its own the node says the truth, which is that it has landed."""
    await planned(installation)
    context, adapter = scripted(installation)
    adapter.arrives = outcome is None
    adapter.loses = Unreachable("x") if state == "unknown" else Died() if state == "signed" else None
    try:
        for _ in range(3):
            await chains.run_once(context, CHAIN)
            if any(order.state == state for order in await orders(installation)):
                break
    except Died:
        await resign(installation, context, adapter)
    adapter.loses = None
    before = {order.id: order.state for order in await orders(installation)}
    assert state in before.values()
    adapter.says = lambda _tx, truth: outcome or truth
    runner = chains._Pass(context, CHAIN, adapter)
    for order in await orders(installation):
        await runner.look_up(order)
    ends = {"Contested": "contested", "Failed": "failed", "Expired": "planned", "NoneType": "settled"}
    assert {order.state for order in await orders(installation) if order.id in before} == {ends[type(outcome).__name__]}


class Died(BaseException):
    """The process ended inside the call."""


async def resign(installation: Installation, context: Context, adapter: Scripted) -> None:
    """The anchor's submission killed the process; let the payout's do so as well."""
    for order in await orders(installation):
        if order.state == "planned":
            with pytest.raises(Died):
                await chains._Pass(context, CHAIN, adapter).sign_and_submit(order)
    if not await orders(installation):
        with pytest.raises(Died):
            await chains.run_once(context, CHAIN)


async def test_books_behind_the_chain_stop_signing(installation: Installation) -> None:
    """A restored backup, or somebody with our key: the chain offers a slot that the books say is not next."""
    await planned(installation)
    context = installation.process()
    async with installation.database.begin() as connection:
        await chain_orders.lock_account(connection, CHAIN, Slot(installation.treasury.address, 1))
        await chain_orders.set_mark(connection, CHAIN, installation.treasury.address, 1)
    before = installation.network.account(installation.treasury.address)
    assert before is not None
    assert before.sequence > 1
    done = await chains.run_once(context, CHAIN)
    assert done.signed == 0
    assert await codes(context) == ["slots_unaccounted"]


async def test_an_open_halt_stops_signing_but_not_looking(installation: Installation) -> None:
    number = await planned(installation)
    context, adapter = scripted(installation)
    await chains.run_once(context, CHAIN)
    second, _ = await installation.window(random.Random(2))
    await payouts.plan(context, second)
    third, _ = await installation.window(random.Random(3))
    halt = await halts.raise_halt(context, "test", "a person said stop")
    signed, submitted = len(adapter.prepared), len(adapter.submitted)
    assert (await chains.run_until_idle(context, CHAIN)).halted
    assert (len(adapter.prepared), len(adapter.submitted)) == (signed, submitted)
    assert {payout.state for payout in await payouts.of_window(context, number)} == {"settled"}
    assert {payout.state for payout in await payouts.of_window(context, second)} == {"planned"}
    with pytest.raises(Unavailable, match="halted"):
        await payouts.plan(context, third)
    await halts.clear(context, halt.no, "operator")
    assert await payouts.plan(context, third) == 1
    assert (await chains.run_until_idle(context, CHAIN)).settled == 4


async def test_a_halt_raised_while_an_order_is_prepared_keeps_its_bytes_in(installation: Installation) -> None:
    await planned(installation)
    context, adapter = scripted(installation)
    truly = adapter.prepare

    async def halting(order: Any, *, slot: Any, busy: Any) -> Transaction:
        await halts.raise_halt(context, "test", "just now")
        return await truly(order, slot=slot, busy=busy)  # type: ignore[no-any-return, no-untyped-call]

    adapter.prepare = halting  # type: ignore[method-assign]
    assert (await chains.run_once(context, CHAIN)).signed == 0
    assert adapter.submitted == []


async def test_a_number_that_nobody_takes_any_more_is_filled(database_url: str, tmp_path: Path) -> None:
    """A payment's first bytes are lost and its payee turns it away: what was signed behind it waits for its number."""
    async with installed(database_url, tmp_path, transfers=1) as installation:
        number = await planned(installation, 2)
        context, adapter = scripted(installation)
        adapter.arrives = False
        await chains.run_once(context, CHAIN)
        first, second = sorted(await orders(installation), key=lambda each: each.slot.number if each.slot else 0)
        (refused,) = [each for each in await payouts.of_window(context, number) if each.order_id == first.id]
        installation.network.require_reference(refused.address)
        for _ in range(20):  # until they are proven dead
            await chains.run_once(context, CHAIN)
        adapter.arrives = True
        assert (await chains.run_until_idle(context, CHAIN)).idle
        (filler,) = await orders(installation, "setup")
        assert (filler.step, filler.state, filler.slot) == (NO_OP, "settled", first.slot)
        assert [each.state for each in await orders(installation) if each.id == second.id] == ["settled"]
        await installation.audit()


async def test_commands_for_a_person_refuse_what_does_not_need_one(installation: Installation) -> None:
    await planned(installation)
    context = installation.process()
    await chains.run_until_idle(context, CHAIN)
    with pytest.raises(Conflict, match="order_not_contested"):
        await chains.resolve_contested(context, (await orders(installation))[0].id)
    with pytest.raises(NotFound, match="unknown_order"):
        await chains.resolve_contested(context, "ord_nothing")
    with pytest.raises(NotFound, match="account_not_frozen"):
        await chains.release_account(context, CHAIN, installation.treasury.address, 99)
