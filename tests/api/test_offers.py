"""Offers over HTTP: signed in, public out."""

from __future__ import annotations

from datetime import timedelta

from settlement.core import canonical
from settlement.core.offers import parse
from settlement.core.signatures import verify_detached
from tests.api.people import Street


async def test_an_offer_is_signed_in_and_anybody_can_check_it(street: Street) -> None:
    provider = await street.world.provider()
    body, signature = street.world.offer(provider, street.world.sources.clock() + timedelta(hours=1), usual="0.8")
    headers = {"x-jws-signature": signature, "content-type": "application/json"}
    for _ in range(2):
        answer = await street.client.put("/v1/providers/me/offers", content=body, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["digest"] == canonical.digest(body)
    (found,) = (await street.client.get(f"/v1/providers/{provider.id}/offers")).json()["data"]
    assert found["document"].encode() == body
    verify_detached(found["signature"], found["document"].encode(), provider.key.public)
    assert parse(body).usual == 8_000


async def test_refusals_are_problems(street: Street) -> None:
    provider = await street.world.provider()
    body, signature = street.world.offer(provider, street.world.sources.clock())
    headers = {"x-jws-signature": signature, "content-type": "application/json"}
    answer = await street.client.put("/v1/providers/me/offers", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "effective_date_in_past")
    answer = await street.client.put("/v1/providers/me/offers", content=body + b" ", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "signature_invalid")
    answer = await street.client.get("/v1/providers/prv_nobody/offers")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_party")
