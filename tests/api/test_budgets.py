"""Budgets over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.people import Street, problem
from tests.api.test_holds import open_desk

pytestmark = [pytest.mark.anyio, pytest.mark.database]

LIMITS = {"name": "research", "per_day": "1", "models": ["gpt-5"], "alert_at": [80, 50]}


async def test_a_key_with_a_budget_reserves_no_more_than_it(street: Street) -> None:
    desk = await open_desk(street)
    made = await street.client.post("/v1/budgets", json=LIMITS, headers=desk.consumer.auth)
    assert (made.status_code, made.json()["alert_at"]) == (201, [50, 80])
    document = {"scopes": ["spend"], "name": "chat", "budget": made.json()["id"]}
    key = await street.client.post("/v1/api-keys", json=document, headers=desk.consumer.auth)
    assert key.status_code == 201, key.text
    desk.spending = key.json()["api_key"]
    await desk.place()
    found = problem(await desk.post("/v1/holds", desk.body(output_tokens=256)), 402, "budget_exceeded")
    assert found["missing"] == "0.779446"
    (shown,) = (await street.client.get("/v1/budgets", headers=desk.consumer.auth)).json()["data"]
    assert (shown["used_today"], shown["used_this_month"]) == ("0.889723", "0.889723")
    assert (shown["alert_today"], shown["alert_this_month"]) == (80, 0)
    keys = (await street.client.get("/v1/api-keys", headers=desk.consumer.auth)).json()["data"]
    assert sorted(each["name"] for each in keys) == ["", "", "chat"]


async def test_limits_are_replaced(street: Street) -> None:
    desk = await open_desk(street)
    made = (await street.client.post("/v1/budgets", json=LIMITS, headers=desk.consumer.auth)).json()
    path = f"/v1/budgets/{made['id']}"
    changed = await street.client.put(path, json={"name": "more"}, headers=desk.consumer.auth)
    assert (changed.json()["name"], changed.json()["per_day"], changed.json()["models"]) == ("more", None, None)


async def test_what_is_no_budget_is_refused(street: Street) -> None:
    desk = await open_desk(street)
    wrong: dict[str, dict[str, Any]] = {
        "/name": {"name": "a\u202eb"},
        "/per_day": {"per_day": "-1"},
        "/per_month": {"per_month": "01"},
        "/alert_at/0": {"alert_at": [0]},
        "/more": {"more": 1},
    }
    for pointer, change in wrong.items():
        answer = await street.client.post("/v1/budgets", json={**LIMITS, **change}, headers=desk.consumer.auth)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    answer = await street.client.post("/v1/budgets", json={**LIMITS, "parent": "bud_x"}, headers=desk.consumer.auth)
    problem(answer, 404, "unknown_budget")
    answer = await street.client.post("/v1/budgets", json=LIMITS, headers=desk.provider.auth)
    problem(answer, 403, "consumers_only")
    reading = {"scopes": ["read"], "budget": "bud_x"}
    answer = await street.client.post("/v1/api-keys", json=reading, headers=desk.consumer.auth)
    assert problem(answer, 422, "document_malformed")["errors"][0]["pointer"] == "/budget"
