"""Hot routes stand in front of the framework, and behind a guard of their own."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any, cast

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from starlette.types import Receive, Scope, Send

from settlement.api.guard import Guard
from settlement.api.hot import Application, Arriving, HotRoute, Reply
from settlement.api.traffic import Traffic
from settlement.core.errors import Conflict
from settlement.services.context import Context
from tests.api.people import Street
from tests.api.test_holds import open_desk


async def _name(arriving: Arriving) -> Reply:
    name = arriving.path_params["name"]
    if name == "taken":
        raise Conflict("hold_conflict", "it is taken")
    if name == "broken":
        raise RuntimeError("secret")
    return Reply(f"{name} {len(await arriving.body())}".encode(), 201)


def _client(traffic: Traffic) -> AsyncClient:
    hot = HotRoute(re.compile("/things/(?P<name>[a-z]+)"), _name)
    guarded = partial(Guard, entropy=bytes, traffic=traffic, body_caps={})
    no_context = cast(Context, None)  # nothing here has a use for one
    app = Application(no_context, hot=[hot], guarded=guarded, openapi_url=None)

    @app.get("/things/{name}")
    async def look(name: str) -> Any:
        return name

    app.add_middleware(guarded)
    return AsyncClient(transport=ASGITransport(app), base_url="http://api.test")


async def test_a_hot_route_has_its_parameters_and_what_every_answer_carries() -> None:
    traffic = Traffic()
    async with _client(traffic) as client:
        found = await client.post("/things/one", json={})
    assert (found.status_code, found.text) == (201, "one 2")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["x-request-id"] == "00" * 10
    assert list(traffic.answered()) == [("POST", "2xx", 1)]


@pytest.mark.parametrize(
    ("name", "status", "code"), [("taken", 409, "hold_conflict"), ("broken", 500, "internal_error")]
)
async def test_what_it_raises_is_a_problem(name: str, status: int, code: str) -> None:
    async with _client(Traffic()) as client:
        found = await client.post(f"/things/{name}", json={})
    assert (found.status_code, found.json()["code"]) == (status, code)
    assert "secret" not in found.text


async def test_the_guard_comes_first() -> None:
    async with _client(Traffic()) as client:
        found = await client.post("/things/one", content=b"{}", headers={"content-type": "text/plain"})
    assert found.json()["code"] == "unsupported_media_type"


async def test_all_else_is_the_frameworks() -> None:
    async with _client(Traffic()) as client:
        assert (await client.get("/things/one")).json() == "one"
        assert (await client.post("/things/one/more", json={})).status_code == 404
        assert (await client.put("/things/one", json={})).status_code == 405


@pytest.mark.database
async def test_the_described_routes_answer_as_the_hot_ones_do(street: Street, app: FastAPI) -> None:
    """The framework's routes of the same paths are what the OpenAPI document shows: they are no others."""

    async def framework(scope: Scope, receive: Receive, send: Send) -> None:
        await FastAPI.__call__(app, scope, receive, send)

    desk = await open_desk(street)
    consumer, provider = await street.world.consumer(micro=10**9), await street.world.provider()
    report, signature = street.world.report(provider, [street.world.record(consumer)])
    async with AsyncClient(transport=ASGITransport(framework), base_url="http://api.test") as described:
        asked = desk.body()
        keys = {**desk.provider.auth, "X-Consumer-Key": desk.spending}
        headers = {**keys, "content-type": "application/json"}
        placed = await described.post("/v1/holds", content=json.dumps(asked).encode(), headers=headers)
        again = await desk.post("/v1/holds", asked)
        assert (placed.status_code, again.headers["idempotency-replayed"]) == (201, "true")
        assert again.json() == placed.json()
        path = f"/v1/holds/{placed.json()['id']}"
        assert (await described.post(f"{path}/extend", json={"grant": 2}, headers=keys)).json()["grant"] == 2
        assert (await described.post(f"{path}/release", json={}, headers=keys)).json()["state"] == "released"
        headers = {"content-type": "application/json", "x-jws-signature": signature}
        taken = await described.post("/v1/usage-reports", content=report, headers=headers)
        assert (taken.status_code, taken.json()["accepted"]) == (201, 1)
