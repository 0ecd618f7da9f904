"""Tests must not depend on, or talk to, anything outside: the guard that holds this is itself tested."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.house.sockets import GUARD, NetworkRefused, is_local


def test_guard_is_in_force() -> None:
    """`tests/conftest.py` names the plugin."""
    assert GUARD.watching


def test_loopback_needs_the_mark() -> None:
    """Without the mark not even this machine is reached."""
    with socket.socket() as made, pytest.raises(NetworkRefused):
        made.bind(("127.0.0.1", 0))
    with pytest.raises(NetworkRefused):
        socket.getaddrinfo("localhost", 80)


@pytest.mark.network
def test_loopback_with_the_mark() -> None:
    """With the mark, a server and a client on this machine meet."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"


@pytest.mark.network
def test_the_rest_of_the_world_is_shut() -> None:
    """The mark opens loopback alone; a name is refused before it is looked up."""
    with socket.socket() as made, pytest.raises(NetworkRefused):
        made.connect(("192.0.2.1", 9))
    with pytest.raises(NetworkRefused):
        socket.getaddrinfo("example.org", 443)
    with socket.socket(socket.AF_INET6) as made, pytest.raises(NetworkRefused):
        made.connect(("2001:db8::1", 9))


def test_unix_sockets_are_open(tmp_path: Path) -> None:
    """The database is reached that way."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        (None, True),
        ("10.0.0.1", False),
        ("localhost.evil", False),
    ],
)
def test_is_local(host: str | None, local: bool) -> None:
    """Loopback addresses and the one name."""
    assert is_local(host) is local
