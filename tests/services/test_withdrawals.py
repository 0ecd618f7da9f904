"""Withdrawals: a consumer's money leaves once, to its proven address, with the fee as a line of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import text

from adapters.simulated import USD, Wallet
from settlement.core.errors import Conflict, Forbidden, Insufficient, Unavailable
from settlement.core.policy import Policy
from settlement.core.withdrawals import WithdrawalRules
from settlement.services import chains, funding, halts, participants, solvency, withdrawals
from settlement.services.context import Context
from settlement.storage import accounts, invariants, journal
from settlement.storage.payouts import Payout
from tests.client.town import fund, send, settle
from tests.world import START, Member, World

CHAIN = "simulated"
USD_CU = Fraction(2000, 9)
"""microCU for a millionth of a USD at the test world's policy: 0.0045 USD a CU."""
RULES = WithdrawalRules()


@dataclass
class Scene:
    """A consumer with 100 USD worth of CU and a wallet that is its proven address."""

    world: World
    consumer: Member
    wallet: Wallet

    @property
    def context(self) -> Context:
        return self.world.context

    async def withdraw(self, amount: int | None, request: str = "one") -> Payout:
        digest = sha256(request.encode()).digest()
        return await withdrawals.withdraw(self.context, self.consumer.party, amount=amount, request=digest)

    async def balance(self, account: str) -> int:
        async with self.context.database.read() as connection:
            return (await accounts.get(connection, account)).settled

    async def entries(self, subject: str) -> list[str]:
        async with self.context.database.read() as connection:
            return [entry.kind async for entry in journal.stream(connection) if entry.subject == subject]


@pytest.fixture
async def scene(world: World) -> Scene:
    await funding.open_chain(world.context, CHAIN)
    consumer, wallet = await world.consumer(), world.wallet()
    await fund(world, consumer, 100_000_000)
    await world.payable(consumer, wallet, reference=77)
    return Scene(world, consumer, wallet)


async def sound(context: Context) -> None:
    async with context.database.read() as connection:
        assert await invariants.first_violation(connection) is None


async def test_what_leaves_is_what_the_balance_loses_and_the_fee_is_a_line_of_its_own(scene: Scene) -> None:
    before = await scene.balance(scene.consumer.id)
    made = await scene.withdraw(2_000_000_000)
    units = (2_000_000_000 - RULES.fee) * 9 // 2000
    assert (made.amount, made.fee, made.address, made.reference) == (units, RULES.fee, scene.wallet.address, 77)
    assert made.micro == -(-units * 2000 // 9)
    assert made.micro + made.fee <= 2_000_000_000
    assert before - await scene.balance(scene.consumer.id) == made.micro + made.fee
    assert await scene.balance("fees/CU") == made.fee
    assert await scene.entries(made.id) == ["withdrawal_planned", "withdrawal_fee"]
    await chains.run_until_idle(scene.context, CHAIN)
    assert scene.wallet.balance(USD) == units
    assert await scene.balance("transit/CU") == 0
    assert await scene.entries(made.id) == ["withdrawal_planned", "withdrawal_fee", "withdrawal_settled"]
    assert await solvency.reconcile_holdings(scene.context, CHAIN) is not None
    assert await halts.open_halts(scene.context) == []
    await sound(scene.context)


async def test_a_withdrawal_waits_for_no_window(scene: Scene) -> None:
    made = await scene.withdraw(2_000_000_000)
    progress = await chains.run_until_idle(scene.context, CHAIN)
    assert (progress.ordered, progress.settled) == (1, 1)
    async with scene.context.database.read() as connection:
        state = (await connection.execute(text("SELECT state FROM payout WHERE id = :id"), {"id": made.id})).scalar()
    assert state == "settled"


async def test_one_request_makes_one_withdrawal_however_often_it_is_carried_out(scene: Scene) -> None:
    found = await asyncio.gather(*(scene.withdraw(1_000_000_000) for _ in range(8)))
    assert len({each.id for each in found}) == 1
    other = await scene.withdraw(1_000_000_000, "two")
    assert other.id != found[0].id
    await chains.run_until_idle(scene.context, CHAIN)
    assert scene.wallet.balance(USD) == found[0].amount + other.amount
    await sound(scene.context)


async def test_many_at_once_never_take_more_than_there_is(scene: Scene) -> None:
    available = await scene.balance(scene.consumer.id)
    share = available // 4
    found = await asyncio.gather(
        *(scene.withdraw(share, f"request {number}") for number in range(10)), return_exceptions=True
    )
    made = [each for each in found if isinstance(each, Payout)]
    refused = [each for each in found if isinstance(each, Insufficient)]
    assert (len(made), len(refused)) == (4, 6)
    assert await scene.balance(scene.consumer.id) == available - sum(each.micro + each.fee for each in made)
    await sound(scene.context)


async def test_all_of_the_balance_may_leave_but_for_what_is_no_whole_unit(scene: Scene) -> None:
    made = await scene.withdraw(None)
    left = await scene.balance(scene.consumer.id)
    assert 0 <= left < USD_CU
    assert made.micro_per_unit == "2000/9"


async def test_what_is_held_can_not_be_withdrawn(scene: Scene) -> None:
    available = await scene.balance(scene.consumer.id)
    async with scene.context.database.begin() as connection:
        hold = text("UPDATE account SET held = settled - 1000000000 WHERE id = :id")
        await connection.execute(hold, {"id": scene.consumer.id})
    with pytest.raises(Insufficient, match="1000 CU are available"):
        await scene.withdraw(available)
    made = await scene.withdraw(None)
    assert made.micro + made.fee <= 1_000_000_000


async def test_one_that_can_not_be_paid_comes_back_with_its_fee(scene: Scene) -> None:
    before = await scene.balance(scene.consumer.id)
    stranger = Wallet(scene.world.chain.network, b"\x07" * 32)  # no account of the network: nobody has paid it
    await scene.world.payable(scene.consumer, stranger)
    made = await scene.withdraw(2_000_000_000)
    await chains.run_until_idle(scene.context, CHAIN)
    assert await scene.balance(scene.consumer.id) == before
    assert await scene.balance("fees/CU") == 0
    assert await scene.entries(made.id) == [
        *("withdrawal_planned", "withdrawal_fee", "withdrawal_failed", "withdrawal_fee_returned")
    ]
    await sound(scene.context)


async def test_earnings_and_withdrawals_share_the_chain_and_each_arrives_once(scene: Scene) -> None:
    world = scene.world
    payee = world.wallet()
    provider = await world.provider(wallet=payee)
    big = {"input_tokens": 1_000_003, "output_tokens": 77_777}
    await send(world, provider, [world.record(scene.consumer, meters=big) for _ in range(5)])
    made = await scene.withdraw(2_000_000_000)
    await settle(world)
    assert scene.wallet.balance(USD) == made.amount
    assert payee.balance(USD) > 0
    await sound(scene.context)


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_without_a_proven_address_nothing_leaves(world: World) -> None:
    await funding.open_chain(world.context, CHAIN)
    consumer = await world.consumer(micro=5_000_000_000)
    scene = Scene(world, consumer, world.wallet())
    with pytest.raises(Conflict, match="address_not_set"):
        await scene.withdraw(1_000_000_000)
    async with world.context.database.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO payout_address (party_no, chain, asset, address, valid_from, signed_body, signature)"
                " VALUES (:no, 'simulated', :asset, :address, :at, '', '')"
            ),
            {"no": consumer.party.no, "asset": USD.text, "address": scene.wallet.address, "at": START},
        )
    with pytest.raises(Conflict, match="address_not_set"):
        await scene.withdraw(1_000_000_000)
    assert await scene.balance(consumer.id) == 5_000_000_000


@pytest.mark.parametrize("amount", [0, 1, RULES.minimum - 1])
async def test_less_than_the_minimum_does_not_leave(scene: Scene, amount: int) -> None:
    with pytest.raises(Conflict, match=r"withdrawal_too_small.*222\.222222 CU, 2\.222222 of it the fee"):
        await scene.withdraw(amount)


async def test_more_than_there_is_does_not_leave(scene: Scene) -> None:
    available = await scene.balance(scene.consumer.id)
    with pytest.raises(Insufficient, match=r"0\.000001 too few"):
        await scene.withdraw(available + 1)


async def test_while_something_is_halted_nothing_is_set_aside(scene: Scene) -> None:
    await halts.raise_halt(scene.context, "holdings_mismatch", "for a test")
    with pytest.raises(Unavailable, match="halted"):
        await scene.withdraw(1_000_000_000)
    assert await scene.entries("withdrawal_planned") == []


async def test_a_suspended_consumer_withdraws_nothing(scene: Scene) -> None:
    await participants.set_status(scene.context, scene.consumer.id, "suspended")
    with pytest.raises(Forbidden, match="consumer_suspended"):
        await scene.withdraw(1_000_000_000)


async def limited(scene: Scene, **rules: Any) -> None:
    """A second policy with other rules of withdrawals, in force from now on."""
    policy = Policy(
        version=2,
        effective_from=START + timedelta(seconds=1),
        usd_per_asset={"USD": Fraction(1)},
        minimum_payout=1_000_000,
        withdrawals=replace(RULES, **rules),
    )
    async with scene.context.database.begin() as connection:
        document = policy.document()
        await connection.execute(
            text(
                "INSERT INTO policy (version, digest, effective_from, document, signatures)"
                " VALUES (2, :digest, :at, :document, '[{}]')"
            ),
            {"digest": sha256(document).digest(), "at": policy.effective_from, "document": document},
        )
    scene.world.sources.settable.advance(seconds=2)


async def test_an_account_has_a_limit_for_a_day_and_it_passes(scene: Scene) -> None:
    await limited(scene, daily_limit=2_500_000_000)
    await scene.withdraw(2_000_000_000, "first")
    with pytest.raises(Conflict, match=r"withdrawal_limit.*2500 CU in 24 hours; 500 are left"):
        await scene.withdraw(1_000_000_000, "second")
    await scene.withdraw(400_000_000, "third")
    scene.world.sources.settable.advance(hours=24)
    await scene.withdraw(1_000_000_000, "second")


async def test_all_accounts_together_have_a_limit(scene: Scene) -> None:
    await limited(scene, daily_limit=2_500_000_000, daily_total=3_000_000_000)
    other = await scene.world.consumer("other", micro=9_000_000_000)
    await scene.world.payable(other, scene.world.wallet())
    await scene.withdraw(2_000_000_000)
    with pytest.raises(Conflict, match="all accounts together"):
        await Scene(scene.world, other, scene.wallet).withdraw(2_000_000_000, "other")
    await Scene(scene.world, other, scene.wallet).withdraw(900_000_000, "less")


async def test_a_failed_withdrawal_does_not_count_towards_the_limit(scene: Scene) -> None:
    await limited(scene, daily_limit=2_500_000_000)
    await scene.world.payable(scene.consumer, Wallet(scene.world.chain.network, b"\x07" * 32))
    await scene.withdraw(2_000_000_000, "first")
    await chains.run_until_idle(scene.context, CHAIN)
    await scene.world.payable(scene.consumer, scene.wallet)
    await scene.withdraw(2_400_000_000, "second")
