"""Two real processes on one database: a balance is spent once, and a hold ends once, whoever is asked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook

from adapters.simulated import SimulatedAdapter
from settlement.bootstrap import open_installation
from settlement.config import Settings
from settlement.core.ids import Sources, uuid7
from settlement.core.signatures import sign_detached
from settlement.services import holds
from settlement.services.authentication import issue_api_key
from settlement.services.context import Context
from settlement.storage import accounts, invariants
from tests.hearing import receiving
from tests.holding import INPUT, amount
from tests.test_cli import environment, running
from tests.world import Member, SeededSources, World

pytestmark = [pytest.mark.anyio, pytest.mark.database, pytest.mark.network]

__all__ = ["environment"]


@dataclass
class Counters:
    """Two processes, a provider that holds and reports through both, and a consumer."""

    world: World
    provider: Member
    consumer: Member
    keys: dict[str, str]
    clients: Sequence[httpx2.AsyncClient]

    @property
    def context(self) -> Context:
        return self.world.context

    async def post(self, turn: int, path: str, document: Any = None) -> httpx2.Response:
        """To the one process or to the other."""
        body = b"" if document is None else json.dumps(document).encode()
        headers = {"Content-Type": "application/json", **self.keys}
        return await self.clients[turn % 2].post(path, content=body, headers=headers)

    def body(self, **more: Any) -> dict[str, Any]:
        request = UUID(bytes=uuid7(datetime.now(UTC), self.world.sources.entropy))
        return {"request": str(request), "model": "gpt-5", "tier": "standard", "meters": INPUT, **more}

    async def report(self, turn: int, placed: Sequence[dict[str, Any]]) -> httpx2.Response:
        """One usage record for each of these holds."""
        used = {"input_tokens": 1155, "output_tokens": 200}
        now = datetime.now(UTC)
        records = [self.world.record(self.consumer, meters=used, hold=each["id"], at=now) for each in placed]
        body, _ = self.world.report(self.provider, records)
        headers = {"Content-Type": "application/json", "x-jws-signature": sign_detached(self.provider.key, body)}
        return await self.clients[turn % 2].post("/v1/usage-reports", content=body, headers=headers)

    async def sound(self) -> None:
        """What accounts hold, holds, captures and budgets agree."""
        async with self.context.database.read() as connection:
            for invariant in invariants.invariants():
                if invariant.number.startswith(("I03", "I04", "I05")):
                    broken = await connection.execute(text(f"SELECT subject FROM audit.{invariant.view}"))
                    assert broken.first() is None, invariant

    async def of(self, micro: int) -> Counters:
        """The same for another consumer, who has `micro` microCU."""
        consumer = await self.world.consumer(micro=micro)
        async with self.context.database.begin() as connection:
            token = await issue_api_key(connection, self.world.sources, consumer.party.no, ["spend"])
        return replace(self, consumer=consumer, keys=self.keys | {"X-Consumer-Key": token})

    async def account(self) -> tuple[int, int]:
        """Held and available."""
        async with self.context.database.read() as connection:
            found = await accounts.get(connection, self.consumer.id)
        return found.held, found.available


@asynccontextmanager
async def opened(environment: dict[str, str]) -> AsyncIterator[Counters]:
    sources = SeededSources()
    sources.settable.now = datetime.now(UTC)
    serve = ("serve", "--listen", "127.0.0.1:0", "--no-worker")
    async with open_installation(Settings.from_environment(environment), sources) as installation:
        chain = cast(SimulatedAdapter, installation.context.chains["simulated"])
        world = World(installation.context, sources, chain)
        provider, consumer = await world.provider(), await world.consumer()
        async with installation.context.database.begin() as connection:
            token = await issue_api_key(connection, sources, provider.party.no, ["holds"])
        with running(environment, *serve) as (_, first), running(environment, *serve) as (_, second):
            limits = httpx2.Limits(max_connections=50)
            async with (
                httpx2.AsyncClient(base_url=first["url"], timeout=120, limits=limits) as one,
                httpx2.AsyncClient(base_url=second["url"], timeout=120, limits=limits) as other,
            ):
                yield Counters(world, provider, consumer, {"Authorization": f"Bearer {token}"}, (one, other))


async def test_a_balance_is_spent_once_and_a_hold_ends_once(environment: dict[str, str]) -> None:
    async with opened(environment) as found:
        await of_200_holds_on_a_balance_for_100_just_100_are_placed(found)
        await one_request_that_is_sent_to_both_is_one_hold(found)
        await capture_release_and_expiry_race_and_each_hold_ends_once(found)


async def of_200_holds_on_a_balance_for_100_just_100_are_placed(counters: Counters) -> None:
    both = await counters.of(100 * amount(256) + amount(256) // 2)
    asked = [both.post(turn, "/v1/holds", both.body(output_tokens=256)) for turn in range(200)]
    answers = await asyncio.gather(*asked)
    assert Counter(each.status_code for each in answers) == {201: 100, 402: 100}
    refused = {(each.json()["code"], each.json()["missing"]) for each in answers if each.status_code == 402}
    assert refused == {("insufficient_balance", "0.444862")}
    assert await both.account() == (100 * amount(256), amount(256) // 2)
    await both.sound()


async def one_request_that_is_sent_to_both_is_one_hold(counters: Counters) -> None:
    both = await counters.of(100 * amount(256))
    bodies = [both.body() for _ in range(20)]
    answers = await asyncio.gather(*(both.post(turn, "/v1/holds", body) for body in bodies for turn in range(4)))
    assert {each.status_code for each in answers} == {201}
    assert len({each.json()["id"] for each in answers}) == 20
    assert sum(each.headers.get("idempotency-replayed") == "true" for each in answers) == 60
    assert (await both.account())[0] == 20 * amount(256)
    await both.sound()


async def capture_release_and_expiry_race_and_each_hold_ends_once(counters: Counters) -> None:
    """A report captures through one process, releases go to both, and a worker whose clock is ahead expires them."""
    both = await counters.of(60 * amount(256))
    answers = await asyncio.gather(*(both.post(turn, "/v1/holds", both.body()) for turn in range(60)))
    placed = [each.json() for each in answers]
    late = Sources(clock=lambda: datetime.now(UTC) + timedelta(hours=1), entropy=both.world.sources.entropy)
    worker = replace(both.context, sources=late)

    async def expire() -> None:
        await asyncio.sleep(0)
        await holds.expire(worker)

    await asyncio.gather(
        both.report(0, placed[:40]),
        *(both.post(turn, f"/v1/holds/{each['id']}/release") for turn in range(2) for each in placed[20:50]),
        expire(),
        expire(),
    )
    await holds.expire(worker)
    query = """SELECT h.state, h.amount, h.captured, h.released, h.late, h.uses,
        (SELECT count(*) FROM hold_capture c WHERE c.hold_id = h.id) AS captures
        FROM hold h WHERE h.consumer_no = :consumer"""
    async with both.context.database.read() as connection:
        found = (await connection.execute(text(query), {"consumer": both.consumer.party.no})).all()
    assert len(found) == 60
    for hold in found:
        assert hold.state != "open"
        assert hold.captured + hold.released == hold.amount
        assert hold.captures == hold.uses <= 1
        assert (hold.captured > 0) == (hold.state == "captured")
        assert (hold.late > 0) == (hold.state == "expired" and hold.uses == 1)
    assert (await both.account())[0] == 0
    await both.sound()


async def test_a_process_posts_webhooks_where_its_operator_lets_them_go(environment: dict[str, str]) -> None:
    """The setting reaches the API, which takes the address, and the worker, which posts to it."""
    document: dict[str, Any] = {}
    async with receiving() as receiver, opened(environment) as both:
        async with both.context.database.begin() as connection:
            scopes = ("api-keys", "read")
            token = await issue_api_key(connection, both.world.sources, both.consumer.party.no, scopes)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        document |= {"url": receiver.url, "events": ["webhook.test"]}  # windows close meanwhile
        refused = await both.clients[0].post("/v1/webhooks", json=document, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "webhook_url")
        anywhere = {**environment, "SETTLEMENT_WEBHOOK_TARGETS": "any"}
        with running(anywhere, "serve", "--listen", "127.0.0.1:0") as (_, ready):
            async with httpx2.AsyncClient(base_url=ready["url"], headers=headers) as client:
                made = (await client.post("/v1/webhooks", json=document)).json()
                assert (await client.post(f"/v1/webhooks/{made['id']}/test")).status_code == 204
                while not receiver.seen:
                    await asyncio.sleep(0.05)
                found = Webhook(made["secret"]).verify(receiver.seen[0].body, dict(receiver.seen[0].headers))
                assert found["type"] == "webhook.test"
