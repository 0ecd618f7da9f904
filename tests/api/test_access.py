"""Nobody reads or does what belongs to somebody else, or to another kind of participant (OWASP API1, API5)."""

from __future__ import annotations

import pytest

from tests.api.people import Street, problem

CONSUMER = ["/v1/accounts/me", "/v1/deposits"]
PROVIDER = ["/v1/providers/me", "/v1/payouts", "/v1/earnings"]
EITHER = ["/v1/keys", "/v1/api-keys"]


@pytest.mark.parametrize("path", [*CONSUMER, *PROVIDER, *EITHER])
async def test_nothing_of_a_participant_is_public(street: Street, path: str) -> None:
    answer = await street.client.get(path)
    assert answer.headers["www-authenticate"] == "Bearer"
    problem(answer, 401, "api_key_missing")


async def test_each_kind_has_its_own_calls(street: Street) -> None:
    consumer, provider = await street.consumer(), await street.provider()
    for path in CONSUMER:
        assert (await street.client.get(path, headers=consumer.auth)).status_code == 200
        problem(await street.client.get(path, headers=provider.auth), 403, "consumers_only")
    for path in PROVIDER:
        assert (await street.client.get(path, headers=provider.auth)).status_code == 200
        problem(await street.client.get(path, headers=consumer.auth), 403, "providers_only")
    intent = {"chain": "simulated", "asset": "SIM"}
    headers = {**provider.auth, "Idempotency-Key": "1"}
    problem(await street.client.post("/v1/funding-intents", json=intent, headers=headers), 403, "consumers_only")


async def test_lists_hold_only_what_is_mine(street: Street) -> None:
    one, two = await street.consumer(), await street.consumer()
    await street.world.credit(one.id, 5_000_000)
    mine = (await street.client.get("/v1/accounts/me", headers=two.auth)).json()
    assert (mine["id"], mine["settled"]) == (two.id, "0")
    for path in EITHER:
        first = (await street.client.get(path, headers=one.auth)).json()["data"]
        second = (await street.client.get(path, headers=two.auth)).json()["data"]
        assert len(first) == len(second) == 1
        assert first[0] != second[0]


async def test_a_signature_is_no_api_key_and_an_api_key_no_signature(street: Street) -> None:
    person = await street.provider()
    document = {"purpose": "revoke-key", "at": street.now(), "kid": person.key.public.kid}
    path = f"/v1/keys/{person.key.public.kid}/revocation"
    problem(await street.send("POST", path, document, headers=person.auth), 401, "signature_missing")
    answer = await street.client.get("/v1/keys", headers={"x-jws-signature": "a..b"})
    problem(answer, 401, "api_key_missing")
