"""Reports reach the real service over a real socket: signed, in order, once, whatever is killed and whoever is away."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from settlement.api.app import create_app
from settlement.api.dependencies import Settings
from settlement.core.errors import SettlementError
from settlement.meter import reports
from settlement.meter.reports import Reports
from settlement.meter.sending import Sender, open_sender
from settlement.meter.spool import Spool, status
from settlement.services import funding
from tests.meter.servers import serving
from tests.world import Member, World

pytestmark = [pytest.mark.database, pytest.mark.network]

ROOT = Path(__file__).parents[2]
KILLS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 16)
ALL_KILLS = tuple(range(1, 60))


@pytest.fixture
async def service(world: World) -> AsyncIterator[str]:
    await funding.open_chain(world.context, "simulated")
    world.sources.settable.now = datetime.now(UTC)
    async with serving(create_app(world.context, Settings(admit_providers="open"))) as url:
        yield url


async def rows(world: World, query: str) -> list[Any]:
    async with world.context.database.begin() as connection:
        return list((await connection.execute(text(query))).all())


def record(world: World, consumer: Member, **more: Any) -> dict[str, Any]:
    return world.record(consumer, meters={"input_tokens": 10, "output_tokens": 5}, **more)


async def opened(folder: Path, world: World, provider: Member, http: httpx2.AsyncClient) -> tuple[Spool, Sender]:
    spool = Spool(folder, world.sources)
    return spool, await open_sender(spool, provider.id, provider.key, http, world.sources.entropy, every=0.01)


async def test_records_are_reported_in_order_and_refusals_are_kept(world: World, service: str, tmp_path: Path) -> None:
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    async with httpx2.AsyncClient(base_url=service, trust_env=False, timeout=60) as http:
        spool, sender = await opened(tmp_path, world, provider, http)
        for number in range(3):
            await spool.record(record(world, consumer, model="gpt-5" if number != 1 else "no-such-model"))
            await sender.drain()
        await spool.close()
    assert (sender.state.sent, sender.state.accepted, sender.state.refused) == (3, 2, 1)
    assert status(tmp_path) == {"waiting": 0, "reports": 3, "unanswered": 0, "refused": {"unknown_model": 1}}
    assert [row.seq for row in await rows(world, "SELECT seq FROM usage_report ORDER BY seq")] == [1, 2, 3]


async def test_what_comes_within_a_pause_is_reported_together_unless_a_report_was_full(
    world: World, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, provider = await world.consumer(micro=10**9), await world.provider()

    class Busy(httpx2.AsyncHTTPTransport):
        """While a report is on its way, one more record comes."""

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            await spool.record(record(world, consumer))
            return await super().handle_async_request(request)

    monkeypatch.setattr(reports, "MAX_RECORDS", 2)
    async with httpx2.AsyncClient(base_url=service, transport=Busy(), timeout=60) as http:
        spool = Spool(tmp_path, world.sources)
        for _ in range(5):
            await spool.record(record(world, consumer))
        sender = await open_sender(spool, provider.id, provider.key, http, world.sources.entropy, every=3_600)
        running = asyncio.create_task(sender.run())
        while sender.state.sent < 5:  # four full ones and the rest, with no pause between
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await spool.close()
    assert [row.accepted for row in await rows(world, "SELECT accepted FROM usage_report ORDER BY seq")] == [
        2,
        2,
        2,
        2,
        1,
    ]


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_bytes(
    world: World, service: str, tmp_path: Path
) -> None:
    consumer, provider = await world.consumer(micro=10**9), await world.provider()

    class Losing(httpx2.AsyncBaseTransport):
        """The service takes the report, and its answer never arrives."""

        def __init__(self) -> None:
            self.inner = httpx2.AsyncHTTPTransport()
            self.bodies: list[bytes] = []

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            self.bodies.append(await request.aread())
            response = await self.inner.handle_async_request(request)
            await response.aread()
            if len(self.bodies) < 3:
                await response.aclose()
                raise httpx2.ReadError("lost", request=request)
            return response

        async def aclose(self) -> None:
            await self.inner.aclose()

    losing = Losing()
    async with httpx2.AsyncClient(base_url=service, transport=losing, timeout=60) as http:
        spool, sender = await opened(tmp_path, world, provider, http)
        await spool.record(record(world, consumer))
        for _ in range(2):
            with pytest.raises(httpx2.ReadError):
                await sender.step()
            await spool.record(record(world, consumer))  # waits for its own report
        await sender.drain()
        await spool.close()
    assert len(set(losing.bodies[:3])) == 1
    assert sender.state.accepted == 3
    assert await rows(world, "SELECT 1 FROM usage_report") == [(1,), (1,)]


async def test_a_service_that_was_set_back_gets_the_same_reports_again(
    world: World, service: str, tmp_path: Path
) -> None:
    """As after a restore from a backup: the service knows less than it has answered for."""
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    async with httpx2.AsyncClient(base_url=service, trust_env=False, timeout=60) as http:
        spool, sender = await opened(tmp_path, world, provider, http)
        await spool.record(record(world, consumer))
        sender._next()
        await spool.record(record(world, consumer))
        made = sender._reports.write()
        assert made is not None
        await spool.record(record(world, consumer))
        for seq in (1, 2):  # what the earlier service answered
            sender._reports.answered(seq, {"accepted": 1, "refused": []})
        await sender.drain()
        await spool.close()
    assert [row.seq for row in await rows(world, "SELECT seq FROM usage_report ORDER BY seq")] == [1, 2, 3]


async def test_what_the_service_refuses_stops_the_chain_and_is_said(world: World, service: str, tmp_path: Path) -> None:
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    stranger = await world.provider("stranger")
    async with httpx2.AsyncClient(base_url=service, trust_env=False, timeout=60) as http:
        spool, sender = await opened(tmp_path, world, provider, http)
        sender._key = stranger.key
        await spool.record(record(world, consumer))
        with pytest.raises(SettlementError, match="key_of_another"):
            await sender.drain()
        sender._key = provider.key
        await sender.drain()
        await spool.close()
    assert sender.state.accepted == 1


async def test_the_running_sender_waits_for_the_service_and_goes_on(world: World, service: str, tmp_path: Path) -> None:
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    away = asyncio.Event()
    away.set()

    class Away(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if away.is_set():
                return httpx2.Response(503, text="no")
            return await super().handle_async_request(request)

    async with httpx2.AsyncClient(base_url=service, transport=Away(), timeout=60) as http:
        spool, sender = await opened(tmp_path, world, provider, http)
        running = asyncio.create_task(sender.run())
        await spool.record(record(world, consumer))
        while sender.state.blocked is None:
            await asyncio.sleep(0.01)
        away.clear()
        while sender.state.accepted < 1:
            await asyncio.sleep(0.01)
        blocked: str | None = sender.state.blocked
        assert blocked is None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await spool.close()


async def run_to_death(*arguments: object) -> tuple[int, list[str]]:
    """One life of `tests.meter.killed`: its exit code, and the lines that it got to print."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.meter.killed", *map(str, arguments)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    out, _ = await child.communicate()
    assert child.returncode is not None
    whole = [line for line in out.decode().splitlines(keepends=True) if line.endswith("\n")]
    return child.returncode, [line.strip() for line in whole]


async def killed_at(kills: tuple[int, ...], world: World, service: str, folder: Path) -> None:
    """Lives that each end by SIGKILL at another point, and one that drains. What was durable is charged once."""
    consumer, provider = await world.consumer(micro=10**10), await world.provider()
    key = folder / "key.jwk"
    key.write_text(json.dumps(provider.key.jwk()))
    durable: list[str] = []
    for kill_at in (*kills, 0):
        code, lines = await run_to_death(folder / "spool", service, provider.id, key, consumer.id, 4, kill_at)
        assert code in (-9, 0)
        assert kill_at or lines[-1] == "drained"
        durable += [line.split()[1] for line in lines if line.startswith("durable")]
    charged = [row.id for row in await rows(world, "SELECT id::text AS id FROM usage_record")]
    assert len(set(charged)) == len(charged)
    assert set(durable) <= set(charged)
    assert await rows(world, "SELECT 1 FROM report_conflict") == []
    found = Reports(folder / "spool", provider.id)
    reports = await rows(world, "SELECT seq, digest FROM usage_report ORDER BY seq")
    assert [row.seq for row in reports] == list(range(1, found.last + 1))
    assert found.unanswered() is None
    found.close()
    assert status(folder / "spool") == {"waiting": 0, "reports": found.last, "unanswered": 0, "refused": {}}


async def test_nothing_durable_is_lost_and_nothing_is_charged_twice_after_sigkill(
    world: World, service: str, tmp_path: Path
) -> None:
    await killed_at(KILLS, world, service, tmp_path)


@pytest.mark.nightly
async def test_sigkill_at_every_point(world: World, service: str, tmp_path: Path) -> None:
    await killed_at(ALL_KILLS, world, service, tmp_path)
