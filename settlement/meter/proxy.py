"""A reverse proxy for any model server that speaks HTTP: the forwarder, to be wrapped in `MeterMiddleware`.

Bytes go on as they come. The consumer's key stays here; the model server gets its own, when one is configured.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from settlement.meter.asgi import App, MeterMiddleware, Receive, Scope, Send, coding_of, refuse
from settlement.meter.calls import Meter

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade host".split()
)
CODED = frozenset({b"content-encoding", b"content-length"})
READABLE = frozenset({"gzip", "deflate"})
"""Codings of an answer that are undone here, where a model server uses one that nobody asked for."""
CONNECT_SECONDS, READ_SECONDS = 10.0, 600.0
"""How long the model server may take to accept a connection, and to say the next byte."""


class Forwarder:
    """An ASGI application that answers with what `upstream` answers. `headers` are added to each request."""

    def __init__(self, upstream: httpx2.AsyncClient, headers: Mapping[str, str] | None = None) -> None:
        self._upstream = upstream
        self._headers = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            return
        forwarded = self._forwarded(scope)
        asked = any(name.lower() == b"accept-encoding" for name, _ in forwarded)
        try:
            async with self._upstream.stream(
                scope["method"],
                _target(scope),
                # The client of ours would ask for codings by itself, and what is coded can't be counted.
                headers=forwarded if asked else [*forwarded, (b"accept-encoding", b"identity")],
                content=await _body(receive),
            ) as response:
                decoded = not asked and coding_of(response.headers) in READABLE
                left_out = HOP_BY_HOP | CODED if decoded else HOP_BY_HOP
                headers = [
                    (name.lower(), value) for name, value in response.headers.raw if name.lower() not in left_out
                ]
                await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
                async for data in response.aiter_bytes() if decoded else response.aiter_raw():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            await refuse(send, 502, "upstream_unreachable", "the model server does not answer; nothing was charged")

    def _forwarded(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        kept = [
            (name, value)
            for name, value in scope["headers"]
            if name.lower() not in HOP_BY_HOP and name.lower() not in self._headers
        ]
        return [*kept, *self._headers.items()]


def upstream_client(url: str) -> httpx2.AsyncClient:
    """A client for the model server at `url`, with our time limits and without any of the environment's proxies."""
    return httpx2.AsyncClient(
        base_url=url.rstrip("/"),
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        trust_env=False,
    )


def metered_proxy(meter: Meter, upstream: httpx2.AsyncClient, headers: Mapping[str, str] | None = None) -> App:
    """The ASGI application of `settlement meter proxy`."""
    return MeterMiddleware(Forwarder(upstream, headers), meter)


def _target(scope: Scope) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    path = scope.get("raw_path", scope["path"].encode()).split(b"?")[0].decode("latin-1")
    return f"{path}?{query}" if query else str(path)


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)
