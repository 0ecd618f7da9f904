"""The process of `settlement meter proxy`: spool, sender and proxy, from their start to an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import typer
import uvicorn

from settlement.core.errors import Conflict, Malformed
from settlement.core.ids import Sources
from settlement.core.signatures import SigningKey
from settlement.core.units import parse_decimal
from settlement.meter.calls import MAX_GRANT, Meter, Terms
from settlement.meter.charges import RateTables
from settlement.meter.holds import Holds
from settlement.meter.proxy import metered_proxy, upstream_client
from settlement.meter.sending import open_sender
from settlement.meter.spool import Spool, SpoolFailed, status

API_KEY, UPSTREAM_KEY = "SETTLEMENT_METER_API_KEY", "SETTLEMENT_METER_UPSTREAM_KEY"
TURN_SECONDS = 5
"""How often a process that only writes asks whether the one that sends has gone."""
GRACE_SECONDS, REPORT_SECONDS = 30, 10
"""How long calls that run may go on when the process is told to stop, and how long the last reports may take then."""


@dataclass(frozen=True)
class Chosen:
    """What the command line says."""

    upstream: str
    service: str
    provider: str
    key: SigningKey
    spool: Path
    host: str
    port: int
    final: str
    slice_tokens: int | None
    models: Mapping[str, str]

    def __post_init__(self) -> None:
        """Find what makes no sense before anything is started.

        Raises Malformed ``setting_malformed`` or ``final_malformed``.
        """
        for option, url in (("--upstream", self.upstream), ("--service", self.service)):
            if not _is_address(url):
                raise Malformed("setting_malformed", f"{option} is an http or https address with a host")
        if self.slice_tokens is not None and not 10 <= self.slice_tokens <= MAX_GRANT:
            raise Malformed("setting_malformed", f"--slice is 10 to {MAX_GRANT} tokens, or 0")
        final_action(self.final)


def model_names(pairs: Sequence[str]) -> dict[str, str]:
    """The names of ``NAME=MODEL``. Raises Malformed ``setting_malformed``."""
    split = [pair.partition("=") for pair in pairs]
    if not all(name and model for name, _, model in split):
        raise Malformed("setting_malformed", "--model is NAME=MODEL: what clients say, and the rate table's model")
    return {name: model for name, _, model in split}


def _is_address(url: str) -> bool:
    try:
        found = httpx2.URL(url)
    except httpx2.InvalidURL:
        return False
    return found.scheme in ("http", "https") and bool(found.host)


def final_action(text: str) -> dict[str, str]:
    """The final-unit action that a word names. Raises Malformed ``final_malformed``."""
    action, _, limit = text.partition(":")
    if action in ("stop", "redirect") and not limit:
        return {"action": action}
    if action == "absorb" and _is_amount(limit):
        return {"action": action, "limit": limit}
    raise Malformed("final_malformed", "--final is stop, redirect, or absorb and a limit in CU such as absorb:0.5")


class Server(uvicorn.Server):
    """uvicorn would end the process by the signal that stopped it, before the last records are reported."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal ends it in order; a second one ends the process at once."""
        loop = asyncio.get_running_loop()

        def stopping(number: signal.Signals) -> None:
            self.should_exit = True
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping, number)
        yield


def _is_amount(text: str) -> bool:
    try:
        return parse_decimal(text, 6) > 0
    except Malformed:
        return False


async def run_proxy(chosen: Chosen, bound: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; then let running calls end, report what is left, and go.

    Also when nothing is reported any more: what can't be sent stops the process, which says why. Raises SpoolFailed.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    api_key = os.environ.get(API_KEY, "")
    if not api_key:
        raise Malformed("setting_malformed", f"{API_KEY} is the provider's API key with the scope holds")
    sources = Sources(lambda: datetime.now(UTC), os.urandom)
    terms = Terms(chosen.provider, final_action(chosen.final), slice_tokens=chosen.slice_tokens, models=chosen.models)
    upstream_key = os.environ.get(UPSTREAM_KEY)
    headers = {"authorization": f"Bearer {upstream_key}"} if upstream_key else {}
    async with (
        httpx2.AsyncClient(
            base_url=chosen.service.rstrip("/"),
            headers={"authorization": f"Bearer {api_key}"},
            timeout=30,
            trust_env=False,
        ) as service,
        upstream_client(chosen.upstream) as upstream,
    ):
        try:
            spool = Spool(chosen.spool, sources)
        except OSError as error:
            raise SpoolFailed(f"{chosen.spool}: {error.strerror}") from None
        meter = Meter(terms, Holds(service), RateTables(service), spool, sources, time.monotonic_ns)
        ours = asyncio.Event()
        sending = asyncio.create_task(_send(spool, chosen, service, ours))
        config = uvicorn.Config(
            metered_proxy(meter, upstream, headers),
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        server = Server(config)
        sending.add_done_callback(lambda _: setattr(server, "should_exit", True))
        port = bound.getsockname()[1]
        typer.echo(f"metering {chosen.upstream} on {chosen.host}:{port}; {spool.recovered} calls recovered")
        await server.serve(sockets=[bound])
        await spool.close()
        if ours.is_set():
            await _all_reported(chosen.spool, sending)
        sending.cancel()
        (ended,) = await asyncio.gather(sending, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended


async def _all_reported(folder: Path, sending: asyncio.Task[None]) -> None:
    """Returns when nothing waits in the spool any more, or no longer than that may take; what is left stays there."""
    with suppress(TimeoutError):
        async with asyncio.timeout(REPORT_SECONDS):
            while not sending.done():
                found = await asyncio.to_thread(status, folder)
                if not found["waiting"] and not found["unanswered"]:
                    return
                await asyncio.sleep(0.1)


async def _send(spool: Spool, chosen: Chosen, service: httpx2.AsyncClient, ours: asyncio.Event) -> None:
    """Send the spool's reports, as soon as no other process of this spool does; `ours` says that it is us."""
    while True:
        try:
            sender = await open_sender(spool, chosen.provider, chosen.key, service, os.urandom)
        except Conflict as error:
            if error.code != "spool_in_use":
                raise
            await asyncio.sleep(TURN_SECONDS)
        else:
            ours.set()
            await sender.run()
