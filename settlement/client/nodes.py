"""Asking a chain's node over HTTP with the standard library: JSON in, JSON out, capped, without redirects."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 20
MOST = 4 << 20
"""The most bytes that are read of an answer."""

Answer = dict[str, Any]


class Unanswered(Exception):
    """The node gave no answer, or none that can be used. It says nothing about the chain."""


class Ask(Protocol):
    """A node that can be asked. Raises Unanswered."""

    def post(self, path: str, document: Mapping[str, Any], missing: Collection[int] = ()) -> Answer | None:
        """The answer to a document; None for a status in `missing`."""

    def get(self, path: str, missing: Collection[int] = ()) -> Answer | None:
        """The document at a path; None for a status in `missing`."""


class HttpNode:
    """A node at a URL. Every question is a connection of its own: a verifier asks few."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise Unanswered(f"{url!r} is no http or https URL of a node")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/")
        self._query = f"?{parts.query}" if parts.query else ""

    def post(self, path: str, document: Mapping[str, Any], missing: Collection[int] = ()) -> Answer | None:
        return self._ask("POST", path, json.dumps(document).encode(), missing)

    def get(self, path: str, missing: Collection[int] = ()) -> Answer | None:
        return self._ask("GET", path, None, missing)

    def _ask(self, method: str, path: str, body: bytes | None, missing: Collection[int]) -> Answer | None:
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=TIMEOUT_SECONDS)
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            connection.request(method, f"{self._path}{path}{self._query}" or "/", body, headers)
            response = connection.getresponse()
            if response.status in missing:
                return None
            text = response.read(MOST + 1)
        except (OSError, HTTPException) as error:
            raise Unanswered(f"the node at {self._host} does not answer: {error}") from None
        finally:
            connection.close()
        if response.status != 200 or len(text) > MOST:
            raise Unanswered(f"the node at {self._host} answers {response.status} with {len(text)} bytes")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise Unanswered(f"the node at {self._host} does not answer in JSON") from None
        if not isinstance(found, dict):
            raise Unanswered(f"the node at {self._host} does not answer with an object")
        return found
