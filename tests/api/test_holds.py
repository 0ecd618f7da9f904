"""Holds over HTTP: two keys, strict bodies, problem documents, replays."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from httpx2 import Response

from settlement.core.ids import uuid7, uuid_text
from tests.api.people import Person, Street, problem

pytestmark = [pytest.mark.anyio, pytest.mark.database]

SCHEMAS = Path(__file__).parents[2] / "docs/reference/schemas"


def valid(name: str, document: Any) -> Any:
    """The document, which must be one of that schema."""
    jsonschema.validate(document, json.loads((SCHEMAS / name).read_text("utf-8")))
    return document


class Desk:
    """A provider and a consumer with a spending key, at the door."""

    def __init__(self, street: Street, provider: Person, consumer: Person, spending: str) -> None:
        self.street, self.provider, self.consumer, self.spending = street, provider, consumer, spending

    def body(self, **more: Any) -> dict[str, Any]:
        world = self.street.world
        request = uuid_text(uuid7(world.sources.clock(), world.sources.entropy))
        document = {"request": request, "model": "gpt-5", "tier": "standard", "meters": {"input_tokens": 1155}, **more}
        return {name: value for name, value in document.items() if value is not ...}

    async def post(self, path: str, document: Any = None, **headers: str) -> Response:
        sent = {**self.provider.auth, "X-Consumer-Key": self.spending, **headers}
        sent = {name: value for name, value in sent.items() if value}
        return await self.street.send("POST", path, document if document is not None else {}, headers=sent)

    async def place(self, **more: Any) -> dict[str, Any]:
        answer = await self.post("/v1/holds", valid("hold-request-1.json", self.body(**more)))
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = valid("hold-1.json", answer.json())
        return found


async def open_desk(street: Street, micro: int = 5_000_000) -> Desk:
    provider, consumer = await street.provider(), await street.consumer()
    await street.world.credit(consumer.id, micro)
    made = await street.client.post("/v1/api-keys", json={"scopes": ["spend"]}, headers=consumer.auth)
    assert made.status_code == 201, made.text
    return Desk(street, provider, consumer, made.json()["api_key"])


async def test_a_hold_from_placing_to_release(street: Street) -> None:
    desk = await open_desk(street)
    placed = await desk.place()
    assert (placed["amount"], placed["output_tokens"], placed["report_at"]) == ("0.889723", 256, 205)
    account = (await street.client.get("/v1/accounts/me", headers=desk.consumer.auth)).json()
    assert (account["settled"], account["held"], account["available"]) == ("5", "0.889723", "4.110277")
    more = await desk.post(f"/v1/holds/{placed['id']}/extend", {"grant": 2, "output_tokens": 100})
    assert valid("hold-1.json", more.json())["output_tokens"] == 356
    seen = await street.client.get(f"/v1/holds/{placed['id']}", headers=desk.consumer.auth)
    assert seen.json() == more.json()
    ended = await desk.post(f"/v1/holds/{placed['id']}/release")
    assert (ended.status_code, valid("hold-1.json", ended.json())["state"]) == (200, "released")
    account = (await street.client.get("/v1/accounts/me", headers=desk.consumer.auth)).json()
    assert account["available"] == "5"


async def test_a_consumer_sees_what_is_held_of_its_account(street: Street) -> None:
    """Hold by hold, newest first, adding up to what its account says; others' and ended ones are not in it."""
    desk, other = await open_desk(street), await open_desk(street)
    await other.place()
    ended = await desk.place()
    await desk.post(f"/v1/holds/{ended['id']}/release")
    lease = await desk.place(requests=2)
    street.world.sources.settable.advance(seconds=1)
    single = await desk.place(meters={"input_tokens": 10})
    auth, path = desk.consumer.auth, "/v1/accounts/me/holds"
    first = (await street.client.get(path, params={"limit": 1}, headers=auth)).json()
    assert first["has_more"] is True
    rest = (await street.client.get(path, params={"cursor": first["next_cursor"]}, headers=auth)).json()
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)
    shown = [*first["data"], *rest["data"]]
    assert [(each["id"], each["held"], each["requests"]) for each in shown] == [
        (single["id"], single["amount"], 1),
        (lease["id"], lease["amount"], 2),
    ]
    assert {each["provider"] for each in shown} == {desk.provider.id}
    (spending,) = [
        each["id"]
        for each in (await street.client.get("/v1/api-keys", headers=auth)).json()["data"]
        if each["scopes"] == ["spend"]
    ]
    assert {each["key"] for each in shown} == {spending}
    held = (await street.client.get("/v1/accounts/me", headers=auth)).json()["held"]
    assert sum(Decimal(each["held"]) for each in shown) == Decimal(held)
    problem(await street.client.get(path, headers=desk.provider.auth), 403, "consumers_only")
    problem(await street.client.get(path, params={"cursor": "x"}, headers=auth), 422, "cursor_malformed")


async def test_a_repeated_request_says_so(street: Street) -> None:
    desk = await open_desk(street)
    body = desk.body()
    first, again = [await desk.post("/v1/holds", body) for _ in range(2)]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert first.json() == again.json()
    problem(await desk.post("/v1/holds", {**body, "max_output_tokens": 5}), 409, "hold_conflict")


async def test_what_is_missing_is_said_in_cu(street: Street) -> None:
    desk = await open_desk(street, micro=100_000)
    found = problem(await desk.post("/v1/holds", desk.body()), 402, "insufficient_balance")
    assert found["missing"] == "0.789723"


async def test_both_keys_are_needed_and_neither_is_repeated(street: Street) -> None:
    desk = await open_desk(street)
    problem(await desk.post("/v1/holds", desk.body(), Authorization=""), 401, "api_key_missing")
    problem(await desk.post("/v1/holds", desk.body(), Authorization="Bearer cu_x"), 401, "key_unknown")
    problem(await desk.post("/v1/holds", desk.body(), **{"X-Consumer-Key": ""}), 401, "consumer_key_missing")
    wrong = desk.spending[:-1] + ("0" if desk.spending[-1] != "0" else "1")
    answer = await desk.post("/v1/holds", desk.body(), **{"X-Consumer-Key": wrong})
    problem(answer, 401, "consumer_key_unknown")
    assert wrong not in answer.text
    answer = await desk.post("/v1/holds", desk.body(), **{"X-Consumer-Key": desk.consumer.api_key})
    problem(answer, 403, "consumer_key_scope")


async def test_a_spending_key_spends_and_does_nothing_else(street: Street) -> None:
    desk = await open_desk(street)
    headers = {"Authorization": f"Bearer {desk.spending}"}
    problem(await street.client.get("/v1/accounts/me", headers=headers), 403, "scope_missing")
    problem(await street.client.post("/v1/api-keys", json={"scopes": ["spend"]}, headers=headers), 403, "scope_missing")
    answer = await street.client.post("/v1/api-keys", json={"scopes": ["read", "spend"]}, headers=desk.consumer.auth)
    problem(answer, 403, "scope_not_granted")
    answer = await street.client.post("/v1/api-keys", json={"scopes": ["spend"]}, headers=desk.provider.auth)
    problem(answer, 403, "scope_not_granted")


@pytest.mark.parametrize(
    ("pointer", "change"),
    [
        ("/request", {"request": "019aaa00-0000-4000-8000-000000000000"}),
        ("/request", {"request": "01900000-0000-7000-8000-000000000000"}),
        ("/meters", {"meters": {"input_tokens": -1}}),
        ("/output_tokens", {"output_tokens": 4_097}),
        ("/output_tokens", {"output_tokens": 9}),
        ("/requests", {"requests": 0}),
        ("/expires_in", {"expires_in": 9}),
        ("/final", {"final": {"action": "absorb"}}),
        ("/final", {"final": {"action": "stop", "limit": "1"}}),
        ("/final/action", {"final": {"action": "explode"}}),
        ("/model", {"model": "a b"}),
    ],
)
async def test_a_wrong_member_is_named(street: Street, pointer: str, change: dict[str, Any]) -> None:
    desk = await open_desk(street)
    found = problem(await desk.post("/v1/holds", desk.body(**change)), 422, "document_malformed")
    assert pointer in [each["pointer"] for each in found["errors"]]


async def test_a_limit_that_is_no_amount_is_named(street: Street) -> None:
    desk = await open_desk(street)
    wrong = desk.body(final={"action": "absorb", "limit": "0.1234567"})
    found = problem(await desk.post("/v1/holds", wrong), 422, "amount_malformed")
    assert [each["pointer"] for each in found["errors"]] == ["/final/limit"]


async def test_unknown_members_and_lenient_json_are_refused(street: Street) -> None:
    desk = await open_desk(street)
    problem(await desk.post("/v1/holds", desk.body(surprise=1)), 422, "document_malformed")
    problem(await desk.post("/v1/holds", desk.body(model=...)), 422, "document_malformed")
    twice = json.dumps(desk.body())[:-1] + ',"model":"gpt-4o"}'
    problem(await desk.post("/v1/holds", twice.encode()), 422, "json_duplicate_key")


async def test_a_slice_smaller_than_ten_needs_a_smaller_maximum(street: Street) -> None:
    desk = await open_desk(street)
    assert (await desk.place(output_tokens=3, max_output_tokens=3))["output_tokens"] == 3


async def test_holds_of_strangers_are_unknown(street: Street) -> None:
    desk = await open_desk(street)
    problem(await desk.post("/v1/holds/hld_none/extend", {"grant": 2}), 404, "unknown_hold")
    problem(await desk.post("/v1/holds/hld_none/release"), 404, "unknown_hold")
    answer = await street.client.get("/v1/holds/hld_none", headers=desk.consumer.auth)
    problem(answer, 404, "unknown_hold")


async def test_the_checks_come_in_the_documented_order(street: Street) -> None:
    """Each request breaks its own rule and all that come after it."""
    desk = await open_desk(street, micro=1)
    nothing = {"name": "nothing", "per_request": "0"}
    no_provider = {**nothing, "providers": []}
    keys = [await spending(desk, budget) for budget in ({**no_provider, "models": []}, no_provider, nothing, None)]
    refused = [
        await refusal(desk, keys[0], demand="0", meters={"input_tokens": 10**7 + 1}, model="none"),
        await refusal(desk, keys[0], meters={"input_tokens": 10**7 + 1}, model="none"),
        await refusal(desk, keys[0], model="none"),
        *[await refusal(desk, key) for key in (keys[0], keys[1], keys[2], keys[3])],
    ]
    expected = ["demand_above", "request_too_large", "unknown_model", "model_not_allowed", "provider_not_allowed"]
    assert refused == [*expected, "budget_exceeded", "insufficient_balance"]
    page = (SCHEMAS.parent / "holds.md").read_text("utf-8")
    table = page.partition("The checks, in this order")[2].partition("A 402 problem")[0]
    assert sorted(refused, key=lambda code: table.index(f"`{code}`")) == refused


async def spending(desk: Desk, budget: dict[str, Any] | None) -> str:
    """A spending key of that budget."""
    auth, client = desk.consumer.auth, desk.street.client
    document: dict[str, Any] = {"scopes": ["spend"]}
    if budget is not None:
        document["budget"] = (await client.post("/v1/budgets", json=budget, headers=auth)).json()["id"]
    return str((await client.post("/v1/api-keys", json=document, headers=auth)).json()["api_key"])


async def refusal(desk: Desk, key: str, **more: Any) -> str:
    """The code of a refusal."""
    return str((await desk.post("/v1/holds", desk.body(**more), **{"X-Consumer-Key": key})).json()["code"])
