"""API keys: scopes that only shrink, secrets that are shown once, revocation at once."""

from __future__ import annotations

import pytest

from tests.api.people import JSON, Street, problem


async def test_a_key_gives_a_part_of_its_scopes(street: Street) -> None:
    person = await street.consumer()
    street.world.sources.settable.advance(seconds=1)
    made = await street.client.post("/v1/api-keys", json={"scopes": ["read", "read"]}, headers=person.auth)
    assert made.status_code == 201
    assert made.json()["scopes"] == ["read"]
    reading = {"Authorization": f"Bearer {made.json()['api_key']}"}
    assert (await street.client.get("/v1/accounts/me", headers=reading)).status_code == 200
    answer = await street.client.post("/v1/api-keys", json={"scopes": ["read"]}, headers=reading)
    problem(answer, 403, "scope_missing")
    paying = {**reading, "Idempotency-Key": "1"}
    intent = {"chain": "simulated", "asset": "SIM"}
    problem(await street.client.post("/v1/funding-intents", json=intent, headers=paying), 403, "scope_missing")
    listed = (await street.client.get("/v1/api-keys", headers=reading)).json()["data"]
    assert [each["scopes"] for each in listed] == [["api-keys", "disputes", "funding", "read", "withdrawals"], ["read"]]
    assert all(set(each) == {"id", "name", "scopes", "budget", "created_at", "revoked_at"} for each in listed)


async def test_a_provider_has_no_scope_to_fund(street: Street) -> None:
    person = await street.provider()
    answer = await street.client.post("/v1/api-keys", json={"scopes": ["funding"]}, headers=person.auth)
    problem(answer, 403, "scope_not_granted")
    document = {"purpose": "add-api-key", "at": street.now(), "scopes": ["funding"]}
    problem(await street.send("POST", "/v1/api-keys", document, person.key), 403, "scope_not_granted")


async def test_a_revoked_key_is_not_taken(street: Street) -> None:
    person, other = await street.consumer(), await street.consumer()
    key_id = (await street.client.get("/v1/api-keys", headers=person.auth)).json()["data"][0]["id"]
    foreign = await street.client.delete(f"/v1/api-keys/{key_id}", headers=other.auth)
    problem(foreign, 404, "unknown_key")
    assert (await street.client.delete(f"/v1/api-keys/{key_id}", headers=person.auth)).status_code == 204
    problem(await street.client.get("/v1/accounts/me", headers=person.auth), 401, "key_unknown")


async def test_whoever_has_lost_all_api_keys_signs_for_a_new_one(street: Street) -> None:
    person = await street.consumer()
    document = {"purpose": "add-api-key", "at": street.now(), "scopes": ["read", "api-keys"]}
    made = await street.send("POST", "/v1/api-keys", document, person.key)
    auth = {"Authorization": f"Bearer {made.json()['api_key']}"}
    assert (await street.client.get("/v1/accounts/me", headers=auth)).json()["id"] == person.id
    problem(await street.send("POST", "/v1/api-keys", document, person.key), 409, "signature_replayed")
    without = await street.send("POST", "/v1/api-keys", {"scopes": ["read"]}, person.key)
    problem(without, 422, "document_malformed")


async def test_a_signed_request_for_a_spending_key_binds_it_to_its_budget(street: Street) -> None:
    """And the list of keys says which."""
    person = await street.consumer()
    made = await street.client.post("/v1/budgets", json={"name": "team", "per_day": "1"}, headers=person.auth)
    document = {"purpose": "add-api-key", "at": street.now(), "scopes": ["spend"], "name": "chat"}
    missing = {**document, "budget": "bud_none"}
    problem(await street.send("POST", "/v1/api-keys", missing, person.key), 404, "unknown_budget")
    reading = {**document, "scopes": ["read"], "budget": made.json()["id"]}
    refused = problem(await street.send("POST", "/v1/api-keys", reading, person.key), 422, "document_malformed")
    assert refused["errors"][0]["pointer"] == "/budget"
    asked = await street.send("POST", "/v1/api-keys", {**document, "budget": made.json()["id"]}, person.key)
    assert asked.status_code == 201, asked.text
    listed = (await street.client.get("/v1/api-keys", headers=person.auth)).json()["data"]
    assert [(each["name"], each["budget"]) for each in listed] == [("", None), ("chat", made.json()["id"])]


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token + "0",
        lambda token: token[:-1],
        lambda token: token.upper(),
        lambda token: "cu_" + "0" * 26 + "_" + "0" * 64,
        lambda token: token.replace("_", "-"),
        lambda token: "x" * 5000,
    ],
)
async def test_a_wrong_token_is_no_key(street: Street, change: object) -> None:
    person = await street.consumer()
    assert callable(change)
    headers = {"Authorization": f"Bearer {change(person.api_key)}"}
    problem(await street.client.get("/v1/accounts/me", headers=headers), 401, "key_unknown")


async def test_the_header_must_be_there_once(street: Street) -> None:
    person = await street.consumer()
    problem(await street.client.get("/v1/accounts/me"), 401, "api_key_missing")
    basic = {"Authorization": f"Basic {person.api_key}"}
    problem(await street.client.get("/v1/accounts/me", headers=basic), 401, "api_key_missing")
    twice = [("Authorization", f"Bearer {person.api_key}"), ("Authorization", "Bearer cu_x")]
    problem(await street.client.get("/v1/accounts/me", headers=twice), 401, "api_key_missing")
    signed_twice = [*JSON.items(), ("x-jws-signature", "a..b"), ("x-jws-signature", "c..d")]
    answer = await street.client.post("/v1/accounts", content=b'{"purpose":"register-consumer"}', headers=signed_twice)
    problem(answer, 401, "signature_malformed")
