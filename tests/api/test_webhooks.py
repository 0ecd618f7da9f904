"""Webhooks over HTTP: made, listed, changed, tested, seen, asked for again, removed; by their owner alone."""

from __future__ import annotations

import pytest
from httpx2 import ASGITransport, AsyncClient

from settlement.api.app import create_app
from settlement.api.dependencies import Settings
from tests.api.people import JSON, Street, problem
from tests.hearing import deliver, receiving

pytestmark = [pytest.mark.anyio, pytest.mark.database]

URL = "https://hooks.example/in"


async def test_one_from_its_making_to_its_removal(street: Street) -> None:
    owner, client = await street.consumer(), street.client
    made = await client.post("/v1/webhooks", json={"url": URL, "events": ["webhook.test"]}, headers=owner.auth)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert shown.pop("secret").startswith("whsec_")
    assert (shown["state"], shown["url"], shown["events"]) == ("active", URL, ["webhook.test"])
    path = f"/v1/webhooks/{shown['id']}"
    assert (await client.get("/v1/webhooks", headers=owner.auth)).json()["data"] == [shown]
    changed = await client.put(path, json={"url": URL + "2"}, headers=owner.auth)
    assert (changed.json()["url"], changed.json()["events"]) == (URL + "2", None)
    rotated = await client.post(f"{path}/secret", headers={**JSON, **owner.auth})
    assert rotated.json()["secret"] != made.json()["secret"]
    for _ in range(3):
        assert (await client.post(f"{path}/test", headers={**JSON, **owner.auth})).status_code == 204
    page = (await client.get(f"{path}/deliveries?limit=2", headers=owner.auth)).json()
    rest = (await client.get(f"{path}/deliveries?cursor={page['next_cursor']}", headers=owner.auth)).json()
    found = [*page["data"], *rest["data"]]
    assert [each["state"] for each in found] == ["pending"] * 3
    assert (page["has_more"], rest["has_more"], len({each["event"] for each in found})) == (True, False, 3)
    assert (await client.get(f"{path}/deliveries?state=failed", headers=owner.auth)).json()["data"] == []
    again = await client.post(f"{path}/deliveries/{found[0]['event']}/redelivery", headers={**JSON, **owner.auth})
    assert (again.status_code, again.json()["event"]) == (200, found[0]["event"])
    problem(
        await client.post(f"{path}/deliveries/evt_x/redelivery", headers={**JSON, **owner.auth}),
        404,
        "unknown_delivery",
    )
    assert (await client.delete(path, headers=owner.auth)).status_code == 204
    assert (await client.get("/v1/webhooks", headers=owner.auth)).json()["data"] == []
    problem(await client.get(f"{path}/deliveries", headers=owner.auth), 404, "unknown_webhook")


async def test_only_its_owner_and_only_with_the_scope(street: Street) -> None:
    owner, other, client = await street.consumer(), await street.provider(), street.client
    made = (await client.post("/v1/webhooks", json={"url": URL}, headers=owner.auth)).json()
    path = f"/v1/webhooks/{made['id']}"
    for method, where in (("DELETE", path), ("POST", f"{path}/secret"), ("GET", f"{path}/deliveries")):
        problem(await client.request(method, where, headers={**JSON, **other.auth}), 404, "unknown_webhook")
    reader = await client.post("/v1/api-keys", json={"scopes": ["read"]}, headers=owner.auth)
    reading = {"Authorization": f"Bearer {reader.json()['api_key']}"}
    problem(await client.post("/v1/webhooks", json={"url": URL}, headers=reading), 403, "scope_missing")
    assert len((await client.get("/v1/webhooks", headers=reading)).json()["data"]) == 1


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"url": "http://hooks.example/"}, "webhook_url"),
        ({"url": "https://127.0.0.1/"}, "webhook_url"),
        ({"url": URL, "events": ["no.such"]}, "webhook_event"),
        ({"url": URL, "events": ["report.refused"]}, "webhook_event"),
        ({"url": URL, "events": []}, "document_malformed"),
        ({"url": URL, "secret": "whsec_mine"}, "document_malformed"),
        ({}, "document_malformed"),
    ],
)
async def test_what_is_none_is_refused(street: Street, document: dict[str, object], code: str) -> None:
    owner = await street.consumer()
    problem(await street.client.post("/v1/webhooks", json=document, headers=owner.auth), 422, code)


@pytest.mark.network
async def test_an_operator_may_let_them_go_anywhere(street: Street) -> None:
    owner = await street.consumer()
    free = create_app(street.world.context, Settings(webhook_targets="any"))
    async with (
        receiving() as receiver,
        AsyncClient(transport=ASGITransport(free), base_url="http://api.test") as client,
    ):
        made = await client.post("/v1/webhooks", json={"url": receiver.url}, headers=owner.auth)
        assert made.status_code == 201, made.text
        await client.post(f"/v1/webhooks/{made.json()['id']}/test", headers={**JSON, **owner.auth})
        assert await deliver(street.world) == 1
    assert receiver.types == ["webhook.test"]
    problem(
        await street.client.post("/v1/webhooks", json={"url": receiver.url}, headers=owner.auth), 422, "webhook_url"
    )
