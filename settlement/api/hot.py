"""Hot routes: answered in front of the framework, whose stack costs more than they do (decision 18).

Holds and usage reports are the service's traffic. They have a guard of their own, the same as all other routes; the
OpenAPI document describes them by the framework's routes of the same paths, which call the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from settlement.services.context import Context


class Arriving:
    """A request at a hot route: the parameters of its path, its headers as they came, its body when asked for."""

    __slots__ = ("_receive", "context", "headers", "path_params")

    def __init__(
        self, context: Context, headers: Sequence[tuple[bytes, bytes]], path_params: Mapping[str, str], receive: Receive
    ) -> None:
        self.context = context
        self.headers = headers
        self.path_params = path_params
        self._receive = receive

    def values(self, name: bytes) -> list[str]:
        """The values of every header of a name, which is in lower case as all are that ASGI hands over."""
        return [value.decode("latin-1") for found, value in self.headers if found == name]

    async def body(self) -> bytes:
        """All of the body. Raises ClientDisconnect when the caller goes away before its end."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)


@dataclass(slots=True)
class Reply:
    """A JSON answer, in bytes; `replayed` when the request had been carried out before."""

    body: bytes
    status: int = 200
    replayed: bool = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As ASGI takes them."""
        found = [(b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json")]
        return [*found, (b"idempotency-replayed", b"true")] if self.replayed else found


Receiving = Callable[[Arriving], Awaitable[Reply]]
Wrapping = Callable[[ASGIApp], ASGIApp]


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A POST to a path; the groups of `path` are the request's path parameters."""

    path: re.Pattern[str]
    receive: Receiving


class Application(FastAPI):
    """FastAPI behind hot routes. `guarded` puts the guard around what it is given."""

    def __init__(self, context: Context, *, hot: Sequence[HotRoute], guarded: Wrapping, **options: Any) -> None:
        super().__init__(**options)
        self._hot = [(route.path, guarded(_answering(context, route.receive))) for route in hot]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route, or hand on."""
        if scope["type"] == "http" and scope["method"] == "POST":
            for path, answer in self._hot:
                found = path.fullmatch(scope["path"])
                if found is not None:
                    scope["path_params"] = found.groupdict()
                    await answer(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


async def as_described(context: Context, request: Request, act: Receiving) -> Response:
    """What a hot route answers, on the way through the framework."""
    body = await request.body()  # which the framework may have read

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    reply = await act(Arriving(context, request.scope["headers"], request.path_params, receive))
    headers = {name.decode(): value.decode() for name, value in reply.headers()}
    return Response(reply.body, reply.status, headers)


def _answering(context: Context, act: Receiving) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        reply = await act(Arriving(context, scope["headers"], scope["path_params"], receive))
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers()})
        await send({"type": "http.response.body", "body": reply.body})

    return answer
