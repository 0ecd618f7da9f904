"""A pytest plugin that shuts the network: unix sockets always, loopback for tests marked `network`, nothing else ever.

It listens to Python's audit events, which every socket of the standard library raises; libpq and child processes are
out of its reach, and the former is given unix sockets only.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

import pytest

_WATCHED = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}
_NAMED = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex"}
_LOCAL_NAMES = {None, "", "localhost", b"localhost"}


class NetworkRefused(Exception):
    """A test opened a socket that it isn't marked for."""


class Guard:
    """What is allowed now: `loopback` is set while a test marked `network` runs."""

    def __init__(self) -> None:
        self.loopback = False
        self.watching = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook. Raises NetworkRefused."""
        if not self.watching:
            return
        if event in _NAMED:
            self._check(event, arguments[0])
        elif event in _WATCHED:
            address = arguments[1]
            if isinstance(address, tuple):  # AF_UNIX has a path here, and a connected socket None
                self._check(event, address[0])

    def _check(self, event: str, host: object) -> None:
        if not (self.loopback and is_local(host)):
            raise NetworkRefused(
                f"{event} {host!r}: tests reach unix sockets, and loopback when marked with pytest.mark.network"
            )


def is_local(host: object) -> bool:
    """Whether a host names this machine without asking anybody."""
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


GUARD = Guard()


def pytest_configure() -> None:
    """An audit hook stays for the life of the process, so there is one, installed once."""
    if not GUARD.watching:
        sys.addaudithook(GUARD)
        GUARD.watching = True


def pytest_unconfigure() -> None:
    """Let go when the session ends."""
    GUARD.watching = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Open loopback for a marked test, its fixtures included, and close it again after."""
    GUARD.loopback = item.get_closest_marker("network") is not None
    try:
        return (yield)
    finally:
        GUARD.loopback = False
