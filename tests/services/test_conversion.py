"""Books that follow the index: what converts at what, what waits, and where gains and losses of exchange go."""

from __future__ import annotations

from fractions import Fraction

import pytest

from settlement.core.errors import SettlementError
from settlement.core.value import UNIT
from settlement.services import fixings, funding, refunds, solvency
from settlement.storage import accounts
from tests.client.market import opened
from tests.client.town import fund
from tests.world import World

pytestmark = pytest.mark.database


async def balance(world: World, account: str) -> int:
    async with world.context.database.read() as connection:
        return (await accounts.get(connection, account)).settled


async def reserves(world: World) -> int:
    """Minus what the conversions hold in USD, valued by the newest fixing: what conversion/CU must be then."""
    made = (await fixings.every(world.context))[-1]
    async with world.context.database.read() as connection:
        held = sum(
            each.settled for each in await accounts.of_kinds(connection, "conversion") if each.id != "conversion/CU"
        )
    value = Fraction(int(made.document.split(b'"value":"')[1].split(b'"')[0]), UNIT)
    return -int(held / value)


async def test_a_deposit_names_its_fixing_and_pays_the_higher_price(world: World) -> None:
    market = await opened(world)
    await market.day(TOK="1.02")
    await fund(world, market.buyer, 1_000_000)
    newest = (await funding.deposits_of(world.context, market.buyer.id))[0]
    assert newest.fixing == 2
    fixing = (await fixings.every(world.context))[1]
    basket = Fraction(int(fixing.document.split(b'"basket":"')[1].split(b'"')[0]), UNIT)
    assert Fraction(newest.micro_per_unit or "0") == 1 / basket, "the basket is above the smoothed value"
    assert newest.credited == int(1_000_000 / basket)


async def test_a_deposit_waits_while_nothing_is_converted_and_is_credited_once(world: World) -> None:
    market = await opened(world)
    world.sources.settable.advance(hours=37)
    await fund(world, market.buyer, 3_000_000)
    waiting = (await funding.deposits_of(world.context, market.buyer.id))[0]
    assert (waiting.party_no, waiting.credited, waiting.fixing) == (None, 0, None)
    assert [each.id for each in await funding.suspense(world.context)] == [waiting.id]
    assert await funding.credit_waiting(world.context) == 0
    with pytest.raises(SettlementError, match="conversions_paused"):
        await funding.assign_suspense(world.context, waiting.id, market.buyer.id)
    other = await world.consumer("other")
    with pytest.raises(SettlementError, match="deposit_not_in_suspense"):
        await funding.assign_suspense(world.context, waiting.id, other.id)
    await world.fix()
    assert await funding.credit_waiting(world.context) == 1
    assert await funding.credit_waiting(world.context) == 0
    credited = (await funding.deposits_of(world.context, market.buyer.id))[0]
    assert (credited.id, credited.fixing, credited.credited > 0) == (waiting.id, 2, True)


async def test_a_deposit_that_waits_can_go_back_and_is_not_credited_then(world: World) -> None:
    market = await opened(world)
    world.sources.settable.advance(hours=37)
    await fund(world, market.buyer, 3_000_000)
    waiting = (await funding.deposits_of(world.context, market.buyer.id))[0]
    await refunds.refund(world.context, waiting.id)
    await world.fix()
    assert await funding.credit_waiting(world.context) == 0


async def test_fresh_money_is_withdrawn_at_its_own_rate_once_and_other_money_at_the_lower_price(world: World) -> None:
    market = await opened(world)
    await market.day(TOK="1.02")
    await fund(world, market.buyer, 5_000_000)
    lot = (await funding.deposits_of(world.context, market.buyer.id))[0]
    world.sources.settable.advance(hours=23)
    await world.fix(TOK="0.99")
    fee = 2_222_222
    mine = await market.take(lot.credited + fee - 1_000)
    assert (mine.own_rate, mine.fixing) == (True, 3)
    assert mine.micro_per_unit == lot.micro_per_unit
    usual = await market.take(lot.credited)
    assert not usual.own_rate, "the fresh money has gone"
    assert Fraction(usual.micro_per_unit or "0") > Fraction(mine.micro_per_unit or "0"), "it buys less"


async def test_withdrawals_are_refused_and_payouts_wait_while_nothing_is_converted(world: World) -> None:
    market = await opened(world)
    await market.trade()
    world.sources.settable.advance(hours=37)
    with pytest.raises(SettlementError, match="conversions_paused"):
        await market.take(500_000_000)
    before = await balance(world, market.seller.id)
    await market.trade()
    owed = await balance(world, market.seller.id)
    assert owed > before, "what it earned stays on its account"
    await world.fix()
    await market.trade()
    assert await balance(world, market.seller.id) < 1_000, "and is paid with the next window"


async def test_gains_and_losses_of_exchange_are_in_the_books(world: World) -> None:
    market = await opened(world)
    await market.day()
    gained = await balance(world, "fx/CU")
    assert abs(gained) <= 1, "nothing has moved"
    await market.day(TOK="1.02")
    assert await balance(world, "conversion/CU") == await reserves(world)
    assert await balance(world, "fx/CU") < gained, "a CU is worth more: what is held is worth fewer of them"
    await fund(world, market.buyer, 40_000_000)
    await market.trade()
    loss = await balance(world, "fx/CU")
    await market.day(TOK="0.95")
    assert await balance(world, "conversion/CU") == await reserves(world)
    assert await balance(world, "fx/CU") > loss
    assert (await solvency.overview(world.context, 1))[0].covered


async def test_the_worker_fixes_when_it_is_due_and_waits_for_sources_that_went_silent(world: World) -> None:
    await opened(world)
    assert await fixings.fix_due(world.context) is None, "made within the day"
    world.sources.settable.advance(hours=25)
    frozen = await fixings.fix_due(world.context)
    assert frozen is not None
    assert frozen.frozen == "source_stale GPU"
    assert await fixings.fix_due(world.context) is None, "once is enough"
    await world.observe()
    assert await fixings.fix_due(world.context) is None, "two fixings are never of one second"
    world.sources.settable.advance(minutes=1)
    thawed = await fixings.fix_due(world.context)
    assert thawed is not None
    assert thawed.frozen is None
    with pytest.raises(SettlementError, match="fixing_without_gap"):
        world.sources.settable.advance(days=1)
        await world.fix(reset=True)


async def test_nothing_is_fixed_before_there_are_prices_to_begin_with(world: World) -> None:
    assert await fixings.fix_due(world.context) is None
    await world.observe()
    made = await fixings.fix_due(world.context)
    assert made is not None
    assert made.number == 1
