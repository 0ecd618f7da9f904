"""`settlement serve`, `worker`, `demo` and `db`: processes that stay, and bringing the database up to date."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from settlement.commands.running import Json, answer, reported, settings
from settlement.commands.siblings import listening_on, siblings, until_parent_ends, url_of

if TYPE_CHECKING:
    from settlement.api.traffic import Traffic
    from settlement.bootstrap import Installation
    from settlement.config import Settings

db_app = typer.Typer(help="The database.")

DRAIN_SECONDS = 10
GARBAGE_THRESHOLD = 20_000
"""New containers between collections: a report makes thousands that reference counting frees."""


@db_app.command()
def upgrade(as_json: Json = False) -> None:
    """Run the migrations that the database has not seen; start the embedded server for it if there is no URL."""
    from settlement.bootstrap import configure_logging, open_database
    from settlement.interpreter import check_interpreter

    chosen = settings()
    configure_logging("warning")
    check_interpreter()
    with open_database(chosen):
        where = "configured" if chosen.database_url else "embedded"
        answer({"database": where}, [f"the {where} database is at the newest migration"], as_json=as_json)


def serve(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Default: SETTLEMENT_LISTEN; port 0 takes a free one.")
    ] = "",
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Settle in this process as well.")] = True,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=64, help="Processes that serve the API, for as many cores.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Serve the API, and settle, until SIGINT or SIGTERM."""
    from settlement.api.traffic import Traffic
    from settlement.config import parse_listen

    chosen, traffic = settings(), Traffic.of_processes(processes)
    host, port = parse_listen(listen, "--listen") if listen else (chosen.host, chosen.port)
    with listening_on(host, port, processes) as bound:
        url = url_of(bound[0])

        def ready() -> None:
            answer({"event": "listening", "url": url}, [f"listening on {url}"], as_json=as_json)

        async def both(installation: Installation, stop: asyncio.Event) -> None:
            others = list(zip([chosen] * (processes - 1), bound[1:], traffic[1:], strict=True))
            async with siblings(stop, _serve_beside, others), asyncio.TaskGroup() as tasks:
                tasks.create_task(_serve(installation, bound[0], traffic[0], stop, ready))
                if worker:
                    tasks.create_task(_work(installation, stop))

        _until_stopped(chosen, both)


def work(as_json: Json = False) -> None:
    """Settle without serving: deposits, windows, payouts and anchors, until SIGINT or SIGTERM."""

    async def only(installation: Installation, stop: asyncio.Event) -> None:
        answer({"event": "working"}, ["working"], as_json=as_json)
        await _work(installation, stop)

    _until_stopped(settings(), only)


def demo(
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE", help="Replay all requests of a trace: CSV or JSON lines, plain or .gz."
        ),
    ] = None,
    records: Annotated[
        int, typer.Option("--records", min=1, max=10_000_000, help="Requests to make up when there is no trace.")
    ] = 20_000,
    consumers: Annotated[
        int, typer.Option("--consumers", min=3, max=100_000, help="Consumers that take part; two of them also sell.")
    ] = 60,
    windows: Annotated[
        int, typer.Option("--windows", min=1, max=10_000, help="Windows to settle; the requests are split evenly.")
    ] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same traffic and parts.")] = 7,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Keep the installation in DIR; default: throw away."),
    ] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Leave the API running on SETTLEMENT_LISTEN, and settling, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one settlement from end to end in an installation of its own, and report what it took."""
    if trace is None and records < windows:
        raise typer.BadParameter(f"{records} requests don't fill {windows} windows", param_hint="--records")
    from settlement.demo.play import Options, run

    chosen = Options(
        trace=trace,
        records=records,
        consumers=consumers,
        windows=windows,
        seed=seed,
        stay=stay,
        data_dir=data_dir,
        as_json=as_json,
    )
    raise typer.Exit(run(chosen))


async def _work(installation: Installation, stop: asyncio.Event) -> None:
    from settlement import jobs

    chosen = installation.settings
    await jobs.work(installation.context, stop, webhooks_anywhere=chosen.webhook_targets == "any")


def _serve_beside(chosen: Settings, bound: socket.socket, traffic: Traffic, ready: Connection) -> None:
    """The whole of one more API process, on its own socket of the same address."""

    async def serve_only(installation: Installation, stop: asyncio.Event) -> None:
        until_parent_ends(stop)
        with ready:
            await _serve(installation, bound, traffic, stop, lambda: ready.send_bytes(b"listening"))

    sys.exit(reported(lambda: _until_stopped(chosen, serve_only)))


async def _serve(
    installation: Installation, bound: socket.socket, traffic: Traffic, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Serve on a bound socket until `stop` is set, with ten seconds for requests that run then; at the end, set it."""
    import uvicorn

    from governance import api as governance
    from settlement.api.app import create_app
    from settlement.api.dependencies import Settings as ApiSettings

    gc.freeze()  # what was imported stays; looking through it again with each collection is for nothing
    gc.set_threshold(GARBAGE_THRESHOLD)

    class Server(uvicorn.Server):
        """uvicorn would end the process by the signal that stopped it, before anything else is closed."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    admission, targets = installation.settings.admit_providers, installation.settings.webhook_targets
    chosen = ApiSettings(admit_providers="open" if admission == "open" else "review", webhook_targets=targets)
    app = create_app(installation.context, chosen, routers=[governance.router], traffic=traffic)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = Server(config)

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        await server.serve(sockets=[bound])
    finally:
        stop.set()
        await ending


def _until_stopped(chosen: Settings, run: Callable[[Installation, asyncio.Event], Awaitable[None]]) -> None:
    """Open the installation, run until a signal comes, close it. A second signal ends the process at once."""
    import uvloop

    from settlement.bootstrap import configure_logging, open_installation

    async def opened() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stopping(number: signal.Signals) -> None:
            stop.set()
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

        async with open_installation(chosen) as installation:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stopping, number)
            await run(installation, stop)

    configure_logging(chosen.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(opened())
