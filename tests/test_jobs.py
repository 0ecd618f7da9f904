"""The worker: settles by itself, survives its jobs' errors, halts on broken invariants, ends after the running tick."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from structlog.testing import capture_logs

from settlement import jobs
from settlement.chain import Unreachable
from settlement.core.errors import Broken, Unavailable
from settlement.jobs import Job, run_jobs, settle_windows, work
from settlement.services import chains, disputes, funding, halts, idempotency, metering, payouts, windows
from settlement.services.context import Context
from settlement.services.disputes import Claim as Disputed
from settlement.services.targets import Poster
from settlement.storage import windows as stored
from settlement.storage.idempotency import Claim, Reply
from tests.world import Member, World

pytestmark = pytest.mark.database


async def used(world: World, *, wallet_usd: int = 0) -> tuple[Member, Member]:
    """A consumer that has paid by the chain, and a provider that was used and wants its money."""
    await funding.open_chain(world.context, "simulated")
    consumer = await world.consumer()
    intent = await funding.create_intent(
        world.context, party=consumer.id, chain="simulated", asset=world_asset(), amount=None
    )
    world.wallet(usd=50_000_000).pay_uri(intent.payment_uri, 20_000_000)
    await funding.read_deposits(world.context, "simulated")
    provider = await world.provider(wallet=world.wallet(usd=wallet_usd))
    body, signature = world.report(provider, [world.record(consumer, meters={"output_tokens": 2_000_000})])
    answer = await metering.submit(world.context, body=body, signature=signature)
    assert answer.document["accepted"] == 1
    return consumer, provider


def world_asset() -> str:
    from adapters.simulated import USD

    return USD.text


async def until(reached: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await reached():
            await asyncio.sleep(0.05)


async def settled(context: Context, window_no: int) -> bool:
    async with context.database.read() as connection:
        states = await connection.execute(text("SELECT state FROM payout WHERE window_no = :no"), {"no": window_no})
        paid = [row.state for row in states]
        anchored = await connection.execute(text('SELECT anchored_at FROM "window" WHERE no = :no'), {"no": window_no})
        return bool(paid) and set(paid) == {"settled"} and anchored.scalar_one() is not None


async def test_workers_settle_a_window_once_without_being_asked(world: World) -> None:
    await used(world)
    world.sources.settable.advance(days=1, seconds=30)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(work(world.context, stop))
        await until(lambda: settled(world.context, 1))
        stop.set()
    assert not await halts.open_halts(world.context)
    assert len(await payouts.of_window(world.context, 1)) == 1
    async with world.context.database.read() as connection:
        entries = await connection.execute(
            text("SELECT count(*) FROM journal_entry WHERE kind IN ('payout_planned', 'payout_settled')")
        )
        assert entries.scalar_one() == 2
        closed = await connection.execute(text("SELECT count(*) FROM \"window\" WHERE state <> 'open'"))
        assert closed.scalar_one() == 1


async def test_a_window_is_closed_only_when_it_is_due(world: World) -> None:
    await used(world)
    world.sources.settable.advance(hours=23, minutes=59, seconds=59)
    await settle_windows(world.context)
    async with world.context.database.read() as connection:
        assert (await stored.listed(connection))[0].no == 1
    world.sources.settable.advance(seconds=1)
    await settle_windows(world.context)
    async with world.context.database.read() as connection:
        assert [each.state for each in await stored.listed(connection)] == ["open", "planned"]


async def test_books_that_do_not_hold_halt_before_anything_is_planned(world: World, database_url: str) -> None:
    await used(world)
    await windows.close(world.context)
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as owner:  # behind the service's back
        owner.execute("UPDATE account SET settled = settled + 1 WHERE kind = 'consumer'")
    with pytest.raises(Broken) as broken:
        await settle_windows(world.context)
    assert broken.value.code != "guard_missing"
    assert [halt.code for halt in await halts.open_halts(world.context)] == [broken.value.code]
    assert await payouts.of_window(world.context, 1) == []
    await windows.close(world.context)
    await settle_windows(world.context)  # a halt stops payouts, not netting
    assert await payouts.of_window(world.context, 1) == []


async def test_nothing_is_planned_while_a_halt_is_open_and_all_of_it_afterwards(world: World) -> None:
    await used(world)
    halt = await halts.raise_halt(world.context, "test", "somebody has to look")
    await windows.close(world.context)
    await windows.close(world.context)
    await settle_windows(world.context)
    async with world.context.database.read() as connection:
        states = [each.state for each in await stored.listed(connection)]
    assert states == ["open", "checkpointed", "checkpointed"]
    await halts.clear(world.context, halt.no, "me: looked")
    await settle_windows(world.context)
    assert len(await payouts.of_window(world.context, 1)) == 1
    assert (await chains.run_until_idle(world.context, "simulated")).idle


@pytest.mark.parametrize(
    ("error", "level", "event"),
    [
        (Unavailable("database_unavailable", "away"), "warning", "job put off"),
        (Unreachable("away"), "warning", "job put off"),
        (RuntimeError("a slip"), "error", "job failed"),
    ],
)
async def test_an_error_ends_a_tick_and_not_the_worker(world: World, error: Exception, level: str, event: str) -> None:
    stop, turns = asyncio.Event(), 0

    async def fail_three_times() -> None:
        nonlocal turns
        turns += 1
        if turns <= 3:
            raise error
        stop.set()

    with capture_logs() as logs:
        await run_jobs(world.context, [Job("shaky", 1, fail_three_times)], stop)
    said = [(entry["log_level"], entry["event"]) for entry in logs]
    assert said == [(level, event), ("info", "job works again")]  # the same trouble is said once
    assert not await halts.open_halts(world.context)


async def test_a_broken_invariant_halts_and_the_worker_goes_on(world: World) -> None:
    stop, turns = asyncio.Event(), 0

    async def find() -> None:
        nonlocal turns
        turns += 1
        if turns == 2:
            stop.set()
        raise Broken("books_wrong", "they are")

    await run_jobs(world.context, [Job("finder", 1, find)], stop)
    assert [(halt.code, halt.detail) for halt in await halts.open_halts(world.context)] == [("books_wrong", "they are")]


async def test_stopping_waits_for_the_running_tick_and_begins_no_other(world: World) -> None:
    stop, ended, begun = asyncio.Event(), False, 0

    async def slow() -> None:
        nonlocal ended, begun
        begun += 1
        stop.set()
        await asyncio.sleep(1.5)
        ended = True

    await run_jobs(world.context, [Job("slow", 1, slow)], stop)
    assert ended
    assert begun == 1


async def test_a_job_never_runs_twice_at_once(world: World) -> None:
    stop, running, turns = asyncio.Event(), 0, 0

    async def long() -> None:
        nonlocal running, turns
        running += 1
        turns += 1
        assert running == 1
        await asyncio.sleep(1.3)
        running -= 1
        if turns == 2:
            stop.set()

    with capture_logs() as logs:
        await run_jobs(world.context, [Job("long", 1, long)], stop)
    assert logs == []
    assert turns == 2


async def test_every_chain_has_its_jobs(context: Context) -> None:
    names = {job.name for job in jobs.all_jobs(context, Poster())}
    assert names == {
        *("windows", "holds", "solvency", "audit", "governance", "forgetting", "webhooks", "balances", "disputes"),
        *("demand", "surcharges"),
        "value",
        "retention",
        *("deposits/simulated", "chain/simulated", "reconciliation/simulated"),
    }


async def test_overdue_disputes_end(world: World) -> None:
    """In one tick; the next one finds nothing to do."""
    consumer, provider = await world.consumer(micro=10**10), await world.provider()
    record = world.record(consumer)
    body, signature = world.report(provider, [record])
    await metering.submit(world.context, body=body, signature=signature)
    claim = Disputed(provider.id, "not_received", record=UUID(record["id"]))
    dispute = await disputes.open_dispute(world.context, consumer.party, claim)
    world.sources.settable.advance(days=3)
    await jobs.settle_disputes(world.context)
    ended = await disputes.find(world.context, consumer.party, dispute.id)
    assert (ended.state, ended.cause, ended.owed.total) == ("upheld", "no_answer", 0)
    await jobs.settle_disputes(world.context)


async def test_what_answered_repeated_requests_is_forgotten_after_a_month(world: World) -> None:
    """At the worker's start and then daily; what is younger stays."""

    async def kept() -> list[str]:
        async with world.context.database.read() as connection:
            return list((await connection.execute(text("SELECT key FROM idempotency_key ORDER BY key"))).scalars())

    async def one_is_left() -> bool:
        return len(await kept()) == 1

    async def act() -> Reply:
        return Reply(201, b"{}")

    for key in ("first", "second"):
        await idempotency.once(world.context, Claim("acc_x", "/v1/x", key, bytes(32)), act)
        world.sources.settable.advance(days=20)
    stop = asyncio.Event()
    (job,) = [job for job in jobs.all_jobs(world.context, Poster()) if job.name == "forgetting"]
    assert job.seconds == 24 * 3600
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_jobs(world.context, [job], stop))
        await until(one_is_left)
        stop.set()
    assert await kept() == ["second"]
