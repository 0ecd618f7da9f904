"""Budgets hold under parallel holds, at every level, and reconcile to what was really spent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from settlement.core.errors import Conflict, Forbidden, Insufficient, NotFound
from settlement.services import budgets, holds, metering
from settlement.services.authentication import credential, issue_api_key
from settlement.services.budgets import BudgetView
from settlement.services.holds import Answer
from settlement.storage import invariants
from settlement.storage.budgets import Limits
from tests.holding import Till, amount, attempt, open_till
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.database]

NO_LIMITS = Limits("any", None, None, None, None, None, ())


async def made(till: Till, parent: str | None = None, **limits: Any) -> BudgetView:
    return await budgets.create(till.world.context, till.consumer.party, replace(NO_LIMITS, **limits), parent)


async def under(till: Till, view: BudgetView) -> Till:
    """The till with a new spending key of that budget."""
    async with till.world.context.database.begin() as connection:
        token = await issue_api_key(
            connection, till.world.sources, till.consumer.party.no, ["spend"], budget_no=view.budget.no
        )
    found = credential(token)
    assert found is not None
    return replace(till, consumer_key=found)


async def use_of(till: Till, view: BudgetView) -> tuple[int, int]:
    """What counts today and this month."""
    found = {each.budget.id: each for each in await budgets.listed(till.world.context, till.consumer.party)}
    return found[view.budget.id].day.used, found[view.budget.id].month.used


async def reconciled(till: Till) -> None:
    async with till.world.context.database.read() as connection:
        for invariant in invariants.invariants():
            if invariant.number.startswith(("I03", "I04", "I05")):
                broken = await connection.execute(text(f"SELECT subject FROM audit.{invariant.view}"))
                assert broken.first() is None, invariant


@pytest.mark.parametrize("limit", ["per_day", "per_month"])
async def test_parallel_holds_never_pass_a_budget(world: World, limit: str) -> None:
    """A hundred at once on a budget for forty, with money for all of them."""
    till = await open_till(world, micro=1_000 * amount(256))
    view = await made(till, None, **{limit: 40 * amount(256)})
    spender = await under(till, view)
    outcomes = await asyncio.gather(*(attempt(spender.place(output_tokens=256)) for _ in range(100)))
    assert sum(isinstance(each, Answer) for each in outcomes) == 40
    assert {each.code for each in outcomes if isinstance(each, Insufficient)} == {"budget_exceeded"}
    assert await use_of(till, view) == (40 * amount(256), 40 * amount(256))
    await reconciled(till)


async def test_every_level_of_the_chain_bounds_and_counts(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    company = await made(till, per_day=3 * amount(256))
    teams = [await made(till, company.budget.id, per_day=2 * amount(256)) for _ in range(2)]
    first, second = [await under(till, team) for team in teams]
    assert isinstance(await attempt(first.place(output_tokens=256)), Answer)
    assert isinstance(await attempt(first.place(output_tokens=256)), Answer)
    assert (await attempt(first.place(output_tokens=256))).code == "budget_exceeded"
    assert isinstance(await attempt(second.place(output_tokens=256)), Answer)
    refused = await attempt(second.place(output_tokens=256))
    assert (refused.code, refused.missing) == ("budget_exceeded", amount(256))
    assert company.budget.id in refused.detail
    assert (await use_of(till, company))[0] == 3 * amount(256)
    await reconciled(till)


async def test_three_levels_hold_under_races(world: World) -> None:
    """Organisation, two teams, three keys each: 120 holds at once, and no level is passed while others have room."""
    till = await open_till(world, micro=1_000 * amount(256))
    whole = await made(till, name="organisation", per_day=20 * amount(256))
    teams = [await made(till, whole.budget.id, per_month=12 * amount(256)) for _ in range(2)]
    keys = [await made(till, team.budget.id, per_day=5 * amount(256)) for team in teams for _ in range(3)]
    spenders = [await under(till, key) for key in keys]
    outcomes = await asyncio.gather(
        *(attempt(spender.place(output_tokens=256)) for _ in range(20) for spender in spenders)
    )
    assert sum(isinstance(each, Answer) for each in outcomes) == 20
    used = [(await use_of(till, view))[0] // amount(256) for view in (whole, *teams, *keys)]
    assert (used[0], sum(used[1:3]), sum(used[3:])) == (20, 20, 20)
    assert max(used[1:3]) <= 12
    assert max(used[3:]) <= 5
    assert [sum(used[3:6]), sum(used[6:])] == used[1:3]
    placed = [each for each in outcomes if isinstance(each, Answer)]
    await asyncio.gather(*(till.release(each) for each in placed), *(till.release(each) for each in placed))
    assert [(await use_of(till, view))[0] for view in (whole, *teams, *keys)] == [0] * 9
    await reconciled(till)


async def test_a_single_request_is_bounded_and_its_extensions_too(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    spender = await under(till, await made(till, per_request=amount(300)))
    placed = await spender.place()
    more = await spender.extend(placed, 2)
    assert (more.stored.hold.output_tokens, more.stored.hold.at_end) == (300, True)
    with pytest.raises(Insufficient, match="per_request"):
        await spender.place(output_tokens=301)


async def test_models_and_providers_are_bounded(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    spender = await under(till, await made(till, models=["gpt-5"], providers=[till.provider.id]))
    await spender.place()
    with pytest.raises(Forbidden, match="model_not_allowed"):
        await spender.place(model="gpt-4o")
    elsewhere = await under(till, await made(till, providers=["prv_other"]))
    with pytest.raises(Forbidden, match="provider_not_allowed"):
        await elsewhere.place()


async def test_what_is_given_back_can_be_reserved_again(world: World) -> None:
    """Released, expired and captured: afterwards a budget has what was really taken."""
    till = await open_till(world, micro=1_000 * amount(256))
    view = await made(till, per_day=2 * amount(256))
    spender = await under(till, view)
    await spender.release(await spender.place(output_tokens=256))
    dead = await spender.place(output_tokens=256, expires_in=10)
    world.sources.settable.advance(seconds=10)
    await holds.expire(world.context)
    assert dead.stored.hold.amount == amount(256)
    assert await use_of(till, view) == (0, 0)
    placed = await spender.place(output_tokens=256)
    record = world.record(till.consumer, hold=placed.stored.id, meters={"input_tokens": 1155, "output_tokens": 20})
    body, signature = world.report(till.provider, [record])
    await metering.submit(world.context, body=body, signature=signature)
    assert await use_of(till, view) == (amount(20), amount(20))
    await reconciled(till)


async def test_an_expired_hold_is_not_captured_past_its_budget(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    view = await made(till, per_day=amount(256))
    spender = await under(till, view)
    late, at = await spender.place(output_tokens=256, expires_in=10), world.sources.clock()
    world.sources.settable.advance(seconds=10)
    await holds.expire(world.context)
    await spender.place(output_tokens=256)
    record = world.record(till.consumer, at=at, hold=late.stored.id)
    body, signature = world.report(till.provider, [record])
    answer = await metering.submit(world.context, body=body, signature=signature)
    assert [each["code"] for each in answer.document["refused"]] == ["budget_exceeded"]
    await reconciled(till)


async def test_a_new_day_begins_at_nothing_and_old_holds_stay_in_their_own(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    view = await made(till, per_day=amount(256), per_month=3 * amount(256))
    spender = await under(till, view)
    yesterday = await spender.place(output_tokens=256, expires_in=3_600)
    world.sources.settable.advance(hours=24)
    await spender.place(output_tokens=256)
    assert await use_of(till, view) == (amount(256), 2 * amount(256))
    await spender.release(yesterday)
    assert await use_of(till, view) == (amount(256), amount(256))
    await reconciled(till)


async def test_a_lower_limit_takes_nothing_back(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    view = await made(till, per_day=10 * amount(256))
    spender = await under(till, view)
    placed = await spender.place()
    lower = replace(NO_LIMITS, per_day=1)
    changed = await budgets.change(world.context, till.consumer.party, view.budget.id, lower)
    assert (changed.budget.per_day, changed.day.used) == (1, amount(256))
    with pytest.raises(Insufficient):
        await spender.place()
    assert (await spender.extend(placed, 2)).stored.hold.output_tokens == 256
    await reconciled(till)


async def test_a_threshold_stays_reached_when_money_is_given_back(world: World) -> None:
    till = await open_till(world, micro=1_000 * amount(256))
    view = await made(till, per_day=4 * amount(256), per_month=40 * amount(256), alert_at=(50, 80))
    spender = await under(till, view)
    placed = [await spender.place(output_tokens=256) for _ in range(3)]
    for each in placed:
        await spender.release(each)
    (shown,) = await budgets.listed(world.context, till.consumer.party)
    assert (shown.day.used, shown.day.alerted, shown.month.alerted) == (0, 50, 0)


async def test_budgets_are_ones_own_and_four_levels_deep(world: World) -> None:
    till = await open_till(world, micro=1)
    parent: str | None = None
    for _ in range(4):
        parent = (await made(till, parent)).budget.id
    with pytest.raises(Conflict, match="budget_too_deep"):
        await made(till, parent)
    other = await world.consumer("other")
    with pytest.raises(NotFound, match="unknown_budget"):
        await budgets.create(world.context, other.party, NO_LIMITS, parent)
    assert parent is not None
    with pytest.raises(NotFound, match="unknown_budget"):
        await budgets.change(world.context, other.party, parent, NO_LIMITS)
