"""Hot routes stand in front of the framework, and behind a guard of their own."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, cast

import pytest
from httpx2 import ASGITransport, AsyncClient

from settlement.api.guard import Guard
from settlement.api.hot import Application, Arriving, HotRoute, Reply
from settlement.api.traffic import Traffic
from settlement.core.errors import Conflict
from settlement.services.context import Context


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
