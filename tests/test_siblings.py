"""Several API processes behind one address: who answers, who may have the address, and what one process's end means."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.test_cli import PROGRAM, environment, running

__all__ = ["environment"]

ASKED = 40
_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.database
@pytest.mark.network
def test_two_processes_answer_at_one_address(environment: dict[str, str]) -> None:
    with running(environment, "serve", "--listen", "127.0.0.1:0", "--no-worker", "--processes", "2") as (first, ready):
        where = urlsplit(ready["url"])
        address = (where.hostname or "", where.port or 0)
        peers = [socket.create_connection(address) for _ in range(ASKED)]
        first.send_signal(signal.SIGSTOP)
        for peer in peers:
            peer.sendall(_HEALTH)
        answered = select.select(peers, [], [], 60)[0]
        assert 0 < len(answered) < ASKED  # the second process answers its share, and nobody else's
        first.send_signal(signal.SIGCONT)
        for peer in peers:
            with peer:
                assert peer.recv(15) == b"HTTP/1.1 200 OK"
        counted = httpx2.get(f"{ready['url']}/metrics").text
        assert f'settlement_http_requests_total{{method="GET",status="2xx"}} {ASKED}\n' in counted
        refused = subprocess.run(
            [PROGRAM, "serve", "--listen", f"{address[0]}:{address[1]}", "--processes", "2"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (refused.returncode, refused.stderr.split(": ")[1]) == (1, "address_unavailable")
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(address)


@contextmanager
def beside() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A first process, and the number of the one that it has started."""
    command = [sys.executable, "-m", "tests.beside"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            second = int(first.stdout.readline())
            assert first.stdout.readline() == "ready\n"
            yield first, second
        finally:
            first.kill()


def test_a_process_that_ends_by_itself_ends_the_service() -> None:
    with beside() as (first, second):
        os.kill(second, signal.SIGKILL)
        assert "process_ended: process 2 ended by itself" in first.communicate(timeout=60)[1]
        assert first.returncode == 1


def test_a_service_that_is_told_to_end_ends_the_processes_that_it_started() -> None:
    with beside() as (first, second):
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
        assert not Path(f"/proc/{second}").exists()


def test_no_process_outlives_the_one_that_started_it() -> None:
    with beside() as (first, second):
        watched = os.pidfd_open(second)
        first.kill()
        assert select.select([watched], [], [], 60)[0]
        os.close(watched)
