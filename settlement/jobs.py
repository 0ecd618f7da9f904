"""The worker: what happens without anybody asking. Several may run; the database lets each step happen once.

    deposits        read final incoming transfers and book them, and say when    every 4 s, for each chain
                    the newest final ledger is old
    windows         close the window that is due, take closed ones further       every 2 s
    chain           send payouts and anchors, find out what became of them       every 2 s, for each chain
    reconciliation  compare the chain's holdings with the books                  every 60 s, for each chain
    holds           end those whose time has run out                             every 2 s
    balances        set off the balance rules of accounts that are low           every 4 s
    solvency        publish what is owed and held after each window              every 60 s, once a window
    audit           hold the books to every invariant, the deep ones too         every day
    disputes        end what is overdue, pay what providers owe of disputes      every 10 s
    webhooks        post the events that are due                                 every second
    value           fix the index when it is due, credit deposits that wait for it  every 60 s
    demand          make the next step of demand when it is due                  every 10 s
    surcharges      judge the holds of the last day                              every hour
    governance      enact what the council has adopted, close what has lapsed    every 10 s
    forgetting      delete replies, used signatures and events of 30 days ago    every day
    retention       let settled windows leave as segments, erase salts           every day

The scheduler is only the clock (decision 8): it keeps nothing, and a tick that was missed is made good by the next one,
because what there is to do is read from rows. An error ends a tick and never the worker; a broken invariant halts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from governance import service as governance
from settlement.chain import ChainError
from settlement.core.errors import Broken, Unavailable
from settlement.services import (
    balance_rules,
    chains,
    demand,
    disputes,
    fixings,
    funding,
    halts,
    holds,
    idempotency,
    payouts,
    retention,
    solvency,
    surcharges,
    verification,
    watching,
    webhooks,
    windows,
)
from settlement.services.context import Context
from settlement.services.targets import Poster

DEPOSITS_SECONDS = 4
WINDOWS_SECONDS = 2
CHAIN_SECONDS = 2
RECONCILIATION_SECONDS = 60
HOLDS_SECONDS = 2
BALANCES_SECONDS = 4
AUDIT_SECONDS = 86_400
VALUE_SECONDS = 60
DEMAND_SECONDS = 10
SURCHARGES_SECONDS = 3_600
GOVERNANCE_SECONDS = 10
DISPUTES_SECONDS = 10
WEBHOOKS_SECONDS = 1
FORGETTING_SECONDS = 86_400

_log = structlog.stdlib.get_logger("settlement.jobs")


@dataclass(frozen=True, slots=True)
class Job:
    """Something that is done every so many seconds, never twice at once in one process."""

    name: str
    seconds: int
    run: Callable[[], Awaitable[None]]


def all_jobs(context: Context, poster: Poster) -> list[Job]:
    """The jobs of an installation whose webhooks `poster` posts."""
    found = [
        Job("windows", WINDOWS_SECONDS, lambda: settle_windows(context)),
        Job("holds", HOLDS_SECONDS, lambda: expire_holds(context)),
        Job("balances", BALANCES_SECONDS, lambda: watch_balances(context)),
        Job("solvency", RECONCILIATION_SECONDS, lambda: measure(context)),
        Job("audit", AUDIT_SECONDS, lambda: check_books(context, "books")),
        Job("webhooks", WEBHOOKS_SECONDS, lambda: post_events(context, poster)),
        Job("value", VALUE_SECONDS, lambda: fix_value(context)),
        Job("surcharges", SURCHARGES_SECONDS, lambda: judge_days(context)),
        Job("demand", DEMAND_SECONDS, lambda: step_demand(context)),
        Job("governance", GOVERNANCE_SECONDS, lambda: govern(context)),
        Job("disputes", DISPUTES_SECONDS, lambda: settle_disputes(context)),
        Job("forgetting", FORGETTING_SECONDS, lambda: forget(context)),
        Job("retention", FORGETTING_SECONDS, lambda: retire(context)),
    ]
    for name in context.chains:
        found += _chain_jobs(context, name)
    return found


def _chain_jobs(context: Context, chain: str) -> list[Job]:
    async def deposits() -> None:
        booked = await funding.read_deposits(context, chain)
        if booked:
            _log.info("deposits booked", chain=chain, count=booked)
        await watching.check_tip(context, chain)

    async def run_chain() -> None:
        done = await chains.run_once(context, chain)
        if done.settled or done.failed or done.expired or done.contested:
            _log.info(
                "chain orders ended",
                chain=chain,
                settled=done.settled,
                failed=done.failed,
                expired=done.expired,
                contested=done.contested,
            )

    async def reconcile() -> None:
        await solvency.reconcile_holdings(context, chain)

    return [
        Job(f"deposits/{chain}", DEPOSITS_SECONDS, deposits),
        Job(f"chain/{chain}", CHAIN_SECONDS, run_chain),
        Job(f"reconciliation/{chain}", RECONCILIATION_SECONDS, reconcile),
    ]


async def settle_windows(context: Context) -> None:
    """Close the open window if it is due, and take every closed one as far as it goes."""
    closed = await windows.close_due(context)
    if closed is not None:
        _log.info("window closed", window=closed.id)
    for step in await windows.advance(context, plan=plan_payouts):
        _log.info("window advanced", window=f"win_{step.window}", step=step.name)


async def expire_holds(context: Context) -> None:
    """End every hold whose time has run out, a batch a transaction."""
    while count := await holds.expire(context):
        _log.info("holds expired", count=count)


async def watch_balances(context: Context) -> None:
    """Set off every balance rule whose balance is low, a batch a transaction."""
    while count := await balance_rules.watch(context):
        _log.info("balance rules fired", count=count)


async def measure(context: Context) -> None:
    """Publish what is owed and what is held after the newest window, once, at a moment of rest."""
    found = await solvency.measure(context)
    if found is not None:
        _log.info("solvency measured", window=f"win_{found.window}", covered=found.covered)


async def fix_value(context: Context) -> None:
    """Make the day's fixing of the index, and credit the deposits that wait for one."""
    made = await fixings.fix_due(context)
    if made is not None:
        _log.info("index fixed", number=made.number, frozen=made.frozen)
    if credited := await funding.credit_waiting(context):
        _log.info("waiting deposits credited", count=credited)


async def step_demand(context: Context) -> None:
    """Make the next step of demand, where the policy has a curve."""
    made = await demand.make_due(context)
    if made is not None:
        _log.info("demand stepped", number=made.number, providers=len(made.providers))


async def judge_days(context: Context) -> None:
    """Notice or charge whose holds of the last day ended unused too often, where the policy has a fee for it."""
    count = await surcharges.judge(context)
    if count:
        _log.info("surcharges noticed or charged", count=count)


async def govern(context: Context) -> None:
    """Enact what the council has adopted and whose time-lock is over, and close what has lapsed."""
    for entry in await governance.enact_due(context):
        _log.info("governance", kind=entry.kind, **entry.facts)


async def settle_disputes(context: Context) -> None:
    """End disputes whose answer or ruling did not come in time, and pay what providers owe of those that ended."""
    for ended in await disputes.end_overdue(context):
        _log.info("dispute ended", dispute=ended.id, state=ended.state, cause=ended.cause)
    count = await disputes.collect(context)
    if count:
        _log.info("owed of disputes paid", count=count)


async def post_events(context: Context, poster: Poster) -> None:
    """Post what is due to participants' endpoints."""
    await webhooks.deliver(context, poster)


async def forget(context: Context) -> None:
    """Delete what answered repeated requests for long enough, and what was told long ago."""
    await webhooks.tidy(context)
    count = await idempotency.forget_old(context)
    if count:
        _log.info("old replies forgotten", count=count)


async def retire(context: Context) -> None:
    """Erase the salts that are due; where there is a folder for segments, let every window leave that may."""
    left: list[str] = []
    if context.archive is None:
        erased = await retention.erase_due(context)
    else:
        gone, erased = await retention.run(context)
        left = [f"win_{each.window_no}" for each in gone]
    if left or erased:
        _log.info("retention", left=left, salts_erased=erased)


async def plan_payouts(context: Context, window_no: int) -> int:
    """Plan a window's payouts and anchors, after the books have passed every quick check; not while a halt is open.

    Raises Broken when an invariant does not hold; then a halt is on record.
    """
    if await halts.open_halts(context):
        return 0  # the windows behind this one are still netted and get their checkpoints
    await check_books(context, "quick")
    return await payouts.plan(context, window_no)


async def check_books(context: Context, depth: verification.Depth) -> None:
    """Check the books to a depth. Raises Broken for what does not hold; then a halt is on record."""
    report = await verification.verify(context, depth)
    if report.failure is not None:
        code, detail = report.failure.name, f"{report.failure.subject}: {report.failure.statement}"
        await halts.raise_halt(context, code, detail)
        raise Broken(code, detail)


async def work(context: Context, stop: asyncio.Event, *, webhooks_anywhere: bool = False) -> None:
    """Do all jobs until `stop` is set; ticks that run then are waited for. Webhooks go to public addresses alone unless
    `webhooks_anywhere`."""
    await run_jobs(context, all_jobs(context, Poster(anywhere=webhooks_anywhere)), stop)


async def run_jobs(context: Context, jobs: Sequence[Job], stop: asyncio.Event) -> None:
    """Do `jobs`, each at once and then every so often, until `stop` is set; ticks that run then are waited for."""
    ticks = [_Tick(context, job, stop) for job in jobs]
    scheduler = AsyncIOScheduler(timezone=UTC)
    for tick in ticks:
        scheduler.add_job(
            tick.run,
            "interval",
            seconds=tick.job.seconds,
            id=tick.job.name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
            next_run_time=datetime.now(UTC),
        )
    scheduler.start()
    try:
        await stop.wait()
        scheduler.pause()
        for tick in ticks:
            await tick.ended.wait()
    finally:
        scheduler.shutdown(wait=False)


class _Tick:
    """One job as the scheduler calls it: its errors are logged when they are new, and end this tick alone."""

    def __init__(self, context: Context, job: Job, stop: asyncio.Event) -> None:
        self.context = context
        self.job = job
        self.stop = stop
        self.ended = asyncio.Event()
        self.ended.set()
        self.trouble = ""

    async def run(self) -> None:
        if self.stop.is_set():
            return
        self.ended.clear()
        try:
            await self._try()
        finally:
            self.ended.set()

    async def _try(self) -> None:
        try:
            await self.job.run()
        except Broken as error:
            self._note(error, halted=True)
            await self._halt(error)
        except (Unavailable, ChainError) as error:
            self._note(error)
        except Exception as error:  # noqa: BLE001 (a worker that ends because of one tick settles nothing any more)
            self._note(error, unexpected=True)
        else:
            if self.trouble:
                _log.info("job works again", job=self.job.name)
            self.trouble = ""

    def _note(self, error: Exception, *, halted: bool = False, unexpected: bool = False) -> None:
        """A tick every few seconds should not fill the log with one trouble."""
        trouble = f"{type(error).__name__}: {error}"
        if trouble == self.trouble:
            return
        self.trouble = trouble
        if unexpected:
            _log.error("job failed", job=self.job.name, exc_info=error)
        elif halted:
            _log.error("invariant broken, payouts and anchors halt", job=self.job.name, problem=str(error))
        else:
            _log.warning("job put off", job=self.job.name, problem=str(error))

    async def _halt(self, error: Broken) -> None:
        try:
            await halts.raise_halt(self.context, error.code, error.detail)
        except Exception as failure:  # noqa: BLE001 (the next tick finds the same trouble and tries again)
            _log.error("halt not recorded", job=self.job.name, exc_info=failure)
