"""The guard at the level of ASGI: what it counts, what it adds, what it does when the peer goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from settlement.api import guard
from settlement.api.guard import Guard
from settlement.api.traffic import Traffic
from tests.api.people import Street


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def _call(messages: list[Message], path: str = "/", wait: bool = False, **scope: Any) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages and wait:
            await asyncio.sleep(3600)
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    app = Guard(_echo, entropy=lambda size: b"\7" * size, traffic=Traffic(), body_caps={"/big": 100_000})
    headers = [(b"content-type", b"application/json")]
    base = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await app({**base, **scope}, receive, send)
    return sent


def _chunk(size: int, more: bool) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def test_each_route_has_its_cap() -> None:
    at_cap = await _call([_chunk(65_536, False)])
    assert (at_cap[0]["status"], at_cap[1]["body"]) == (200, b"65536")
    over = [_chunk(60_000, True), _chunk(5_537, True), _chunk(1, False)]
    refused = await _call(over)
    assert refused[0]["status"] == 413
    assert len(over) == 1, "what follows is not read"
    assert (await _call([_chunk(100_000, False)], "/big"))[0]["status"] == 200
    assert (await _call([_chunk(100_001, False)], "/big"))[0]["status"] == 413
    assert (await _call([_chunk(65_537, False)], "/big/"))[0]["status"] == 413


async def test_every_answer_carries_the_headers() -> None:
    headers = dict((await _call([_chunk(0, False)]))[0]["headers"])
    assert headers[b"x-request-id"] == b"07" * 10
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"cache-control"] == b"public", "what a route says stands"


async def test_a_peer_that_goes_away_gets_nothing() -> None:
    assert await _call([_chunk(1, True), {"type": "http.disconnect"}]) == []


async def test_a_body_that_trickles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.02)
    sent = await _call([_chunk(1, True)], wait=True)
    assert sent[0]["status"] == 408


async def test_other_protocols_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing() -> Message:
        raise AssertionError("nobody asks")

    async def nowhere(message: Message) -> None:
        raise AssertionError("nobody answers")

    shell = Guard(app, entropy=bytes, traffic=Traffic(), body_caps={})
    await shell({"type": "lifespan"}, nothing, nowhere)
    assert seen == ["lifespan"]


async def test_a_request_id_is_ours(street: Street) -> None:
    first = await street.client.get("/healthz", headers=[(b"X-Request-Id", b"mine\xe9")])
    second = await street.client.get("/healthz")
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert all(len(each) == 20 and int(each, 16) for each in ids)
