"""Asking to be forgotten: by the account's own key, or by the operator with the service's; nobody else."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from settlement.core import times
from settlement.core.signatures import sign_detached
from settlement.services import retention
from settlement.services.participants import ERASURE_TYPE
from tests.api.people import JSON, Street, problem


def wish(street: Street, account: str, **more: Any) -> dict[str, Any]:
    return {"purpose": "erase-account", "at": street.now(), "account": account, "reason": "Article 17", **more}


async def test_a_consumer_asks_and_is_forgotten(street: Street) -> None:
    person = await street.consumer()
    asked = wish(street, person.id)
    answer = await street.send("POST", "/v1/erasures", asked, person.key)
    assert (answer.status_code, answer.json()) == (201, {"account": person.id, "asked_at": asked["at"]})
    mine = await street.client.get("/v1/accounts/me", headers=person.auth)
    assert mine.json()["name"] == "erased"
    problem(await street.send("POST", "/v1/erasures", asked, person.key), 409, "signature_replayed")
    street.world.sources.settable.advance(minutes=1)
    again = await street.send("POST", "/v1/erasures", wish(street, person.id), person.key)
    assert again.json()["asked_at"] == asked["at"], "it was first asked then"
    found = await retention.standing(street.world.context)
    assert [(party, reason) for party, _, reason in found.erasures] == [(person.id, "Article 17")]


async def test_the_operator_asks_by_the_services_key(street: Street) -> None:
    """Only by a signature that was made for this: the key signs receipts and checkpoints too."""
    person, key = await street.consumer(), street.world.context.key
    body = json.dumps(wish(street, person.id)).encode()
    for kind, status in (("receipt+jws", 401), ("offer+jws", 401), (ERASURE_TYPE, 201), (ERASURE_TYPE, 409)):
        headers = {**JSON, "x-jws-signature": sign_detached(key, body, kind)}
        answer = await street.client.post("/v1/erasures", content=body, headers=headers)
        assert answer.status_code == status, kind
    old = {**wish(street, person.id), "at": times.text(street.world.sources.clock() - timedelta(hours=1))}
    headers = {**JSON, "x-jws-signature": sign_detached(key, json.dumps(old).encode(), ERASURE_TYPE)}
    late = await street.client.post("/v1/erasures", content=json.dumps(old).encode(), headers=headers)
    problem(late, 401, "signature_expired")


async def test_nobody_else_does(street: Street) -> None:
    person, other, provider = await street.consumer(), await street.consumer(), await street.provider()
    refused = (
        (wish(street, person.id), other.key, 403, "key_of_another"),
        (wish(street, provider.id), provider.key, 403, "consumers_only"),
        (wish(street, person.id), None, 401, "signature_missing"),
        (wish(street, person.id), street.new_key(), 401, "key_unknown"),
        (wish(street, person.id, reason=""), person.key, 422, "document_malformed"),
        (wish(street, person.id, reason="two\nlines"), person.key, 422, "document_malformed"),
        (wish(street, person.id, purpose="add-key"), person.key, 422, "document_malformed"),
    )
    for document, key, status, code in refused:
        problem(await street.send("POST", "/v1/erasures", document, key), status, code)
    assert (await retention.standing(street.world.context)).erasures == []
