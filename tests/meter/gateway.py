"""A provider's gateway as it runs: the real service, a model server and the metering proxy, each on its own socket."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from settlement.api.app import create_app
from settlement.api.dependencies import Settings
from settlement.meter import segments
from settlement.meter.calls import Meter, Terms
from settlement.meter.charges import RateTables
from settlement.meter.holds import Holds
from settlement.meter.proxy import metered_proxy, upstream_client
from settlement.meter.reports import Reports
from settlement.meter.sending import Sender
from settlement.meter.spool import Spool
from settlement.services import funding
from tests.api.town import auth
from tests.meter.servers import serving
from tests.meter.upstream import Upstream
from tests.world import Member, World


@dataclass
class Gateway:
    """All that a test needs to be a consumer at a provider's door."""

    world: World
    provider: Member
    consumer: Member
    spending: str
    service: str
    url: str
    upstream: Upstream
    spool: Spool
    meter: Meter
    service_http: httpx2.AsyncClient
    http: httpx2.AsyncClient

    def body(self, words: str, **more: Any) -> dict[str, Any]:
        """A chat request; the words tell the model server what to do."""
        return {"model": "gpt-5", "messages": [{"role": "user", "content": words}], **more}

    async def chat(self, words: str, **more: Any) -> httpx2.Response:
        """One call, read to its end."""
        return await self.http.post("/v1/chat/completions", json=self.body(words, **more))

    def records(self) -> list[dict[str, Any]]:
        """The usage records that are on disk, in segments that no report has taken yet."""
        found: list[dict[str, Any]] = []
        for path in sorted(self.spool.folder.glob("segments/*")):
            found.extend(segments.records(segments.read(path).lines))
        return found

    async def held(self) -> str:
        """What is reserved on the consumer's account, CU."""
        return str((await self.account())["held"])

    async def account(self) -> Mapping[str, Any]:
        """The consumer's account as the service tells it."""
        headers = await auth(self.world, self.consumer, "read")
        found: Mapping[str, Any] = (await self.service_http.get("/v1/accounts/me", headers=headers)).json()
        return found

    async def report(self) -> Sender:
        """Send everything that is on disk to the service."""
        reports = Reports(self.spool.folder, self.provider.id)
        sender = Sender(reports, self.provider.key, self.service_http, self.world.sources.entropy)
        try:
            await sender.drain()
        finally:
            reports.close()
        return sender


@asynccontextmanager
async def open_gateway(
    world: World, folder: Path, *, micro: int = 10**9, model_server: str = "", **terms: Any
) -> AsyncIterator[Gateway]:
    """A gateway with a consumer that has `micro` microCU, before a model server of its own or the one named."""
    await funding.open_chain(world.context, "simulated")
    provider, consumer = await world.provider(), await world.consumer(micro=micro)
    spending = (await auth(world, consumer, "spend"))["Authorization"].removeprefix("Bearer ")
    upstream = Upstream()
    model_server = model_server or await upstream.start()
    spool = Spool(folder / "spool", world.sources)
    async with (
        serving(create_app(world.context, Settings(admit_providers="open"))) as service,
        httpx2.AsyncClient(
            base_url=service, headers=await auth(world, provider, "holds", "read"), trust_env=False, timeout=60
        ) as http,
        upstream_client(model_server) as forward,
    ):
        meter = Meter(
            Terms(provider=provider.id, **terms),
            Holds(http),
            RateTables(http),
            spool,
            world.sources,
            itertools.count(0, 10**9).__next__,  # a second a look: how fast this machine is decides no test
        )
        async with (
            serving(metered_proxy(meter, forward, {"authorization": "Bearer upstream-key"})) as url,
            httpx2.AsyncClient(
                base_url=url, headers={"authorization": f"Bearer {spending}"}, trust_env=False, timeout=60
            ) as client,
        ):
            yield Gateway(world, provider, consumer, spending, service, url, upstream, spool, meter, http, client)
            await upstream.stop()
    await spool.close()


def events(text: str) -> list[tuple[str | None, str]]:
    """The events of a stream: type and data; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            kind = next((line[7:] for line in lines if line.startswith("event: ")), None)
            found.append((kind, "\n".join(line[6:] for line in lines if line.startswith("data: "))))
    return found


def said(text: str) -> str:
    """What a streamed answer says."""
    chunks = [json.loads(data) for kind, data in events(text) if kind is None and data != "[DONE]"]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk.get("choices", ()))
