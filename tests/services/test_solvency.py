"""The books against the chain, and what is owed against what is held."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.simulated import USD
from adapters.simulated.blobs import Payment
from settlement.core.journal import Entry, Posting
from settlement.services import chains, halts, payouts, solvency
from settlement.storage import journal, windows
from tests.simulation.harness import CHAIN, Installation, installed


@pytest.fixture
async def installation(database_url: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database_url, tmp_path) as made:
        yield made


async def codes(installation: Installation) -> list[str]:
    return [halt.code for halt in await halts.open_halts(installation.process())]


async def test_books_and_chain_agree_through_a_window(installation: Installation) -> None:
    context = installation.process()
    number, _ = await installation.window(random.Random(1))
    await payouts.plan(context, number)
    assert await solvency.reconcile_holdings(context, CHAIN) is not None
    await chains.run_once(context, CHAIN)
    assert await solvency.reconcile_holdings(context, CHAIN) is None  # something is out
    await chains.run_until_idle(context, CHAIN)
    assert await solvency.reconcile_holdings(context, CHAIN) is not None
    assert await codes(installation) == []


async def test_a_deposit_that_was_not_read_yet_is_no_mismatch(installation: Installation) -> None:
    await installation.pay_in(1000)
    assert await solvency.reconcile_holdings(installation.process(), CHAIN) is not None
    await installation.pay_in(1000, reference=False)
    assert await solvency.reconcile_holdings(installation.process(), CHAIN) is not None
    assert await codes(installation) == []


async def test_an_outflow_that_is_not_on_record_halts(installation: Installation) -> None:
    thief = installation.payees[0][2].address
    installation.network.pay(installation.treasury, (Payment(thief, USD.text, 1, None),))
    installation.network.close_ledger()
    assert await solvency.reconcile_holdings(installation.process(), CHAIN) is not None
    assert "holdings_mismatch" in await codes(installation)


async def test_owing_more_than_is_held_halts(installation: Installation) -> None:
    async with installation.database.begin() as connection:
        number = await windows.enter(connection)
        legs = (Posting("conversion/CU", "CU", -(10**17)), Posting(installation.consumer, "CU", 10**17))
        await journal.append(connection, Entry("deposit", "dep_x", number, installation.sources.clock(), legs))
    assert await solvency.reconcile_holdings(installation.process(), CHAIN) is not None
    assert await codes(installation) == ["assets_below_liabilities"]


async def test_coverage_counts_what_is_on_its_way_and_leaves_suspense_out(installation: Installation) -> None:
    context = installation.process()
    async with installation.database.read() as connection:
        before = await solvency.coverage(context, connection)
    await installation.pay_in(900, reference=False)
    installation.network.close_ledger()
    number, _ = await installation.window(random.Random(1))
    await payouts.plan(context, number)
    await solvency.reconcile_holdings(context, CHAIN)
    async with installation.database.read() as connection:
        after = await solvency.coverage(context, connection)
    assert after == before
    assert after.covered


async def test_a_window_is_measured_once_at_a_moment_of_rest(installation: Installation) -> None:
    context = installation.process()
    assert await solvency.measure(context) is None  # no window has a checkpoint yet
    number, _ = await installation.window(random.Random(1))
    await payouts.plan(context, number)
    await chains.run_once(context, CHAIN)
    assert await solvency.measure(context) is None  # something is out
    await chains.run_until_idle(context, CHAIN)
    found = await solvency.measure(context)
    assert found is not None
    assert (found.window, found.covered) == (number, True)
    async with installation.database.read() as connection:
        books = await solvency.coverage(context, connection)
    assert (found.owed, found.held) == (books.owed, books.held)
    assert await solvency.measure(context) is None
    published = await solvency.published(context, number)
    assert published.document == found.document()
    assert await codes(installation) == []


async def test_a_window_that_is_measured_short_halts(installation: Installation) -> None:
    context = installation.process()
    await installation.window(random.Random(1))
    thief = installation.payees[0][2].address
    everything = (await context.chains[CHAIN].holdings()).amounts[USD]
    installation.network.pay(installation.treasury, (Payment(thief, USD.text, everything, None),))
    installation.network.close_ledger()
    found = await solvency.measure(context)
    assert found is not None
    assert not found.covered
    assert await codes(installation) == ["assets_below_liabilities"]
