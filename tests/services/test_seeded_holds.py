"""Teeth: faults that are put into the code of holds on purpose, each of which the same scenario must notice.

A fault is a change of one place, as somebody could make it by mistake. The scenario races holds, extensions, captures,
releases and expiry through two pools of connections on one database, and then compares what was answered, what is on
file, and the invariants. Without a fault it finds nothing; with any of them it fails. Where two guards stand behind one
promise the fault takes both away: with either of them the scenario passes, which is what they are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace as changed
from sqlalchemy import text
from sqlalchemy.engine import make_url

from settlement.core import budgets, holds
from settlement.core.errors import Insufficient, SettlementError
from settlement.services import holds as service
from settlement.services import metering
from settlement.services.holds import Answer, Releasing
from settlement.storage import holds as storage
from settlement.storage import invariants
from settlement.storage.database import Database
from tests.holding import BASE, PER_TOKEN, Till, amount, attempt, open_till
from tests.services.test_budgets import made, under
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.database]

Patch = pytest.MonkeyPatch

MEETINGS = 10
"""Scenarios in which two processes must meet at least once, when it takes that to show a fault."""


async def scenario(world: World, other: Database) -> None:
    """Everything that can happen to holds, at once. Raises when anything is not as it must be."""
    till = await open_till(world, micro=40 * amount(256))
    team = await made(till, per_day=20 * amount(256))
    key = await made(till, team.budget.id, per_month=100 * amount(256))
    spender, elsewhere = await under(till, key), replace(world.context, database=other)
    asked = [service.place(context, spender.placing()) for context in (world.context, elsewhere) for _ in range(30)]
    outcomes = await asyncio.gather(*map(attempt, asked))
    placed = [each for each in outcomes if isinstance(each, Answer)]
    assert len(placed) == 20, "the team's budget is for twenty"
    assert all(isinstance(each, (Answer, Insufficient)) for each in outcomes), "no other answer than these two"
    asked = [service.place(context, till.placing()) for context in (world.context, elsewhere) for _ in range(30)]
    plain = await asyncio.gather(*map(attempt, asked))
    assert all(isinstance(each, (Answer, Insufficient)) for each in plain), "nor here"
    free = [each for each in plain if isinstance(each, Answer)]
    assert len(free) == 20, "the balance is for twenty more"
    assert await till.balance() == (40 * amount(256), 40 * amount(256), 0)
    await ends(till, [*placed, *free], elsewhere)
    await agree(world)


async def ends(till: Till, placed: list[Answer], elsewhere: Any) -> None:
    """Some are captured, some above what they held, some released twice, some expire; each of them once."""
    world = till.world
    captured, over, released, rest = placed[:8], placed[8:16], placed[16:28], placed[28:]
    records = [
        world.record(till.consumer, hold=each.stored.id, meters={"input_tokens": 1155, "output_tokens": output})
        for group, output in ((captured, 100), (over, 5_000))
        for each in group
    ]
    body, signature = world.report(till.provider, records)
    twice = [Releasing(till.provider_key, each.stored.id) for each in released]
    report, *_ = await asyncio.gather(
        metering.submit(world.context, body=body, signature=signature),
        *(attempt(service.release(context, each)) for context in (world.context, elsewhere) for each in twice),
    )
    assert report.document["accepted"] == 16
    pico = 8 * (BASE + PER_TOKEN * 100) + 8 * amount(256) * 10**6
    settled, held, _ = await till.balance()
    assert 40 * amount(256) - settled in (pico // 10**6, -(-pico // 10**6)), (
        "charged is what was used, within the holds"
    )
    assert held == len(rest) * amount(256), "what ended holds nothing any more"
    world.sources.settable.advance(seconds=299)
    assert await service.expire(world.context) == 0, "nothing expires before its time"
    world.sources.settable.advance(seconds=1)
    await asyncio.gather(service.expire(world.context), service.expire(elsewhere))
    assert [await till.count(each) for each in ("open", "captured", "released", "expired")] == [0, 16, 12, 12]
    assert (await till.balance())[1] == 0


async def agree(world: World) -> None:
    """Balances, holds, captures and budgets say the same."""
    async with world.context.database.read() as connection:
        for invariant in invariants.invariants():
            if invariant.number.startswith(("I03", "I04", "I05")):
                broken = await connection.execute(text(f"SELECT subject FROM audit.{invariant.view}"))
                assert broken.first() is None, invariant.name


def without_locks(patch: Patch, url: str) -> None:
    """Balances are read, decided on and written, nobody is kept out in between, and the CHECK behind them is gone."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("ALTER TABLE account DROP CONSTRAINT ck_account_floor")
    patch.setattr(storage, "_ACCOUNTS", storage._ACCOUNTS.replace("FOR UPDATE", ""))
    patch.setattr(storage, "_RESERVE", storage._RESERVE.replace("AND a.settled - a.held >= d.amount", ""))


def held_is_available(patch: Patch, url: str) -> None:
    """What is held counts as available."""
    patch.setattr(storage, "_ACCOUNTS", storage._ACCOUNTS.replace("a.settled - a.held", "a.settled"))


def leaf_alone(patch: Patch, url: str) -> None:
    """Only the key's own budget bounds and counts."""
    chain = storage.Locked.chain
    patch.setattr(storage.Locked, "chain", lambda self, leaf: chain(self, leaf)[:1])


def budgets_not_counted(patch: Patch, url: str) -> None:
    """A hold does not count in its budgets."""
    patch.setattr(storage.Changes, "use", lambda *_: None)


def above_the_hold(patch: Patch, url: str) -> None:
    """A record is charged all that it used."""
    patch.setattr(holds.Hold, "left", property(lambda self: 10**15))


def rest_is_kept(patch: Patch, url: str) -> None:
    """What a capture did not take stays held."""
    capture = holds.capture
    patch.setattr(holds, "capture", lambda *given: changed(capture(*given), freed=0))


def released_at_once_again(patch: Patch, url: str) -> None:
    """A hold that was released is released again, and frees its money twice."""
    given_back = service._Desk.change

    def change(self: Any, found: Any, hold: Any) -> Any:
        if hold.state == "released":
            self._reserve(found, -hold.amount)
        return given_back(self, found, hold)

    patch.setattr(service._Desk, "change", change)


def nothing_is_held(patch: Patch, url: str) -> None:
    """Holds are on file, and the account does not know of them."""
    patch.setattr(storage.Changes, "reserve", lambda *_: None)


def rounded_down(patch: Patch, url: str) -> None:
    """An amount to reserve is rounded down: a microCU less than the charge can be."""
    real = holds.Terms.amount
    patch.setattr(holds.Terms, "amount", lambda self, output, requests=1: real(self, output, requests) - 1)


def widest_bound(patch: Patch, url: str) -> None:
    """Of several limits the one that leaves most counts."""

    def widest(chain: Any, uses: Any, periods: Any, reserved: int = 0) -> Any:
        return max(budgets.bounds(chain, uses, periods, reserved), key=lambda bound: bound.left, default=None)

    patch.setattr(budgets, "tightest", widest)


FAULTS: list[Callable[[Patch, str], None]] = [
    without_locks,
    held_is_available,
    leaf_alone,
    budgets_not_counted,
    above_the_hold,
    rest_is_kept,
    released_at_once_again,
    nothing_is_held,
    rounded_down,
    widest_bound,
]


@asynccontextmanager
async def second(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    try:
        yield found
    finally:
        await found.close()


async def test_without_a_fault_nothing_is_found(world: World, database_url: str) -> None:
    async with second(database_url) as other:
        for _ in range(2):
            await scenario(world, other)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_every_fault_is_found(
    world: World, database_url: str, monkeypatch: Patch, fault: Callable[[Patch, str], None]
) -> None:
    fault(monkeypatch, database_url)
    async with second(database_url) as other:
        with pytest.raises(Exception) as found:
            for _ in range(MEETINGS):
                await scenario(world, other)
    assert not isinstance(found.value, (AttributeError, TypeError, NameError)), "the fault itself is broken"
    assert isinstance(found.value, SettlementError) or found.value.args
