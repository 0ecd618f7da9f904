"""The first thing a request meets: limits on everything that can be too big, and what every answer carries.

Pure ASGI, so that a body is counted while it streams and nothing is buffered here. It refuses, in this order: a path or
query that is too long (414) or has a NUL (422), too many or too long headers (431), a Content-Encoding (415: nothing is
ever unpacked), a media type other than JSON (415), a body over the cap of its route (413), and one that comes too
slowly (408).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from settlement.api import problems
from settlement.api.deadlines import Deadlines
from settlement.api.traffic import Traffic
from settlement.core.errors import Malformed, SettlementError
from settlement.core.ids import Entropy

MAX_BODY = 64 * 1024
MAX_HEADERS = 32 * 1024
MAX_HEADER_COUNT = 100
MAX_PATH = 1024
MAX_QUERY = 4096
BODY_SECONDS = 60.0
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """ASGI middleware. `body_caps` gives routes by path that may have more than `MAX_BODY` bytes."""

    def __init__(self, app: ASGIApp, *, entropy: Entropy, traffic: Traffic, body_caps: Mapping[str, int]) -> None:
        self._app = app
        self._entropy = entropy
        self._traffic = traffic
        self._caps = dict(body_caps)
        self._deadlines = Deadlines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._entropy(10).hex()
        scope["request_id"] = request_id
        answer = _Answer(send, scope, self._traffic)
        try:
            cap = self._caps.get(scope["path"], MAX_BODY)
            _check_head(scope, cap)
            await self._app(scope, _Counted(receive, cap, self._deadlines), answer)
        except ClientDisconnect:
            return
        except SettlementError as error:
            await self._refuse(problems.response(error, request_id), answer, scope, receive)
        except Exception as error:  # noqa: BLE001 - the last line: whatever it is, the caller gets a problem
            refusal = problems.unexpected(error, request_id, scope["method"], scope["path"][:MAX_PATH])
            await self._refuse(refusal, answer, scope, receive)

    async def _refuse(self, response: ASGIApp, answer: _Answer, scope: Scope, receive: Receive) -> None:
        if not answer.started:
            await response(scope, receive, answer)


class _Answer:
    """`send` with the headers that every answer carries, unless the route has set them."""

    def __init__(self, send: Send, scope: Scope, traffic: Traffic) -> None:
        self._send = send
        self._scope = scope
        self._traffic = traffic
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            given = message.get("headers", [])
            names = {name for name, _ in given}
            more = [header for header in _ALWAYS if header[0] not in names]
            more.append((b"x-request-id", self._scope["request_id"].encode()))
            for name, value in self._scope.get("rate_limit_headers", {}).items():
                more.append((name.lower().encode(), value.encode()))
            message["headers"] = [*given, *more]
            self._traffic.count(self._scope["method"], message["status"])
        await self._send(message)


class _Counted:
    """`receive` that refuses the body as soon as it is too large or too late."""

    def __init__(self, receive: Receive, cap: int, deadlines: Deadlines) -> None:
        self._receive = receive
        self._cap = cap
        self._deadlines = deadlines
        self._seen = 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()  # waits for the peer to go away; that has no deadline
        try:
            message = await self._deadlines.until(self._deadline, self._receive)
        except TimeoutError:
            raise Malformed("request_timeout", f"the body took over {BODY_SECONDS:g} s", status=408) from None
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._cap:
                raise _too_large(self._cap)
            self._complete = not message.get("more_body", False)
        return message


def _check_head(scope: Scope, cap: int) -> None:
    if len(scope.get("raw_path") or scope["path"].encode()) > MAX_PATH or len(scope["query_string"]) > MAX_QUERY:
        raise Malformed("uri_too_long", f"at most {MAX_PATH} bytes of path and {MAX_QUERY} of query", status=414)
    if "\0" in scope["path"] or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
        raise Malformed("request_malformed", "no path and no query has a NUL")
    headers, size = scope["headers"], 0
    encodings, kinds, lengths = [], [], []
    for name, value in headers:  # ASGI hands names over in lower case
        size += len(name) + len(value)
        if name == b"content-type":
            kinds.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"content-encoding":
            encodings.append(value)
    if len(headers) > MAX_HEADER_COUNT or size > MAX_HEADERS:
        detail = f"at most {MAX_HEADER_COUNT} headers and {MAX_HEADERS} bytes of them"
        raise Malformed("headers_too_large", detail, status=431)
    if any(value.strip().lower() not in (b"", b"identity") for value in encodings):
        raise Malformed("unsupported_encoding", "send the body without Content-Encoding", status=415)
    if scope["method"] in _WITH_BODY and not _is_json(kinds):
        raise Malformed("unsupported_media_type", "send Content-Type: application/json in UTF-8", status=415)
    for length in lengths:
        if not length.isdigit() or len(length) > 18 or int(length) > cap:
            raise _too_large(cap)


def _is_json(values: list[bytes]) -> bool:
    if values == [b"application/json"]:
        return True
    if len(values) != 1:
        return False
    kind, *parameters = (part.strip().lower() for part in values[0].split(b";"))
    allowed = (b"", b"charset=utf-8", b'charset="utf-8"')
    return kind == b"application/json" and all(each in allowed for each in parameters)


def _too_large(cap: int) -> Malformed:
    return Malformed("body_too_large", f"this call takes at most {cap} bytes", status=413)
