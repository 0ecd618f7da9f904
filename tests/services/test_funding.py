"""Money in: opened once, credited once, what was delivered, to whom the reference names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from adapters.simulated import SIM, USD, Key, SimulatedAdapter, Wallet
from settlement.chain import Asset, Deposit, Gap, Holdings, Ledger, Page, Unreachable
from settlement.core.errors import Broken, Conflict, NotFound, Unavailable
from settlement.core.ids import permuted
from settlement.services import funding, halts, solvency
from settlement.services.context import Context
from settlement.storage import accounts
from tests.simulation.crashing import CrashingAdapter
from tests.simulation.harness import CHAIN, Installation, installed

MICRO_PER_CENT_OF_A_CENT = 22_222
"""100 units of USD with 6 decimals at 0.0045 USD a CU: 22,222.2 microCU, rounded down."""


@pytest.fixture
async def installation(database_url: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database_url, tmp_path) as made:
        yield made


class Pages(CrashingAdapter):
    """The simulated network's adapter whose node may have other deposits to tell of, or none at all."""

    def __init__(self, installation: Installation) -> None:
        super().__init__(SimulatedAdapter(installation.network, installation.treasury), installation.effects)
        self.extra: tuple[Deposit, ...] = ()
        self.trouble: Exception | None = None

    async def deposits(self, after: str | None) -> Page:
        if self.trouble is not None:
            raise self.trouble
        page = await super().deposits(after)
        return replace(page, deposits=(*page.deposits, *self.extra))


async def paged(installation: Installation) -> tuple[Context, Pages]:
    adapter = Pages(installation)
    return replace(installation.process(), chains={CHAIN: adapter}), adapter


async def settled(installation: Installation, account: str) -> int:
    async with installation.database.read() as connection:
        return (await accounts.get(connection, account)).settled


async def pay(installation: Installation, amount: int, reference: int | None) -> None:
    assert installation.payer is not None
    installation.payer.pay(installation.treasury.address, USD, amount, reference)
    installation.network.close_ledger()


async def intent(installation: Installation) -> funding.FundingIntent:
    made = installation.process()
    return await funding.create_intent(made, party=installation.consumer, chain=CHAIN, asset=USD.text, amount=None)


async def test_what_the_treasury_held_before_opens_the_books(installation: Installation) -> None:
    async with installation.database.read() as connection:
        entries = await connection.execute(
            text("SELECT convert_from(payload, 'UTF8') FROM journal_entry WHERE kind = 'opening'")
        )
        (payload,) = entries.scalars()
    assert f'"treasury/simulated/{USD.text}","simulated/{USD.text}","-1000000000"' in payload
    assert f'"equity/simulated/{SIM.text}","simulated/{SIM.text}","999999000000"' in payload
    assert await settled(installation, f"suspense/simulated/{USD.text}") == 0
    await funding.open_chain(installation.process(), CHAIN)  # a later start
    assert await solvency.reconcile_holdings(installation.process(), CHAIN) is not None
    assert await halts.open_halts(installation.process()) == []


async def test_another_treasury_or_network_is_refused(installation: Installation) -> None:
    other = SimulatedAdapter(installation.network, Key(bytes(32)))
    context = replace(installation.process(), chains={CHAIN: other})
    with pytest.raises(Broken, match="chain_changed"):
        await funding.open_chain(context, CHAIN)


async def test_a_chain_that_can_not_repeat_on_a_slot_is_refused(installation: Installation) -> None:
    adapter = SimulatedAdapter(installation.network, installation.treasury)
    adapter._facts = replace(adapter.facts, reuses_slot=False)
    with pytest.raises(Broken, match="chain_unsuited"):
        await funding.open_chain(replace(installation.process(), chains={CHAIN: adapter}), CHAIN)


async def test_references_are_unpredictable_and_used_once(installation: Installation) -> None:
    made = [await intent(installation) for _ in range(20)]
    assert len({each.reference for each in made}) == 20
    assert max(each.reference for each in made) > 1 << 20
    assert [each.payment_uri for each in made] == [
        f"simulated:{installation.treasury.address}?asset={USD.text}&reference={each.reference}" for each in made
    ]
    async with installation.database.read() as connection:
        key = (await connection.execute(text("SELECT tag_key FROM chain_state"))).scalar_one()
    assert made[0].reference in {permuted(counter, key, 32) for counter in range(10)}


async def test_intents_are_refused_for_what_is_not_accepted(installation: Installation) -> None:
    context, consumer = installation.process(), installation.consumer
    with pytest.raises(NotFound, match="unknown_chain"):
        await funding.create_intent(context, party=consumer, chain="elsewhere", asset="USD", amount=None)
    with pytest.raises(NotFound, match="unknown_asset"):
        await funding.create_intent(context, party=consumer, chain=CHAIN, asset="USD:fake", amount=None)
    with pytest.raises(NotFound, match="unknown_party"):
        await funding.create_intent(context, party="acc_nobody", chain=CHAIN, asset=USD.text, amount=None)
    with pytest.raises(Conflict, match="party_not_consumer"):
        await funding.create_intent(context, party=installation.payees[0][0], chain=CHAIN, asset=USD.text, amount=None)


async def test_a_deposit_is_credited_once_rounded_down(installation: Installation) -> None:
    before = await settled(installation, installation.consumer)
    installation.sources.settable.advance(seconds=1)
    await pay(installation, 100, (await intent(installation)).reference)
    context = installation.process()
    assert await funding.read_deposits(context, CHAIN) == 1
    assert await funding.read_deposits(context, CHAIN) == 0
    assert await settled(installation, installation.consumer) - before == MICRO_PER_CENT_OF_A_CENT
    newest = (await funding.deposits_of(context, installation.consumer, limit=1))[0]
    assert (newest.amount, newest.credited, newest.micro_per_unit) == (100, MICRO_PER_CENT_OF_A_CENT, "2000/9")
    older = await funding.deposits_of(context, installation.consumer, cursor=newest.id)
    assert [each.amount for each in older] == [10**12]


async def test_a_partial_payment_credits_what_was_delivered(installation: Installation) -> None:
    before = await settled(installation, installation.consumer)
    assert installation.payer is not None
    reference = (await intent(installation)).reference
    installation.payer.pay(installation.treasury.address, USD, 10**9, reference, partial=100)
    installation.network.close_ledger()
    assert await funding.read_deposits(installation.process(), CHAIN) == 1
    assert await settled(installation, installation.consumer) - before == MICRO_PER_CENT_OF_A_CENT


async def test_many_readers_credit_once(installation: Installation) -> None:
    before = await settled(installation, installation.consumer)
    reference = (await intent(installation)).reference
    for _ in range(5):
        await pay(installation, 100, reference)
    counts = await asyncio.gather(*(funding.read_deposits(installation.process(), CHAIN) for _ in range(6)))
    assert sum(counts) == 5
    assert await settled(installation, installation.consumer) - before == 5 * MICRO_PER_CENT_OF_A_CENT


@pytest.mark.parametrize("reference", [None, 0, 77], ids=["none", "zero", "unknown"])
async def test_money_without_a_known_reference_waits_in_suspense(
    installation: Installation, reference: int | None
) -> None:
    await pay(installation, 100, reference)
    context = installation.process()
    assert await funding.read_deposits(context, CHAIN) == 1
    assert await settled(installation, f"suspense/simulated/{USD.text}") == 100
    (waiting,) = await funding.suspense(context)
    assert (waiting.reference, waiting.credited, waiting.party_no) == (reference, 0, None)
    assert await solvency.reconcile_holdings(context, CHAIN) is not None
    assert await halts.open_halts(context) == []
    before = await settled(installation, installation.consumer)
    assert await funding.assign_suspense(context, waiting.id, installation.consumer) == MICRO_PER_CENT_OF_A_CENT
    assert await settled(installation, installation.consumer) - before == MICRO_PER_CENT_OF_A_CENT
    assert await settled(installation, f"suspense/simulated/{USD.text}") == 0
    assert await funding.suspense(context) == []
    with pytest.raises(Conflict, match="deposit_not_in_suspense"):
        await funding.assign_suspense(context, waiting.id, installation.consumer)
    with pytest.raises(NotFound, match="unknown_deposit"):
        await funding.assign_suspense(context, "dep_nothing", installation.consumer)


async def test_an_asset_without_value_goes_to_suspense(installation: Installation) -> None:
    wallet = Wallet.create(installation.network, bytes([7] * 32))
    wallet.pay(installation.treasury.address, SIM, 5_000_000, (await intent(installation)).reference)
    installation.network.close_ledger()
    context = installation.process()
    assert await funding.read_deposits(context, CHAIN) == 1
    (waiting,) = await funding.suspense(context)
    assert waiting.asset == SIM.text
    with pytest.raises(Conflict, match="deposit_without_value"):
        await funding.assign_suspense(context, waiting.id, installation.consumer)


async def test_a_reference_that_no_column_can_hold_stops_nobody(installation: Installation) -> None:
    context, adapter = await paged(installation)
    at = Ledger(installation.network.tip().number, installation.sources.clock())
    adapter.extra = (Deposit(("f" * 64, 0), USD, 100, (1 << 64) - 1, "somebody", at),)
    assert await funding.read_deposits(context, CHAIN) == 1
    (waiting,) = await funding.suspense(context)
    assert waiting.reference is None


async def test_a_deposit_told_twice_is_booked_once(installation: Installation) -> None:
    context, adapter = await paged(installation)
    at = Ledger(installation.network.tip().number, installation.sources.clock())
    adapter.extra = (Deposit(("e" * 64, 0), USD, 100, None, "somebody", at),)
    assert await funding.read_deposits(context, CHAIN) == 1
    installation.network.close_ledger()
    assert await funding.read_deposits(context, CHAIN) == 0


async def test_missing_history_halts_until_it_is_complete_again(installation: Installation) -> None:
    context, adapter = await paged(installation)
    await pay(installation, 100, (await intent(installation)).reference)
    adapter.trouble = Gap("ledgers 5 to 9 are missing")
    for _ in range(2):
        assert await funding.read_deposits(context, CHAIN) == 0
    assert [halt.code for halt in await halts.open_halts(context)] == ["deposit_gap"]
    adapter.trouble = None
    assert await funding.read_deposits(context, CHAIN) == 1
    assert await halts.open_halts(context) == []


async def test_a_silent_node_is_unavailable(installation: Installation) -> None:
    context, adapter = await paged(installation)
    adapter.trouble = Unreachable("x")
    with pytest.raises(Unavailable, match="chain_unavailable"):
        await funding.read_deposits(context, CHAIN)


async def test_the_secret_of_the_references_is_in_no_repr(installation: Installation) -> None:
    from settlement.storage import funding as storage

    async with installation.database.read() as connection:
        state = await storage.state(connection, CHAIN)
    assert state is not None
    assert state.tag_key.hex() not in repr(state)
    assert repr(state.tag_key) not in repr(state)
    assert Asset.parse(USD.text) == USD


async def test_a_deposit_that_arrives_while_a_chain_is_opened_is_counted_once(installation: Installation) -> None:
    class Racing(CrashingAdapter):
        """Somebody pays between the look at the deposits and the look at the holdings."""

        async def holdings(self) -> Holdings:
            await pay(installation, 12_345, None)
            return await super().holdings()

    adapter = SimulatedAdapter(installation.network, installation.treasury)
    racing = Racing(adapter, installation.effects)
    await funding.open_chain(replace(installation.process(), chains={"late": racing}), "late")
    context = replace(installation.process(), chains={"late": adapter})
    assert await funding.read_deposits(context, "late") == 1
    assert await solvency.reconcile_holdings(context, "late") is not None
    assert "holdings_mismatch" not in [halt.code for halt in await halts.open_halts(context)]
    query = "SELECT convert_from(payload, 'UTF8') FROM journal_entry WHERE kind = 'opening' AND subject = 'late'"
    async with installation.database.read() as connection:
        (payload,) = (await connection.execute(text(query))).scalars()
    total = installation.network.balance(installation.treasury.address, USD)
    assert f'"treasury/late/{USD.text}","late/{USD.text}","-{total - 12_345}"' in payload
