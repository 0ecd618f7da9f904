"""What goes wrong on the XRP Ledger for longer than a moment: no ledgers for an hour, refusals, gaps, lies."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from settlement.core.errors import Unavailable
from settlement.services import chains, halts, payouts, solvency
from settlement.services.context import Context
from tests.rippled.engine import REQUIRE_TAG
from tests.simulation.xrpl import XrplInstallation

pytestmark = pytest.mark.network


@pytest.fixture
async def ledger(new_database: Callable[[], str]) -> AsyncIterator[XrplInstallation]:
    made = await XrplInstallation.begin(new_database(), 7, nodes=1, tickets=False)
    yield made
    await made.close()


def whole(found: XrplInstallation) -> Context:
    """A process with the adapter itself, which also sets accounts up."""
    return replace(found.process(), chains={found.chain: found.adapter})


async def orders(found: XrplInstallation, where: str) -> list[Any]:
    async with found.database.read() as connection:
        return list((await connection.execute(text(f"SELECT * FROM chain_order WHERE {where} ORDER BY id"))).all())


async def planned(found: XrplInstallation) -> tuple[int, dict[str, int]]:
    number, due = await found.window(random.Random(1))
    await payouts.plan(found.process(), number)
    return number, due


async def all_paid(found: XrplInstallation, due: dict[str, int], *, but: str = "") -> None:
    """Every payee has exactly what it was due, but the one at an address, who has nothing; and the books agree."""
    context = whole(found)
    done = await chains.run_until_idle(context, found.chain, pause=found._pause)
    assert done.idle
    assert not done.halted
    for party_id, _, wallet in found.payees:
        assert found._balance(wallet) == (0 if wallet.address == but else due[party_id])
    assert await solvency.reconcile_holdings(context, found.chain) is not None
    assert await halts.open_halts(context) == []


async def test_an_hour_without_ledgers_loses_and_doubles_nothing(ledger: XrplInstallation) -> None:
    number, due = await planned(ledger)
    before = len(ledger.peer.engine.landed)
    await ledger.stand_still()
    async with ledger.database.read() as connection:
        signed = (await connection.execute(text("SELECT count(*) FROM attempt"))).scalar_one()
    assert signed == len(due) + 1, "nothing is signed twice while nothing can be proven"
    assert len(ledger.peer.engine.landed) == before
    await all_paid(ledger, due)
    assert len(await orders(ledger, f"window_no = {number} AND state = 'settled'")) == len(due) + 1
    await ledger.audit()


async def test_a_balance_that_a_node_makes_up_halts(ledger: XrplInstallation) -> None:
    assert await solvency.reconcile_holdings(ledger.process(), ledger.chain) is not None
    assert await halts.open_halts(ledger.process()) == []
    ledger.peer.nodes[0].lies[ledger.peer.adapter.treasury] = 5_000_000
    assert await solvency.reconcile_holdings(ledger.process(), ledger.chain) is not None
    assert [each.code for each in await halts.open_halts(ledger.process())] == ["holdings_mismatch"]
    number, _ = await ledger.window(random.Random(1))
    with pytest.raises(Unavailable, match="halted"):
        await payouts.plan(ledger.process(), number)


async def test_what_a_node_calls_wrong_for_good_is_not_signed_for_ever(ledger: XrplInstallation) -> None:
    _, due = await planned(ledger)
    ledger.peer.arm("malformed")
    await chains.run_once(whole(ledger), ledger.chain)
    (refused,) = await orders(ledger, "detail LIKE '%refused for good with temMALFORMED'")
    assert refused.state == "unknown", "a refusal is a hint: these bytes may have left before"
    offered = ledger.peer.nodes[0].commands["submit"]
    for _ in range(3):
        await chains.run_once(whole(ledger), ledger.chain)
    (still,) = await orders(ledger, f"id = '{refused.id}'")
    assert (still.state, still.attempts) == ("unknown", 1)
    assert ledger.peer.nodes[0].commands["submit"] == offered, "offering them again is of no use"
    await all_paid(ledger, due)
    (ended,) = await orders(ledger, f"id = '{refused.id}'")
    assert (ended.state, ended.detail, ended.attempts, ended.slot_number) == ("failed", "temMALFORMED", 1, None)


async def test_a_number_that_nobody_takes_any_more_is_filled(ledger: XrplInstallation) -> None:
    """A payee asks for a tag after its payment was lost: all that was signed behind it waits for its number."""
    _, due = await planned(ledger)
    await chains.run_once(whole(ledger), ledger.chain)
    first = min(await orders(ledger, "kind = 'payout'"), key=lambda each: each.slot_number)
    ledger.peer.engine.queue = [each for each in ledger.peer.engine.queue if each.id != first.detail]
    async with ledger.database.read() as connection:
        query = text("SELECT address FROM payout WHERE order_id = :order")
        address = (await connection.execute(query, {"order": first.id})).scalar_one()
    ledger.peer.engine.close(14)
    ledger.peer.engine.state.accounts[address].flags |= REQUIRE_TAG
    ledger.peer.engine.close()
    await all_paid(ledger, due, but=address)
    (filler,) = await orders(ledger, "step = 'no_op'")
    assert (filler.state, filler.slot_number) == ("settled", first.slot_number)
    landed = ledger.peer.engine.landed[filler.tx_id].tx
    assert (landed["TransactionType"], "SetFlag" in landed) == ("AccountSet", False)


async def test_what_was_taken_once_stays_taken_when_it_is_refused_later(ledger: XrplInstallation) -> None:
    _, due = await planned(ledger)
    ledger.peer.arm("restart", 6)
    await chains.run_once(whole(ledger), ledger.chain)
    ledger.peer.engine.close(3)
    ledger.peer.arm("fee_spike", 6)
    done = await chains.run_once(whole(ledger), ledger.chain)
    assert done.in_flight == len(due) + 1
    assert {each.state for each in await orders(ledger, "true")} == {"submitted"}
    ledger.peer.engine.fee_until = 0
    await all_paid(ledger, due)
