"""What every route asks for: one key, one signature, a body that is strictly JSON, and who may call."""

from __future__ import annotations

import json

import pytest

from settlement.core.signatures import sign_detached
from tests.api.people import JSON, Street, problem
from tests.api.town import auth

pytestmark = pytest.mark.database
INTENT = {"chain": "simulated", "asset": "SIM"}


async def test_the_kind_is_asked_before_the_scope(street: Street) -> None:
    """A provider isn't told that a scope would help."""
    provider, consumer = await street.world.provider(), await street.world.consumer()
    key = {"Idempotency-Key": "1"}
    for member, scope, status, code in (
        (provider, "funding", 403, "consumers_only"),
        (consumer, "read", 403, "scope_missing"),
    ):
        headers = {**key, **await auth(street.world, member, scope)}
        problem(await street.client.post("/v1/funding-intents", json=INTENT, headers=headers), status, code)
    headers = {**key, **await auth(street.world, consumer, "funding")}
    assert (await street.client.post("/v1/funding-intents", json=INTENT, headers=headers)).status_code == 201


async def test_bodies_are_read_strictly_before_the_framework_sees_them(street: Street) -> None:
    consumer = await street.world.consumer()
    headers = {**JSON, "Idempotency-Key": "1", **await auth(street.world, consumer, "funding")}
    for body in (
        b'{"chain":"simulated","asset":"SIM","asset":"SIM"}',
        b'{"chain":"simulated","asset":"SIM","amount":NaN}',
        b'{"chain":"simulated","asset":"\\ud800"}',
        b'{"chain":"simulated","asset":"SIM"} ' + b"{}",
    ):
        answer = await street.client.post("/v1/funding-intents", content=body, headers=headers)
        assert 400 <= answer.status_code < 500
        problem(answer, answer.status_code, answer.json()["code"])


async def test_a_signature_comes_once(street: Street) -> None:
    world = street.world
    consumer, provider = await world.consumer(micro=10**7), await world.provider()
    body, signature = world.report(provider, [world.record(consumer)])
    twice = [*JSON.items(), ("x-jws-signature", signature), ("x-jws-signature", sign_detached(consumer.key, body))]
    problem(await street.client.post("/v1/usage-reports", content=body, headers=twice), 401, "signature_malformed")
    once = {**JSON, "x-jws-signature": signature}
    answer = await street.client.post("/v1/usage-reports", content=body, headers=once)
    assert json.loads(answer.content)["accepted"] == 1


async def test_only_who_is_known_is_counted(street: Street) -> None:
    """The limit is that of the API key: a stranger's requests can't use it up."""
    consumer = await street.world.consumer()
    headers = await auth(street.world, consumer)
    left = []
    for _ in range(2):
        problem(await street.client.get("/v1/accounts/me", headers={"Authorization": "Bearer x"}), 401, "key_unknown")
        answer = await street.client.get("/v1/accounts/me", headers=headers)
        left.append(answer.headers["ratelimit"])
    other = await street.client.get("/v1/accounts/me", headers=await auth(street.world, consumer))
    assert left[0] != left[1]
    assert other.headers["ratelimit"] == left[0], "each key has its own"
