"""The demonstration itself: every step through the door that a participant would take.

Participants register and report over HTTP, on a socket; consumers pay with wallets of the simulated network; windows
are closed, netted, paid and anchored by the same services that the worker calls; and the end is checked by the offline
verifier, which reads the audit export and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import uvicorn
from rich.console import Console
from rich.progress import Progress

from settlement import jobs
from settlement.api.app import create_app
from settlement.api.dependencies import Settings as ApiSettings
from settlement.bootstrap import Installation, open_installation
from settlement.chain import Asset, ChainAdapter
from settlement.client.http import Client, ReportWriter
from settlement.client.verifier import ExportVerifier
from settlement.client.verifier import Report as Verdict
from settlement.commands.siblings import listening_on, url_of
from settlement.config import Settings
from settlement.core import rates
from settlement.core.errors import Malformed
from settlement.core.ids import uuid7, uuid_text
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey
from settlement.core.times import text as time_text
from settlement.core.units import decimal_text
from settlement.demo import report
from settlement.demo.cast import Call, ProviderRole, give_out, needed, provider_roles
from settlement.demo.figures import Figures
from settlement.demo.traffic import Request, generated, read_trace
from settlement.services import audit, chains, funding, windows
from settlement.storage import governance
from settlement.storage.embedded import EmbeddedServer

CHAIN = "simulated"
REPORT_SIZE = 1_000
LONGEST = timedelta(days=30)
"""A trace that is longer is told in fast motion: records may be 35 days old at most."""
SMALLEST_TOP_UP = 5_000_000
MINIMUM_PAYOUT_USD = "1"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `records` counts generated requests; a `trace` is taken whole."""

    _: KW_ONLY
    trace: Path | None = None
    records: int = 20_000
    consumers: int = 60
    windows: int = 4
    seed: int = 7
    stay: bool = False
    data_dir: Path | None = None
    as_json: bool = False


class Wallet(Protocol):
    """What the demonstration needs of a wallet on the simulated network."""

    @property
    def address(self) -> str: ...

    def pay_uri(self, uri: str, amount: int | None = None) -> str: ...

    def pay(self, to: str, asset: Asset, amount: int, reference: int | None = None) -> str: ...


class Playground(ChainAdapter, Protocol):
    """A chain that hands out funded wallets."""

    def wallet(self, seed: bytes, *, usd: int = 0) -> Wallet: ...


@dataclass
class Player:
    """A participant: its client, and for a provider the chain of its reports."""

    client: Client
    writer: ReportWriter | None = None


@dataclass
class Stage:
    """Everything that the steps of the demonstration share."""

    installation: Installation
    url: str
    options: Options
    console: Console
    providers: list[Player] = field(default_factory=list)
    consumers: list[Player] = field(default_factory=list)

    @property
    def chain(self) -> Playground:
        return cast(Playground, self.installation.context.chains[CHAIN])

    @property
    def asset(self) -> Asset:
        """The stable asset that everybody pays and is paid in."""
        return next(asset for asset in self.chain.facts.assets if asset.code == "USD")

    def client(self) -> Client:
        return Client(self.url, SigningKey(os.urandom(32)))

    def say(self, line: str) -> None:
        if not self.options.as_json:
            self.console.print(line)


def run(options: Options) -> int:
    """Play the whole demonstration. Returns the exit code: 0, or 2 when the verifier found something wrong.

    Raises KeyboardInterrupt when it was stopped by SIGINT or SIGTERM; Malformed or NotFound for a trace that can't be
    played, before anything is started.
    """
    requests = read_trace(options.trace) if options.trace else generated(options.records, options.seed)
    if len(requests) < options.windows:
        raise Malformed("trace_too_short", f"{len(requests)} requests don't fill {options.windows} windows")
    os.environ.setdefault(
        "SETTLEMENT_SIMULATED_CLOSE_SECONDS", "0"
    )  # no waiting: every look at the chain closes a ledger
    with nullcontext(options.data_dir) if options.data_dir else _scratch_folder() as folder:
        overrides = {
            "SETTLEMENT_DATA_DIR": str(folder),
            "SETTLEMENT_CHAINS": CHAIN,
            "SETTLEMENT_MINIMUM_PAYOUT_USD": MINIMUM_PAYOUT_USD,
        }
        settings = Settings.from_environment({**os.environ, **overrides, "SETTLEMENT_DATABASE_URL": ""})
        try:
            return asyncio.run(_play(settings, options, requests))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, once the database in it has shut down; a second Ctrl-C doesn't keep it."""
    folder = Path(tempfile.mkdtemp(prefix="settlement-demo-"))
    try:
        folder.chmod(0o711)  # for root, PostgreSQL runs as another user, who must get through
        yield folder
    finally:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if (folder / "postgres").exists():
                EmbeddedServer.attach(folder / "postgres").close(wait=True)
        finally:
            shutil.rmtree(folder)
            for number, handler in before.items():
                signal.signal(number, handler)


async def _play(settings: Settings, options: Options, requests: Sequence[Request]) -> int:
    began = time.monotonic()
    playing = asyncio.current_task()
    assert playing is not None, "this is a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    console = Console(stderr=options.as_json)
    async with open_installation(settings) as installation, _served(installation, settings, options) as url:
        stage = Stage(installation, url, options, console)
        stage.say(f"[bold]A settlement from end to end[/bold], API at {url}")
        stage.say(report.traffic_line(requests, options))
        table, policy = await _governed(stage)
        roles = provider_roles(table)
        try:
            await _register(stage, roles)
            calls = give_out(requests, roles, options.consumers, table, options.seed)
            await _fund(stage, calls, policy)
            await _settle(stage, calls)
        finally:
            await _close_clients(stage)
        verdict, figures = await _verify(stage)
        seconds = time.monotonic() - began
        kept = settings.data_dir if options.data_dir or options.stay else None
        report.show(stage.console, figures, verdict, seconds, options, stage.chain.facts.fee_asset.text, kept)
        if options.stay:
            await _stay(stage)
        return 0 if verdict.fault is None else 2


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C ends the demonstration, not the server alone."""
        yield


@asynccontextmanager
async def _served(installation: Installation, settings: Settings, options: Options) -> AsyncIterator[str]:
    """The API on a loopback socket while the block runs: the configured port with `stay`, else any free one."""
    app = create_app(installation.context, ApiSettings(admit_providers="open", requests_per_minute=100_000))
    server = _Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))
    with listening_on(settings.host, settings.port if options.stay else 0) as listening:
        task = asyncio.create_task(server.serve(listening))
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the API did not start")
            await asyncio.sleep(0.01)
        try:
            yield url_of(listening[0])
        finally:
            server.should_exit = True
            await task


async def _governed(stage: Stage) -> tuple[rates.RateTable, Policy]:
    context = stage.installation.context
    now = context.sources.clock()
    async with context.database.read() as connection:
        signed = await governance.rates_at(connection, now)
        return rates.parse(signed.document), await governance.policy_at(connection, now)


async def _register(stage: Stage, roles: Sequence[ProviderRole]) -> None:
    """Consumers first, since a reseller names its own consumer account and signs with that key as well."""
    buyers = [role.name for role in roles if role.buys]
    names = [f"{name}, buying" for name in buyers]
    names += [f"Consumer {number + 1}" for number in range(stage.options.consumers - len(buyers))]
    for name in names:
        client = stage.client()
        await client.register_consumer(name)
        stage.consumers.append(Player(client))
    for role in roles:
        client = stage.client()
        wallet = stage.chain.wallet(os.urandom(32))
        payout = {"chain": CHAIN, "asset": stage.asset.text, "address": wallet.address}
        owner = stage.consumers[buyers.index(role.name)].client if role.buys else None
        await client.register_provider(role.name, payout=payout, owner=owner)
        stage.providers.append(Player(client, ReportWriter(client.id)))
    stage.say(f"  registered {len(stage.providers)} providers and {len(stage.consumers)} consumers over HTTP")


async def _fund(stage: Stage, calls: Sequence[Call], policy: Policy) -> None:
    """Every consumer pays by an ordinary payment; one more payment names nobody and goes to suspense."""
    worth = policy.micro_per_unit(stage.asset.code, stage.chain.facts.assets[stage.asset])
    if worth is None:
        raise RuntimeError(f"the policy gives {stage.asset.code} no worth")
    units = needed(calls, len(stage.consumers), 1 / (worth * 10**6), SMALLEST_TOP_UP)
    for player, amount in zip(stage.consumers, units, strict=True):
        places = stage.chain.facts.assets[stage.asset]
        intent = await player.client.funding_intent(
            CHAIN, stage.asset.text, decimal_text(amount, places), f"demo-{player.client.id}"
        )
        wallet = stage.chain.wallet(os.urandom(32), usd=amount)
        await asyncio.to_thread(wallet.pay_uri, intent["payment_uri"])
    stray = stage.chain.wallet(os.urandom(32), usd=SMALLEST_TOP_UP)
    await asyncio.to_thread(stray.pay, stage.chain.treasury, stage.asset, SMALLEST_TOP_UP)
    context = stage.installation.context
    booked = 0
    while booked < len(units) + 1:
        found = await funding.read_deposits(context, CHAIN)
        if not found:
            raise RuntimeError(f"only {booked} of {len(units) + 1} deposits arrived")
        booked += found
    total = decimal_text(sum(units), 6)
    stage.say(f"  {len(units)} payments of {total} {stage.asset.code}; one more names nobody: suspense")


async def _settle(stage: Stage, calls: Sequence[Call]) -> None:
    """Report the calls window by window; after each, close, net, checkpoint, pay and anchor."""
    context = stage.installation.context
    span = timedelta(microseconds=calls[-1].request.offset)
    squeeze = (
        Fraction(1) if span <= LONGEST else Fraction(LONGEST // timedelta(microseconds=1), calls[-1].request.offset)
    )
    begin = context.sources.clock() - min(span, LONGEST)
    with Progress(console=stage.console, transient=True, disable=stage.options.as_json) as progress:
        task = progress.add_task("usage reports", total=len(calls))
        for number in range(stage.options.windows):
            part = _part(calls, number, stage.options.windows)
            lanes = [[call for call in part if call.provider == lane] for lane in range(len(stage.providers))]
            await asyncio.gather(
                *(
                    _report(stage, player, lane, begin, squeeze, lambda done: progress.advance(task, done))
                    for player, lane in zip(stage.providers, lanes, strict=True)
                )
            )
            await _settle_window(stage)


async def _report(
    stage: Stage, player: Player, calls: Sequence[Call], begin: datetime, squeeze: Fraction, advance: Any
) -> None:
    """Send one provider's calls of a window, a thousand a report, each signed over its exact bytes."""
    assert player.writer is not None, "providers have a chain of reports"
    for start in range(0, len(calls), REPORT_SIZE):
        chunk = calls[start : start + REPORT_SIZE]
        body = player.writer.write([_record(stage, call, begin, squeeze) for call in chunk])
        answer = await player.client.submit_report(body)
        if answer["refused"]:
            raise RuntimeError(f"the service refused {len(answer['refused'])} records: {answer['refused'][0]}")
        advance(len(chunk))


def _record(stage: Stage, call: Call, begin: datetime, squeeze: Fraction) -> dict[str, Any]:
    at = begin + timedelta(microseconds=int(call.request.offset * squeeze))
    return {
        "id": uuid_text(uuid7(at, os.urandom)),
        "at": time_text(at),
        "consumer": stage.consumers[call.consumer].client.id,
        "model": call.model,
        "operation": "chat",
        "tier": "standard",
        "outcome": "completed",
        "meters": call.meters,
    }


def _part(calls: Sequence[Call], number: int, parts: int) -> Sequence[Call]:
    return calls[len(calls) * number // parts : len(calls) * (number + 1) // parts]


async def _settle_window(stage: Stage) -> None:
    context = stage.installation.context
    closed = await windows.close(context)
    while await windows.advance(context, plan=jobs.plan_payouts):
        pass
    done = await chains.run_until_idle(context, CHAIN)
    stage.say(f"  {closed.id}: closed, netted, checkpointed; {done.settled} transactions final")


async def _verify(stage: Stage) -> tuple[Verdict, Figures]:
    """Read the audit export once, as a stranger would: the verifier checks it, the figures are counted from it."""
    verifier, figures = ExportVerifier(frozenset({stage.installation.context.key.public.kid})), Figures()
    async for line in audit.export(stage.installation.context):
        verifier.feed(line)
        figures.feed(json.loads(line))
    return verifier.finish(), figures


async def _close_clients(stage: Stage) -> None:
    for player in (*stage.providers, *stage.consumers):
        await player.client.close()


async def _stay(stage: Stage) -> None:
    """Keep the API and the worker until Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stage.console.print(f"The API stays at {stage.url} until Ctrl-C.")
    await jobs.work(stage.installation.context, stop)
