"""The inside check and the export that it feeds to the outside verifier."""

from __future__ import annotations

import json

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from adapters.simulated import Wallet
from settlement.client.verifier import verify_export
from settlement.services import audit, chains, halts, payouts, windows
from settlement.services.verification import verify
from tests.client.town import CHAIN, Town, build, exported, parsed, send, settle, trade
from tests.world import World

pytestmark = pytest.mark.database


def damage(database_url: str, statement: str) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(statement.encode())


async def test_sound_books_are_good_at_every_step_of_a_window(world: World) -> None:
    """Before anything, with an open window, and after each single step on the way to a settled one."""
    assert (await verify(world.context)).failure is None
    town = await build(world, rounds=1)
    await trade(town, 1)
    for step in (
        lambda: windows.close(world.context),
        lambda: windows.close(world.context),
        lambda: send(world, town.linked, [world.record(town.buyer)]),
        lambda: windows.settle_net(world.context, 2),
        lambda: windows.settle_net(world.context, 3),
        lambda: windows.settle_checkpoint(world.context, 2),
        lambda: windows.settle_checkpoint(world.context, 3),
        lambda: payouts.plan(world.context, 2),
        lambda: chains.run_once(world.context, CHAIN),
        lambda: windows.advance(world.context, payouts.plan),
        lambda: chains.run_until_idle(world.context, CHAIN),
    ):
        await step()
        report = await verify(world.context)
        assert report.failure is None
    assert report.export is not None
    assert report.export.counts["checkpoint"] == 3
    assert report.invariants > 40


async def test_a_halt_is_told_apart_from_a_failure(world: World, village: Town) -> None:
    await halts.raise_halt(world.context, "drill", "an exercise")
    report = await verify(world.context)
    assert report.good
    assert report.halts == ("drill: an exercise",)
    assert report.export is not None
    assert report.export.halts == ("drill: an exercise",)


async def test_what_sql_can_see_is_named_by_its_invariant(world: World, database_url: str, village: Town) -> None:
    damage(database_url, "UPDATE payout SET amount = amount + 1 WHERE kind = 'earnings'")
    report = await verify(world.context)
    assert report.failure is not None
    assert report.failure.name == "payout_is_position"
    assert report.export is None


async def test_what_only_the_export_shows_is_named_by_the_verifier(
    world: World, database_url: str, village: Town
) -> None:
    damage(database_url, "UPDATE usage_report SET signature = replace(signature, '..', '..A') WHERE no = 2")
    assert (await verify(world.context, "books")).good
    report = await verify(world.context)
    assert report.failure is not None
    assert report.failure.name == "report_signature"


async def test_a_missing_guard_is_named(world: World, database_url: str) -> None:
    damage(database_url, "DROP TRIGGER append_only ON usage_report")
    report = await verify(world.context)
    assert report.failure is not None
    assert (report.failure.name, report.failure.subject) == ("guard_missing", "trigger append_only on usage_report")


async def test_an_export_is_one_snapshot(world: World, village: Town) -> None:
    """What is booked while it is read is not in it."""
    lines = audit.export(world.context)
    first = [await anext(lines)]
    await send(world, village.linked, [world.record(village.buyer)])
    rest = [line async for line in lines]
    assert verify_export(first + rest).fault is None
    assert json.loads(first[0])["journal"]["seq"] + 1 == parsed(await exported(world.context))[0]["journal"]["seq"]


async def test_a_payout_that_comes_back_is_due_again(world: World, village: Town) -> None:
    """The payee's account doesn't exist on chain at first: the money goes back to its balance and is paid later."""
    seed = world.sources.entropy(32)
    ghost = await world.provider("ghost", wallet=Wallet(world.chain.network, seed))
    for turn in range(3):
        if turn == 2:
            Wallet.create(world.chain.network, seed)
        await send(world, ghost, [world.record(village.buyer, meters={"input_tokens": 3_000_000})])
        await settle(world)
        report = await verify(world.context)
        assert report.failure is None
    async with world.context.database.read() as connection:
        query = text("SELECT state, micro FROM payout WHERE party_no = :no ORDER BY id")
        states = [tuple(row) for row in await connection.execute(query, {"no": ghost.party.no})]
    assert [state for state, _ in states] == ["failed", "failed", "settled"]
    assert states[0][1] < states[1][1] < states[2][1]
