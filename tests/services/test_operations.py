"""What the books do not know of the treasury's history is accounted for, on the XRP Ledger: nothing is paid twice."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text

from settlement.chain import AnchorOrder, PayoutOrder, Transfer
from settlement.core.errors import NotFound
from settlement.services import chains, funding, halts, operations, payouts, recovery, solvency
from settlement.storage import accounts, chain_orders
from tests.rippled.peer import KEY, STABLE
from tests.simulation.conftest import new_database
from tests.simulation.xrpl import XrplInstallation

pytestmark = pytest.mark.network
__all__ = ["new_database"]


@pytest.fixture
async def ledger(new_database: Callable[[], str]) -> AsyncIterator[XrplInstallation]:
    made = await XrplInstallation.begin(new_database(), 1, nodes=1, tickets=False)
    yield made
    await made.close()


async def lost_payments(found: XrplInstallation, count: int) -> tuple[int, dict[str, int]]:
    """A planned window, `count` of whose payouts have been paid by a service whose books are gone."""
    number, due = await found.window(random.Random(3))
    await payouts.plan(found.process(), number)
    waiting = await payouts.of_window(found.process(), number)
    for payout in waiting[:count]:
        transfer = Transfer(payout.address, STABLE, payout.amount, payout.reference, payout.id)
        order = PayoutOrder(f"ord_lost_{payout.id[-4:]}", (transfer,))
        await found.adapter.submit(await found.adapter.prepare(order, slot=None, busy=()))
        found.peer.engine.close()
    return number, due


async def finish(found: XrplInstallation) -> None:
    context = found.process()
    for halt in await halts.open_halts(context):
        await halts.clear(context, halt.no, "operator")
    done = await chains.run_until_idle(context, found.chain, pause=found._pause)
    assert done.idle
    assert not done.halted


async def test_payouts_that_the_books_have_lost_are_booked_and_not_paid_again(ledger: XrplInstallation) -> None:
    number, due = await lost_payments(ledger, 2)
    stopped = await chains.run_once(ledger.process(), ledger.chain)
    assert stopped.signed <= 1
    done = await operations.account_for(ledger.process(), ledger.chain)
    assert done.complete
    assert len(done.adopted) == 2
    assert (await operations.account_for(ledger.process(), ledger.chain)).adopted == ()
    await finish(ledger)
    for party_id, _, wallet in ledger.payees:
        assert ledger._balance(wallet) == due[party_id]
    assert {each.state for each in await payouts.of_window(ledger.process(), number)} == {"settled"}
    assert await solvency.reconcile_holdings(ledger.process(), ledger.chain) is not None
    assert await halts.open_halts(ledger.process()) == []
    await ledger.audit()


async def test_a_lost_anchor_is_found_by_its_digest(ledger: XrplInstallation) -> None:
    number, _ = await ledger.window(random.Random(3))
    await payouts.plan(ledger.process(), number)
    async with ledger.database.read() as connection:
        digest = (await connection.execute(text("SELECT digest FROM chain_order WHERE kind = 'anchor'"))).scalar_one()
    tx = await ledger.adapter.prepare(AnchorOrder("anc_lost", digest), slot=None, busy=())
    await ledger.adapter.submit(tx)
    ledger.peer.engine.close()
    assert len((await recovery.match(ledger.process(), ledger.chain)).adopted) == 1
    async with ledger.database.read() as connection:
        (order,) = [each for each in await chain_orders.of_window(connection, number) if each.kind == "anchor"]
    assert (order.state, order.tx_id) == ("settled", tx.id)


async def test_an_operators_transaction_costs_its_fee_and_lets_the_account_sign(ledger: XrplInstallation) -> None:
    await ledger.window(random.Random(1))
    ledger.peer.wallet.send(ledger.peer.engine, TransactionType="TicketCreate", TicketCount=5)
    ledger.peer.engine.close()
    done = await operations.account_for(ledger.process(), ledger.chain)
    assert done.complete
    assert len(done.booked) == 1
    assert (await operations.account_for(ledger.process(), ledger.chain)).booked == ()
    async with ledger.database.read() as connection:
        assert (await accounts.get(connection, "fees/xrpl/XRP")).settled == -5_000
    assert await solvency.reconcile_holdings(ledger.process(), ledger.chain) is not None
    assert await halts.open_halts(ledger.process()) == []


async def test_money_that_left_for_nothing_stops_the_account_until_somebody_owns_up(ledger: XrplInstallation) -> None:
    number, _ = await ledger.window(random.Random(1))
    await payouts.plan(ledger.process(), number)
    value = {"currency": KEY[0], "issuer": KEY[1], "value": "12.5"}
    thief = ledger._wallet()
    name = ledger.peer.wallet.pay(ledger.peer.engine, thief.address, value)
    ledger.peer.engine.close()
    await chains.run_once(ledger.process(), ledger.chain)
    done = await operations.account_for(ledger.process(), ledger.chain)
    assert [each.tx.id for each in done.foreign] == [name]
    assert not done.complete
    ours = await operations.account_for(ledger.process(), ledger.chain, own=[name])
    assert ours.complete
    assert ours.booked == (name,)
    await finish(ledger)
    async with ledger.database.read() as connection:
        equity = await accounts.get(connection, f"equity/xrpl/{STABLE.text}")
    assert equity.settled == 10**12 - 12_500_000
    assert await solvency.reconcile_holdings(ledger.process(), ledger.chain) is not None
    assert await halts.open_halts(ledger.process()) == []


async def test_what_was_signed_before_the_chain_was_opened_is_none_of_the_books(ledger: XrplInstallation) -> None:
    assert (await operations.account_for(ledger.process(), ledger.chain)).booked == ()
    with pytest.raises(NotFound):
        await operations.account_for(ledger.process(), "nowhere")


async def test_an_issuers_charge_is_booked_beside_the_payout(ledger: XrplInstallation) -> None:
    ledger.peer.engine.state.accounts[STABLE.issuer].rate = 1_002_000_000
    ledger.peer.engine.close()
    number, due = await ledger.window(random.Random(1))
    await payouts.plan(ledger.process(), number)
    await finish(ledger)
    async with ledger.database.read() as connection:
        charged = -(await accounts.get(connection, f"fees/xrpl/{STABLE.text}")).settled
    assert sum(due.values()) * 2 // 1000 <= charged <= sum(due.values()) * 2 // 1000 + len(due)
    await funding.read_deposits(ledger.process(), ledger.chain)
    assert await solvency.reconcile_holdings(ledger.process(), ledger.chain) is not None
    assert await halts.open_halts(ledger.process()) == []
