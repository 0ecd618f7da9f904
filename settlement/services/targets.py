"""One POST to an address that a stranger has chosen: nothing inside our own network is reached that way.

The name is looked up here, every address that it has is judged, and the connection goes to one that was judged, so that
a name which changes between look-up and connection gains nothing. No redirect is followed, no proxy of the environment
is asked, and of the answer its status alone is read, within a bound of bytes and time. This is written on sockets,
because everything that an HTTP client does besides would have to be switched off.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from settlement.core import webhooks
from settlement.core.errors import Malformed
from settlement.core.webhooks import Target

SECONDS = 10
"""How long an attempt may take: looking up, connecting, sending and being answered."""
MOST_HEAD = 16_384
"""How many bytes of an answer's head are read; its body never is."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text. Raises OSError."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")
_INTERIM = range(100, 200)


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt ended: the `status` of the answer, if there was one, and `error`, a code, unless it was 2xx."""

    status: int | None
    error: str | None


async def look_up(host: str, port: int) -> Sequence[str]:
    """By the system's resolver, in a thread of its own."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class Poster:
    """Posts to public addresses over TLS; with `anywhere`, an operator's choice, over plain HTTP and to any address."""

    def __init__(
        self,
        *,
        anywhere: bool = False,
        resolve: Resolve = look_up,
        tls: ssl.SSLContext | None = None,
        seconds: int = SECONDS,
    ) -> None:
        self._anywhere = anywhere
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()
        self._seconds = seconds

    async def post(self, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """How one attempt ended. What goes wrong with it is an answer too: nothing is raised."""
        try:
            target = webhooks.target(url, anywhere=self._anywhere)
            async with asyncio.timeout(self._seconds):
                address = await self._address(target)
                if address is None:
                    return Answer(None, "address_refused")
                return await self._exchange(target, address, _request(target, headers, body))
        except Malformed:
            return Answer(None, "address_refused")
        except TimeoutError:
            return Answer(None, "timeout")
        except socket.gaierror:
            return Answer(None, "name_unknown")
        except ssl.SSLError:
            return Answer(None, "tls_failed")
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError, UnicodeError):
            return Answer(None, "answer_malformed")
        except OSError:
            return Answer(None, "connection_failed")

    async def _address(self, target: Target) -> str | None:
        """An address to connect to; None when one of those that the name has is not public."""
        found = await self._resolve(target.host, target.port)
        if not found:
            raise socket.gaierror("no address")
        if not self._anywhere and not all(webhooks.public(ip_address(each)) for each in found):
            return None
        return found[0]

    async def _exchange(self, target: Target, address: str, request: bytes) -> Answer:
        reader, writer = await asyncio.open_connection(
            address,
            target.port,
            ssl=self._tls if target.tls else None,
            server_hostname=target.host if target.tls else None,
            limit=MOST_HEAD,
        )
        try:
            writer.write(request)
            with suppress(ConnectionError):  # it may have answered before it had read everything
                await writer.drain()
            return await _answer(reader)
        finally:
            writer.transport.abort()


def _request(target: Target, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.authority}", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json", "User-Agent: compute-settlement", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _answer(reader: asyncio.StreamReader) -> Answer:
    read = 0
    while read < MOST_HEAD:
        head = await reader.readuntil(b"\r\n\r\n")
        read += len(head)
        match = _STATUS.match(head)
        if match is None:
            break
        status = int(match[1])
        if status not in _INTERIM:
            return Answer(status, None if 200 <= status < 300 else _error(status))
    return Answer(None, "answer_malformed")


def _error(status: int) -> str:
    if status == 410:
        return "gone"
    return "redirected" if 300 <= status < 400 else "refused"
