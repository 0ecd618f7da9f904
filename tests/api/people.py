"""Participants as they meet the service: over HTTP, with a key of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from httpx2 import AsyncClient, Response

from settlement.core import times
from settlement.core.signatures import SigningKey, sign_detached
from tests.world import World

JSON = {"Content-Type": "application/json"}


@dataclass
class Person:
    """A registered participant: its id, its signing key and its API key."""

    id: str
    key: SigningKey
    api_key: str
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}


@dataclass
class Street:
    """The door of the service, and who comes through it."""

    client: AsyncClient
    world: World

    def new_key(self) -> SigningKey:
        return SigningKey(self.world.sources.entropy(32))

    def now(self) -> str:
        return times.text(self.world.sources.clock())

    async def send(
        self,
        method: str,
        path: str,
        document: Any,
        key: SigningKey | None = None,
        headers: dict[str, str] | None = None,
        also: dict[str, SigningKey] | None = None,
    ) -> Response:
        """Send a document, signed by `key`, and by further keys in the headers that `also` names."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        found = {**JSON, **(headers or {})}
        if key is not None:
            found["x-jws-signature"] = sign_detached(key, body)
        for name, other in (also or {}).items():
            found[name] = sign_detached(other, body)
        return await self.client.request(method, path, content=body, headers=found)

    def registration(self, kind: str, key: SigningKey, **more: Any) -> dict[str, Any]:
        return {"purpose": f"register-{kind}", "at": self.now(), "name": kind, "key": key.public.jwk(), **more}

    async def consumer(self) -> Person:
        key = self.new_key()
        answer = await self.send("POST", "/v1/accounts", self.registration("consumer", key), key)
        assert answer.status_code == 201, answer.text
        return Person(answer.json()["id"], key, answer.json()["api_key"], answer.json())

    async def provider(self, also: dict[str, SigningKey] | None = None, **more: Any) -> Person:
        key = self.new_key()
        answer = await self.send("POST", "/v1/providers", self.registration("provider", key, **more), key, also=also)
        assert answer.status_code == 201, answer.text
        return Person(answer.json()["id"], key, answer.json()["api_key"], answer.json())


def problem(answer: Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer that must be one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["code"]) == (status, code), answer.text
    assert found["status"] == status
    assert found["type"] == f"/problems/{code}"
    assert found["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return found
