"""Webhooks in tests: a receiver on loopback that keeps what it was sent and answers as it is told, and endpoints."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text
from standardwebhooks.webhooks import hmac_data

from settlement.services import webhooks
from settlement.services.context import Context
from settlement.services.targets import Poster
from settlement.storage.webhooks import Delivery, Endpoint
from tests.loopback import Answer, Loopback, Request
from tests.world import Member, World

Event = dict[str, Any]


@dataclass
class Receiver:
    """What arrived, oldest first; `answer` decides what is said to it."""

    url: str = ""
    seen: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda _: Answer(status=204)

    async def receive(self, request: Request) -> Answer:
        self.seen.append(request)
        return self.answer(request)

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.seen]

    @property
    def types(self) -> list[str]:
        return [request.json()["type"] for request in self.seen]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with Loopback(receiver.receive) as server:
        receiver.url = f"{server.url}/in"
        yield receiver


@dataclass
class Ear:
    """A member's endpoint and its secret."""

    world: World
    member: Member
    endpoint: Endpoint
    secret: str

    async def now(self) -> Endpoint:
        (found,) = [
            each for each in await webhooks.listed(self.world.context, self.member.party) if each.no == self.endpoint.no
        ]
        return found

    async def deliveries(self) -> list[Delivery]:
        """Oldest first."""
        owner, name = self.member.party, self.endpoint.id
        return (await webhooks.deliveries(self.world.context, owner, name, before=None, limit=200))[::-1]

    async def tell(self) -> None:
        await webhooks.test(self.world.context, self.member.party, self.endpoint.id)


async def listen(world: World, member: Member, url: str, kinds: Sequence[str] | None = None) -> Ear:
    made = await webhooks.create(world.context, member.party, url, kinds, anywhere=True)
    return Ear(world, member, made.endpoint, made.secret)


def poster(**more: Any) -> Poster:
    return Poster(anywhere=True, **more)


async def deliver(world: World) -> int:
    return await webhooks.deliver(world.context, poster())


async def told(context: Context) -> list[tuple[str, Event]]:
    """Every event on file with whose it is, oldest first."""
    query = """SELECT p.id, e.body FROM webhook_event e JOIN party p ON p.no = e.party_no
        ORDER BY (SELECT min(d.no) FROM webhook_delivery d WHERE d.event_id = e.id)"""
    async with context.database.read() as connection:
        return [(row.id, json.loads(row.body)) for row in await connection.execute(text(query))]


def signed(secret: bytes, request: Request, at: datetime) -> bool:
    """Whether a request that was sent at a time carries a signature by a secret, as the reference library makes it."""
    stamp = request.headers["webhook-timestamp"]
    assert stamp == str(int(at.timestamp()))
    content = f"{request.headers['webhook-id']}.{stamp}.".encode() + request.body
    mark = f"v1,{base64.b64encode(hmac_data(secret, content)).decode()}"
    return mark in request.headers["webhook-signature"].split(" ")
