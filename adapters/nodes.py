"""The nodes of one network, asked over HTTP: what every adapter with a real network behind it needs, once.

A list of nodes in order, one pooled client for all of them. A request has time limits, is repeated a few times with
jitter, and its answer is counted while it streams, unpacked included; it is JSON without NaN, without equal keys and
without depth, or it is no answer. A node that keeps failing is passed over for a while, but never when there is no
other. A node is asked which network it belongs to before anything else is believed, and again after each failure.

Whatever goes wrong here says nothing about what a request has done: the caller looks final state up.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx2

from settlement.chain import (
    ChainError,
    Condition,
    Contested,
    Expired,
    Gap,
    Ledger,
    NodeCondition,
    Outcome,
    Pending,
    Unreachable,
    WrongNetwork,
)
from settlement.core.ids import Clock, Entropy

CONNECT_SECONDS, READ_SECONDS, ANSWER_SECONDS = 3, 10, 30
"""Limits of one request: to connect, for each read, and for the whole answer, however it trickles."""

MOST_BYTES = 16 << 20
"""The largest answer that is read, before and after unpacking."""

MOST_DEPTH = 64
TRIES = 3
SHUT_AFTER, SHUT_FOR = 3, timedelta(seconds=30)
"""So many failures in a row, and a node is passed over for so long."""

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRUCTURE = re.compile(rb"[][{}]")

T = TypeVar("T")


class NoAnswer(Unreachable):
    """One node gave no answer that can be used. `lasting`: asking the same again would not help."""

    def __init__(self, detail: str, *, lasting: bool = False) -> None:
        super().__init__(detail)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer: its status and its JSON value (numbers with a point are Decimals)."""

    status: int
    value: Any


class Node:
    """One node. Not made by itself: see `Nodes`."""

    def __init__(self, url: str, owner: Nodes) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a node's URL begins with http:// or https:// and names a host")
        self.url = url
        self.name = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        """Host and port: what may be logged; the URL may hold a token."""
        self.failures = 0
        self.shut_until: datetime | None = None
        self.identified = False
        self._owner = owner
        self._count = 0

    def is_shut(self, now: datetime) -> bool:
        """Whether it has failed so often lately that the others are asked before it."""
        return self.shut_until is not None and now < self.shut_until

    async def post(self, body: Any, *, path: str = "") -> Reply:
        """POST a JSON body. Raises NoAnswer."""
        return await self._owner.exchange(self, "POST", path, body, (200,))

    async def get(self, path: str, *, accept: Sequence[int] = (200,)) -> Reply:
        """GET a path (with its query) below the node's URL; statuses in `accept` are answers. Raises NoAnswer."""
        return await self._owner.exchange(self, "GET", path, None, accept)

    async def form(self, path: str, fields: dict[str, str], *, accept: Sequence[int] = (200,)) -> Reply:
        """POST a form. Raises NoAnswer."""
        return await self._owner.exchange(self, "POST", path, fields, accept, form=True)

    async def rpc(self, request: dict[str, Any], *, echoes: bool) -> dict[str, Any]:
        """POST a JSON-RPC request with an id of its own. `echoes`: whether an answer without that id is refused.

        Returns the whole answer object. Raises NoAnswer, also for the answer to another request.
        """
        self._count += 1
        reply = await self.post({**request, "id": self._count})
        if not isinstance(reply.value, dict):
            raise NoAnswer(f"{self.name} answered with something that is no object")
        if (echoes or "id" in reply.value) and reply.value.get("id") != self._count:
            raise NoAnswer(f"{self.name} answered another request than the one that was made")
        return reply.value


class Nodes:
    """The configured nodes of one network, in order of preference."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        network: str,
        identify: Callable[[Node], Awaitable[str]],
        clock: Clock,
        entropy: Entropy,
        tries: int = TRIES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`identify` asks a node for its network; it must be `network`. Raises ValueError for a URL that is none."""
        if not urls or len(set(urls)) < len(urls):
            raise ValueError("at least one node is needed, and none twice")
        self.all = tuple(Node(url, self) for url in urls)
        self._network = network
        self._identify = identify
        self._clock = clock
        self._entropy = entropy
        self._tries = tries
        self._most_bytes = most_bytes
        self._client: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def first(self, ask: Callable[[Node], Awaitable[T]], *, tries: int | None = None) -> T:
        """The answer of the first node that has one; everything that `ask` does, it does on one node, and all of it
        again, up to `tries` times, when a request of it failed in a way that may pass.

        A node whose history has a gap is passed over like one that is silent. Raises Gap when a gap was all that was
        found, WrongNetwork when every node that answered belongs to another one, else Unreachable.
        """
        refusals: list[ChainError] = []
        for node in self._in_turn():
            try:
                return await self._ask(node, ask, tries or self._tries)
            except (Unreachable, Gap) as refusal:
                refusals.append(refusal)
        raise _together(refusals)

    async def each(self, ask: Callable[[Node], Awaitable[T]]) -> list[T]:
        """The answers of all nodes that have one, in order. Raises as `first` does when there is none."""
        found = await self.survey(ask)
        answers = [answer for _, answer in found if not isinstance(answer, ChainError)]
        if not answers:
            raise _together([refusal for _, refusal in found if isinstance(refusal, ChainError)])
        return answers

    async def survey(self, ask: Callable[[Node], Awaitable[T]]) -> list[tuple[Node, T | ChainError]]:
        """What every node answers, or why it doesn't."""
        found: list[tuple[Node, T | ChainError]] = []
        for node in self._in_turn():
            try:
                found.append((node, await self._ask(node, ask, self._tries)))
            except (Unreachable, Gap) as refusal:
                found.append((node, refusal))
        return found

    async def condition(self, look: Callable[[Node], Awaitable[tuple[Ledger, Mapping[str, bool]]]]) -> Condition:
        """Each node's newest final ledger, and rules as the first that answers says. Never raises."""
        found = []
        rules: Mapping[str, bool] = {}
        for node, answer in await self.survey(look):
            if isinstance(answer, ChainError):
                found.append(NodeCondition(node.name, None, str(answer)))
            else:
                tip, said = answer
                found.append(NodeCondition(node.name, tip))
                rules = rules or said
        return Condition(tuple(found), rules)

    async def agreed(self, judge: Callable[[Node], Awaitable[Outcome]], agreement: int) -> Outcome:
        """What the first node that answers says of an attempt; that it is dead, or its slot lost, only when as many
        nodes say so. One that has found it decides. Raises as `first` does."""
        found = await self.first(judge)
        if agreement < 2 or not isinstance(found, (Expired, Contested)):
            return found
        answers = await self.each(judge)
        for answer in answers:
            if not isinstance(answer, (Pending, Expired, Contested)):
                return answer
        alike = [answer for answer in answers if isinstance(answer, type(found))]
        return found if len(alike) >= agreement else Pending()

    def _in_turn(self) -> list[Node]:
        now = self._clock()
        return sorted(self.all, key=lambda node: node.is_shut(now))

    async def _ask(self, node: Node, ask: Callable[[Node], Awaitable[T]], tries: int) -> T:
        left = 1 if node.is_shut(self._clock()) else tries
        while True:
            left -= 1
            try:
                return await self._ask_once(node, ask)
            except NoAnswer as failure:
                if failure.lasting or not left:
                    raise
            await asyncio.sleep(self._jitter().total_seconds())

    async def _ask_once(self, node: Node, ask: Callable[[Node], Awaitable[T]]) -> T:
        if not node.identified:
            network = await self._identify(node)
            if network != self._network:
                raise WrongNetwork(f"{node.name} belongs to {network}, configured is {self._network}")
            node.identified = True
        found = await ask(node)
        node.failures, node.shut_until = 0, None
        return found

    # --- one request ----------------------------------------------------------------------------------------------

    async def exchange(
        self,
        node: Node,
        method: str,
        path: str,
        body: Any,
        accept: Sequence[int],
        *,
        form: bool = False,
    ) -> Reply:
        """One request, once. Raises NoAnswer."""
        try:
            return await self._once(node, method, path, body, accept, form)
        except NoAnswer:
            self._failed(node)
            raise

    def _failed(self, node: Node) -> None:
        """After a failure the node may be another one behind the same name: it has to say anew who it is."""
        node.identified = False
        node.failures += 1
        if node.failures >= SHUT_AFTER:
            node.shut_until = self._clock() + SHUT_FOR

    def _jitter(self) -> timedelta:
        return timedelta(milliseconds=50 + int.from_bytes(self._entropy(2), "big") % 200)

    async def _once(self, node: Node, method: str, path: str, body: Any, accept: Sequence[int], form: bool) -> Reply:
        request = self._http().build_request(
            method,
            f"{node.url.rstrip('/')}{path}" if path else node.url,
            json=None if form else body,
            data=body if form else None,
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._http().send(request, stream=True)
                try:
                    if response.status_code not in accept:
                        lasting = response.status_code not in _BUSY
                        raise NoAnswer(f"{node.name} answered with status {response.status_code}", lasting=lasting)
                    raw = await self._read(node, response)
                finally:
                    await response.aclose()
        except (httpx2.HTTPError, httpx2.StreamError, TimeoutError, OSError) as error:
            raise NoAnswer(f"{node.name}: {type(error).__name__}") from None
        return Reply(response.status_code, parsed(raw, node.name))

    async def _read(self, node: Node, response: httpx2.Response) -> bytes:
        """The body, unpacked, counted on both sides of the unpacking."""
        packing = response.headers.get("content-encoding", "identity").lower()
        if packing not in ("identity", "gzip"):
            raise NoAnswer(f"{node.name} answered in an encoding that was not asked for", lasting=True)
        unpack = zlib.decompressobj(wbits=31) if packing == "gzip" else None
        body = bytearray()
        async for piece in response.aiter_raw():
            if unpack is None:
                body += piece
            else:
                try:
                    body += unpack.decompress(piece, self._most_bytes + 1 - len(body))
                except zlib.error:
                    raise NoAnswer(f"{node.name} answered with broken gzip") from None
            if len(body) > self._most_bytes:
                raise NoAnswer(f"{node.name} answered with more than {self._most_bytes} bytes", lasting=True)
        if unpack is not None and not unpack.eof:
            raise NoAnswer(f"{node.name} answered with broken gzip")
        return bytes(body)

    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
                headers={"accept": "application/json", "accept-encoding": "gzip"},
                follow_redirects=False,
                trust_env=False,
            )
        return self._client


def parsed(raw: bytes, name: str) -> Any:
    """The value of a node's JSON. Raises NoAnswer for what isn't strict JSON, or is too deep."""
    depth = 0
    for bracket in _STRUCTURE.findall(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MOST_DEPTH:
            raise NoAnswer(f"{name} answered with JSON deeper than {MOST_DEPTH} levels", lasting=True)
    try:
        return json.loads(raw, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise NoAnswer(f"{name} answered with something that is no strict JSON") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("equal keys")
    return found


def _together(refusals: list[ChainError]) -> ChainError:
    """What the nodes' refusals say together."""
    gap = next((each for each in refusals if isinstance(each, Gap)), None)
    if gap is not None:
        return gap
    said = "; ".join(str(each) for each in refusals)
    if all(isinstance(each, WrongNetwork) for each in refusals):
        return WrongNetwork(said)
    return Unreachable(said)
