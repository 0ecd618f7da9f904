"""More API processes behind one address, for machines with more than one core.

Each has a socket of its own on the same port, and the kernel spreads connections over them (SO_REUSEPORT). They share
nothing but the database and the counters of `Traffic`: what must happen once is a row or a lock there, never a role of
a process. One that ends by itself ends all, so that whoever supervises the service starts it again whole.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from settlement.core.errors import Unavailable

_spawning = multiprocessing.get_context("spawn")


@contextmanager
def listening_on(host: str, port: int, places: int = 1) -> Iterator[list[socket.socket]]:
    """`places` sockets bound to one address that is free, before anything else is started; port 0 takes a free one.

    Raises Unavailable ``address_unavailable``.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise Unavailable("address_unavailable", f"{host} is no address here: {error.strerror}") from None
    with ExitStack() as closing:
        found: list[socket.socket] = []
        for _ in range(places):
            bound = closing.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if found:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                bound.bind(found[0].getsockname() if found else address)
            except OSError as error:
                raise Unavailable("address_unavailable", f"can't listen on {host}:{port}: {error.strerror}") from None
            if places > 1 and not found:  # only now, or it would share an address that another service has
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            found.append(bound)
        yield found


def url_of(bound: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def siblings(
    stop: asyncio.Event, run: Callable[..., None], places: Sequence[tuple[Any, ...]]
) -> AsyncIterator[None]:
    """For each of `places` a process that calls ``run(*place, ready)``; in the block all have written to `ready`.

    When one ends before `stop` is set, it is set. Behind the block all are told to end, and have ended. Raises
    Unavailable ``process_ended`` for one that ended by itself.
    """
    loop = asyncio.get_running_loop()
    lost: list[str] = []

    def gone(name: str, sentinel: int) -> None:
        loop.remove_reader(sentinel)
        if not stop.is_set():
            lost.append(name)
            stop.set()

    with ExitStack() as closing:
        processes, starting = [], []
        for number, place in enumerate(places, start=2):
            ours, theirs = _spawning.Pipe(duplex=False)
            with theirs:
                process = _spawning.Process(target=run, args=(*place, theirs), name=f"process {number}", daemon=True)
                process.start()
            processes.append(process)
            starting.append(closing.enter_context(ours))
            loop.add_reader(process.sentinel, gone, process.name, process.sentinel)
        try:
            await asyncio.gather(*(asyncio.to_thread(_hear, each) for each in starting))
            yield
        finally:
            for process in processes:
                loop.remove_reader(process.sentinel)
                process.terminate()
            for process in processes:
                await asyncio.to_thread(process.join)
    if lost:
        raise Unavailable("process_ended", f"{lost[0]} ended by itself; all were stopped, so start the service again")


def until_parent_ends(stop: asyncio.Event) -> None:
    """In a process of `siblings`: set `stop` as soon as the process that started it is no more."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that was started by another has a parent to lose"
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(parent.sentinel)
        stop.set()

    loop.add_reader(parent.sentinel, gone)


def _hear(ready: Connection) -> None:
    """Wait for the first word of a process, or for its end."""
    with suppress(EOFError):
        ready.recv_bytes()
