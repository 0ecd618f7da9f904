"""The meter as ASGI middleware: around a provider's own application, or around the reverse proxy's forwarder.

A metered request is a POST to a path of `interfaces.json`. It carries the consumer's spending key where clients of
that interface put their key. The answer passes through event by event as it comes; the sign of its end is held back
until the call's record is on disk, and behind it comes `event: cost`. When the client leaves, the application is
cancelled and the record is written all the same. Any other POST is refused: nothing is free by accident.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from hashlib import sha256
from typing import Any

from settlement.core.errors import SettlementError
from settlement.meter.calls import Asked, Call, Ended, Ending, Meter, running_cost
from settlement.meter.estimates import INTERFACES
from settlement.meter.exchanges import parse_json
from settlement.meter.forms import is_form, parse_form
from settlement.meter.holds import HoldRefused
from settlement.meter.watching import MAX_BODY, Event, as_comment, as_event, as_stopped

LOG = logging.getLogger("settlement.meter")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

MAX_REQUEST = 64 * 1024 * 1024
"""Bytes of a request's body; pictures come inside of it."""
STREAMS = ("text/event-stream", "application/x-ndjson", "application/jsonl")
TIERS = frozenset({"flex", "priority", "batch"})

_PATHS: Mapping[str, Mapping[str, Any]] = INTERFACES["paths"]
_UNCHARGED: tuple[str, ...] = tuple(INTERFACES["uncharged"])


class Stopped(ConnectionError):
    """Raised into the application when its answer may not go on: it sees a client that has left."""


class Coded(ConnectionError):
    """Raised into the application when its answer is compressed, though nobody asked for it: it can't be counted."""


class MeterMiddleware:
    """ASGI middleware. `app` answers requests that were admitted; `meter` admits and counts them."""

    def __init__(self, app: App, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "websocket":
            await _refuse_socket(scope, send)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or _ends(scope["path"], _UNCHARGED):
            await self._app(scope, receive, send)
            return
        interface = interface_of(scope["path"])
        if interface is None:
            await refuse(send, 404, "path_not_metered", "this path is not metered, so nothing is served under it")
            return
        body = await _read_body(receive)
        if body is None:
            await refuse(send, 413, "body_too_large", f"a request has at most {MAX_REQUEST} bytes")
            return
        try:
            asked, sent, hide_usage = _asked(scope, body, interface)
            if not await self._meter.spool.ready():
                raise SettlementError("spool_failed", "usage can't be written down now, so nothing is served")
            call = await self._meter.admit(asked)
        except HoldRefused as error:
            await refuse(send, error.status, error.code, str(error.document.get("detail")), error.document)
            return
        except SettlementError as error:
            await refuse(send, error.status if error.status < 500 else 503, error.code, error.detail)
            return
        await _Passage(self._app, call, interface, hide_usage=hide_usage).run(scope, sent, receive, send)


class _Passage:
    """One admitted request on its way through the application and back."""

    def __init__(self, app: App, call: Call, interface: Mapping[str, Any], *, hide_usage: bool) -> None:
        self._app = app
        self._call = call
        self._interface = interface
        self._hide_usage = hide_usage
        self._start: Message | None = None
        self._begun = False
        self._last: list[bytes] = []
        self._body = bytearray()
        self._grant = call.hold.grant
        self._whole = False
        self._gone = asyncio.Event()

    async def run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application, and end the call however the application, the client or the balance ends it."""
        inner = asyncio.create_task(self._app(_rewritten(scope, body), self._replay(body), self._sending(send)))
        watching = asyncio.create_task(_disconnected(receive))
        ending: Ending = "cancelled"
        try:
            await asyncio.wait({inner, watching}, return_when=asyncio.FIRST_COMPLETED)
            ending = self._ending(inner)
        finally:
            self._gone.set()
            for task in (inner, watching):
                task.cancel()
            await asyncio.gather(inner, watching, return_exceptions=True)
            # Whatever happens to this request's own task, its record is written.
            finishing = asyncio.create_task(self._finish(ending, send))
            await asyncio.shield(finishing)

    def _ending(self, inner: asyncio.Task[None]) -> Ending:
        if not inner.done():
            return "cancelled"
        error = inner.exception()
        if isinstance(error, Stopped):
            return "stopped"
        if error is not None:
            LOG.warning("the answer of call %s was cut off: %s", self._call.id, type(error).__name__)
            return "failed"
        return "ended" if self._whole else "failed"

    async def _finish(self, ending: Ending, send: Send) -> None:
        for event in self._call.watch.finish():
            self._last.append(event.raw)
        try:
            ended = await self._call.end(ending)
        except SettlementError as error:
            LOG.error("call %s has no record on disk: %s", self._call.id, error)
            if not self._begun:
                await refuse(send, 503, error.code, error.detail)
                return
            raise  # the server cuts the connection: the answer's last byte does not go out
        if ending == "cancelled":
            return
        if self._begun:
            await self._finish_stream(ending, ended, send)
        else:
            await self._finish_whole(ending, ended, send)

    async def _finish_stream(self, ending: Ending, ended: Ended, send: Send) -> None:
        tail = b""
        if ending == "stopped" and self._call.watch.streamed and not self._call.watch.lines:
            tail += as_stopped(self._interface.get("stopped", ()), self._values(ended))
        elif ending == "failed" and self._call.watch.streamed and not self._call.watch.lines:
            problem = {"error": {"message": "the model server cut its answer off", "code": "upstream_cut"}}
            tail += b"data: " + json.dumps(problem, separators=(",", ":")).encode() + b"\n\n"
        else:
            tail += b"".join(self._last)
        if ended.charge is not None and self._call.watch.streamed and not self._call.watch.lines:
            # With its type inside, as clients expect it that go by that member.
            tail += as_event("cost", {"type": "cost", **ended.charge})
        await send({"type": "http.response.body", "body": tail, "more_body": False})

    def _values(self, ended: Ended) -> Mapping[str, Any]:
        """What is known of the answer, for events of ours that end it."""
        watch = self._call.watch
        meters = ended.records[0]["meters"] if ended.records else {}
        given, made = meters.get("input_tokens", 0), meters.get("output_tokens", 0)
        return {
            "id": watch.answer or "",
            "model": watch.model or "",
            "input_tokens": given,
            "output_tokens": made,
            "total_tokens": given + made,
        }

    async def _finish_whole(self, ending: Ending, ended: Ended, send: Send) -> None:
        if self._start is None or ending == "failed":
            await refuse(send, 502, "upstream_failed", "the model server gave no whole answer; nothing was charged")
            return
        headers = [*self._start.get("headers", ()), *_headers(self._call)]
        if ended.charge is not None:
            headers.append((b"x-settlement-cost", ended.charge["amount"].encode()))
            headers.append((b"x-settlement-record", ended.charge["record"].encode()))
            if ended.charge["flags"]:
                headers.append((b"x-settlement-flags", ",".join(ended.charge["flags"]).encode()))
        await send({**self._start, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(self._body), "more_body": False})

    def _replay(self, body: bytes) -> Receive:
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if parts:
                return parts.pop()
            await self._gone.wait()
            return {"type": "http.disconnect"}

        return receive

    def _sending(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._answer(message, send)
            elif message["type"] == "http.response.body":
                await self._pass(message, send)

        return sent

    async def _answer(self, message: Message, send: Send) -> None:
        watch = self._call.watch
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message.get("headers", ())
        }
        kind = headers.get("content-type", "").split(";")[0].strip()
        watch.status, watch.headers = message["status"], headers
        if message["status"] < 400 and coding_of(headers):
            raise Coded(f"the answer is coded as {coding_of(headers)}")
        watch.streamed = kind in STREAMS and message["status"] < 400
        watch.lines = watch.streamed and kind != STREAMS[0]
        self._start = message
        if watch.streamed:
            await self._begin(send)

    async def _begin(self, send: Send) -> None:
        assert self._start is not None
        await self._call.begun()
        self._begun = True
        headers = [pair for pair in self._start.get("headers", ()) if pair[0].lower() != b"content-length"]
        await send({**self._start, "headers": [*headers, *_headers(self._call)]})

    async def _pass(self, message: Message, send: Send) -> None:
        self._whole = not message.get("more_body", False)
        data = message.get("body", b"")
        for event in self._call.watch.feed(data) if data else ():
            await self._event(event, send)

    async def _event(self, event: Event, send: Send) -> None:
        if not self._call.watch.streamed and not self._begun:
            self._body += event.raw
            if len(self._body) <= MAX_BODY:
                return
            await self._begin(send)  # too large to wait for its end: it goes on, one piece behind
            event = Event(bytes(self._body))
            self._body.clear()
        if event.bare_usage and self._hide_usage:
            return
        if not await self._call.passing():
            raise Stopped("the balance ends here")
        if self._last:
            held, self._last = self._last, []
            await send({"type": "http.response.body", "body": b"".join(held), "more_body": True})
        if event.done or not self._call.watch.streamed:
            self._last.append(event.raw)
            return
        raw = event.raw
        if self._call.hold.grant != self._grant:
            self._grant = self._call.hold.grant
            raw += b"" if self._call.watch.lines else as_comment(running_cost(self._call.hold))
        await send({"type": "http.response.body", "body": raw, "more_body": True})


async def refuse(send: Send, status: int, code: str, detail: str, document: Mapping[str, Any] | None = None) -> None:
    """A problem document (RFC 9457) that clients of model servers understand as well: it has a member `error`."""
    problem = {
        **(document or {}),
        "type": (document or {}).get("type", "about:blank"),
        "title": (document or {}).get("title", code.replace("_", " ")),
        "status": status,
        "detail": detail,
        "code": code,
        "error": {"message": detail, "type": "settlement", "code": code, "param": None},
    }
    body = json.dumps(problem).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _refuse_socket(scope: Scope, send: Send) -> None:
    """Nothing that goes over a socket is metered. A server that can answer one by HTTP says so; else it is closed."""
    why = "calls over websockets are not metered, so none is served; use HTTP"
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return

    async def as_denial(message: Message) -> None:
        await send({**message, "type": message["type"].replace("http.", "websocket.http.", 1)})

    await refuse(as_denial, 404, "path_not_metered", why)


def coding_of(headers: Mapping[str, str]) -> str:
    """How an answer is compressed; empty for one that isn't."""
    coding = headers.get("content-encoding", "").strip().lower()
    return "" if coding == "identity" else coding


def interface_of(path: str) -> Mapping[str, Any] | None:
    """What is known of a path's interface; None when it is not metered."""
    return next((_PATHS[each] for each in _PATHS if _ends(path, (each,))), None)


def _ends(path: str, endings: tuple[str, ...]) -> bool:
    return any(path.rstrip("/").endswith(ending) for ending in endings)


def _headers(call: Call) -> list[tuple[bytes, bytes]]:
    hold = call.hold
    return [
        (b"x-settlement-hold", hold.id.encode()),
        (b"x-settlement-held", hold.amount.encode()),
        (b"x-settlement-rates", hold.rates.encode()),
    ]


def _asked(scope: Scope, body: bytes, interface: Mapping[str, Any]) -> tuple[Asked, bytes, bool]:
    """The request as the meter needs it, the body as the application gets it, and whether usage was asked for by us.

    Raises SettlementError ``consumer_key_missing`` or ``document_malformed``.
    """
    key = _consumer_key(scope)
    document, files = _document(scope, body)
    model = document.get("model") if isinstance(document, Mapping) else None
    model = model or _model_in(scope["path"])
    if not isinstance(document, Mapping) or not isinstance(model, str):
        raise _refused(422, "document_malformed", "the body is a JSON object, or a form, with a member model")
    streamed = document.get("stream") is True or scope["path"].endswith(":streamGenerateContent")
    tier = document.get("service_tier")
    asked = Asked(
        consumer_key=key,
        model=model,
        operation=interface["operation"],
        streamed=streamed,
        document=document,
        digest=f"sha256:{sha256(body).hexdigest()}",
        tier=tier if tier in TIERS else "standard",
        limit=read_limit(document),
        without_output=interface.get("without_output", False),
        file_bytes=files,
    )
    options = document.get("stream_options")
    usage_asked = isinstance(options, Mapping) and options.get("include_usage") is True
    if streamed and interface.get("usage_option") and not usage_asked:
        whole = json.loads(body)
        whole["stream_options"] = {**(whole.get("stream_options") or {}), "include_usage": True}
        return asked, json.dumps(whole, ensure_ascii=False).encode(), True
    return asked, body, False


def _document(scope: Scope, body: bytes) -> tuple[Any, int]:
    """The request's document and the bytes of its files; no document for what is none."""
    content_type = b"".join(value for name, value in scope["headers"] if name.lower() == b"content-type")
    try:
        if is_form(content_type.decode("latin-1")):
            return parse_form(content_type.decode("latin-1"), body)
        return parse_json(body), 0
    except ValueError:
        return None, 0


def read_limit(document: Mapping[str, Any]) -> int | None:
    """The most output tokens that a request allows, over all the answers it asks for; None when it states none."""
    found: list[int] = []
    for path in INTERFACES["limits"]:
        value: Any = document
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found.append(value)
    choices = document.get("n")
    return min(found) * (choices if isinstance(choices, int) and 0 < choices <= 1000 else 1) if found else None


def _model_in(path: str) -> str | None:
    """The model of interfaces that name it in the path: ``.../models/<model>:method``."""
    last = path.rsplit("/", 1)[-1]
    return last.split(":")[0] if ":" in last else None


def _consumer_key(scope: Scope) -> str:
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    given = headers.get(b"authorization", "")
    key = given[7:].strip() if given.lower().startswith("bearer ") else ""
    key = key or headers.get(b"x-api-key", "") or headers.get(b"api-key", "") or headers.get(b"x-goog-api-key", "")
    if not key:
        raise _refused(401, "consumer_key_missing", "send your spending key as the API key")
    return key


def _refused(status: int, code: str, detail: str) -> SettlementError:
    error = SettlementError(code, detail)
    error.status = status
    return error


def _rewritten(scope: Scope, body: bytes) -> Scope:
    """The scope for the application: the body's new length, nothing compressed, and not the consumer's key."""
    left_out = (b"content-length", b"accept-encoding", b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in left_out]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % len(body))]}


async def _read_body(receive: Receive) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
