"""Asking a node: JSON or nothing, and whatever goes wrong is no answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from settlement.client.nodes import MOST, HttpNode, Unanswered

pytestmark = pytest.mark.network

Reply = tuple[int, bytes]
Respond = Callable[[str, str, dict[str, Any]], Reply]


@contextmanager
def node(respond: Respond) -> Iterator[str]:
    """A node on this machine: `respond` is given method, path and the JSON that was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.reply("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_GET(self) -> None:
            self.reply("GET", {})

        def reply(self, method: str, sent: dict[str, Any]) -> None:
            status, body = respond(method, self.path, sent)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_questions_arrive_and_answers_come_back() -> None:
    def respond(method: str, path: str, sent: dict[str, Any]) -> Reply:
        return 200, json.dumps({"method": method, "path": path, "sent": sent}).encode()

    with node(respond) as url:
        asked = HttpNode(f"{url}/rpc/?key=1")
        assert asked.post("", {"a": 1}) == {"method": "POST", "path": "/rpc?key=1", "sent": {"a": 1}}
        assert asked.get("/transactions/ff") == {"method": "GET", "path": "/rpc/transactions/ff?key=1", "sent": {}}


@pytest.mark.parametrize(
    ("status", "body"), [(500, b"{}"), (302, b"{}"), (200, b"<html>"), (200, b"[]"), (200, b"1" * (MOST + 1))]
)
def test_anything_but_a_json_object_is_no_answer(status: int, body: bytes) -> None:
    with node(lambda *_: (status, body)) as url, pytest.raises(Unanswered):
        HttpNode(url).get("/x")


def test_a_status_that_means_missing_is_none() -> None:
    with node(lambda *_: (404, b"")) as url:
        assert HttpNode(url).get("/x", missing={404}) is None


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1", "http://", "file:///etc/passwd", "http://u:p@127.0.0.1"])
def test_what_is_no_nodes_url_is_refused(url: str) -> None:
    with pytest.raises(Unanswered):
        HttpNode(url)


def test_a_node_that_is_not_there_is_no_answer() -> None:
    with node(lambda *_: (200, b"{}")) as url:
        pass
    with pytest.raises(Unanswered):
        HttpNode(url).get("/x")
