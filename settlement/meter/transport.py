"""httpx2 transports: the meter for whoever calls model servers by an SDK, on either side of the counter.

    MeteringTransport    a provider that serves by calling another model server: each call is held, counted, recorded
    ObservingTransport   a consumer: what was seen of each answer is compared with what it is charged for

Both ask for answers that are not compressed, and pass every byte on as it comes. An SDK stops reading at the end it
knows, so what is left to do is done when the response is closed, not behind its last byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx2

from settlement.core.errors import Unavailable
from settlement.meter.asgi import STREAMS, coding_of, interface_of, read_limit
from settlement.meter.calls import Asked, Call, Ending, Meter, Ticks
from settlement.meter.estimates import TOKENS_PER_KILOBYTE
from settlement.meter.exchanges import parse_json
from settlement.meter.plausibility import Observed, implausible
from settlement.meter.proxy import CODED, READABLE
from settlement.meter.watching import Events, Watch


class MeteringTransport(httpx2.AsyncBaseTransport):
    """Meters each call that goes through `inner`. `consumer_key` says who pays for a request."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, meter: Meter, consumer_key: Callable[[httpx2.Request], str]
    ) -> None:
        self._inner = inner
        self._meter = meter
        self._consumer_key = consumer_key

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Admit, send, count. Raises HoldRefused when there is no money, and what `inner` raises."""
        interface = interface_of(request.url.path) if request.method == "POST" else None
        if interface is None:
            return await self._inner.handle_async_request(request)
        body = await request.aread()
        request.headers["accept-encoding"] = "identity"  # what is coded can't be counted
        document = _object(body)
        call = await self._meter.admit(
            Asked(
                consumer_key=self._consumer_key(request),
                model=str(document.get("model", "")),
                operation=interface["operation"],
                streamed=document.get("stream") is True,
                document=document,
                digest=f"sha256:{sha256(body).hexdigest()}",
                limit=read_limit(document),
                without_output=interface.get("without_output", False),
            )
        )
        try:
            response = _plain(await self._inner.handle_async_request(request))
        except BaseException:
            await call.end("failed")
            raise
        _describe(call.watch, response)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Metered(response.stream, call),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close what is inside."""
        await self._inner.aclose()


class _Metered(httpx2.AsyncByteStream):
    def __init__(self, inner: Any, call: Call) -> None:
        self._inner = inner
        self._call = call
        self._ending: Ending = "cancelled"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._inner:
                await self._call.begun()
                for event in self._call.watch.feed(data):
                    if not await self._call.passing():
                        self._ending = "stopped"
                        raise Unavailable("balance_ended", "the balance ends here")
                    if event.done:
                        await self._end("ended")  # the SDK stops reading here: the record comes first
                    yield event.raw
            for event in self._call.watch.finish():
                yield event.raw
            self._ending = "ended"
        except httpx2.HTTPError:
            self._ending = "failed"
            raise
        finally:
            await self._end(self._ending)

    async def _end(self, ending: Ending) -> None:
        await self._call.end(ending)

    async def aclose(self) -> None:
        await self._inner.aclose()
        await self._end(self._ending)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a consumer knows after a call: what it saw, what it is charged for, and what of that can't be.

    `charge` is the provider's `event: cost` or the headers' figures; None when it stated none.
    """

    observed: Observed
    charge: Mapping[str, Any] | None
    digest: str
    flags: tuple[str, ...]


class ObservingTransport(httpx2.AsyncBaseTransport):
    """Gives `tell` a verdict on each metered call, when its response is closed. It never changes an answer."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, tell: Callable[[Verdict], None], ticks: Ticks) -> None:
        self._inner = inner
        self._tell = tell
        self._ticks = ticks

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and watch."""
        interface = interface_of(request.url.path) if request.method == "POST" else None
        if interface is None:
            return await self._inner.handle_async_request(request)
        document = _object(await request.aread())
        request.headers["accept-encoding"] = "identity"  # what is coded can't be looked into
        started = self._ticks()
        response = _plain(await self._inner.handle_async_request(request))
        watch = Watch(operation=interface["operation"], without_output=interface.get("without_output", False))
        _describe(watch, response)

        def told(charge: Mapping[str, Any] | None) -> None:
            observed = Observed(
                text_bytes=watch.text.size,
                pieces=watch.text.pieces,
                estimate=watch.text.tokens(TOKENS_PER_KILOBYTE),
                milliseconds=(self._ticks() - started) // 1_000_000,
                limit=read_limit(document),
                has_text=not watch.without_output,
            )
            meters = charge["meters"] if charge else {"output_tokens": watch.stated}
            self._tell(Verdict(observed, charge, watch.digest, implausible(meters, observed)))

        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Observed(response.stream, watch, told),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close what is inside."""
        await self._inner.aclose()


class _Observed(httpx2.AsyncByteStream):
    def __init__(self, inner: Any, watch: Watch, told: Callable[[Mapping[str, Any] | None], None]) -> None:
        self._inner = inner
        self._watch = watch
        self._told: Callable[[Mapping[str, Any] | None], None] | None = told
        self._events = Events()
        self._charge: Mapping[str, Any] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._inner:
            self._watch.feed(data)
            if self._watch.streamed:
                for _, kind, content in self._events.cut(data):
                    if kind == "cost":
                        self._charge = _object(content)
            yield data

    async def aclose(self) -> None:
        # The charge comes behind the end that an SDK reads to, so it is fetched here, if it is there.
        if self._watch.streamed and self._watch.ended and self._charge is None:
            async for _ in self:
                pass
        await self._inner.aclose()
        told, self._told = self._told, None
        if told is not None:
            self._watch.finish()
            told(self._charge)


class _Decoded(httpx2.AsyncByteStream):
    """The bytes of an answer without the coding that its server used all the same."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._response.aiter_bytes():
            yield data

    async def aclose(self) -> None:
        await self._response.aclose()


def _plain(response: httpx2.Response) -> httpx2.Response:
    if coding_of(response.headers) not in READABLE:
        return response
    headers = [pair for pair in response.headers.raw if pair[0].lower() not in CODED]
    return httpx2.Response(
        response.status_code, headers=headers, stream=_Decoded(response), extensions=response.extensions
    )


def _describe(watch: Watch, response: httpx2.Response) -> None:
    kind = response.headers.get("content-type", "").split(";")[0].strip()
    watch.status = response.status_code
    watch.headers = {name.lower(): value for name, value in response.headers.items()}
    watch.streamed = kind in STREAMS and response.status_code < 400
    watch.lines = watch.streamed and kind != STREAMS[0]


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = parse_json(body)
    except ValueError:
        return {}
    return document if isinstance(document, Mapping) else {}
