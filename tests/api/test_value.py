"""Observations and fixings over HTTP."""

from __future__ import annotations

import json

from settlement.core.observations import SIGNATURE_TYPE
from settlement.core.signatures import SigningKey, sign_detached
from tests.api.people import Street


async def test_nobody_is_believed_whom_the_policy_does_not_name(street: Street) -> None:
    document = {
        "type": "observation/1",
        "source": "venue-unnamed",
        "at": "2026-11-22T00:00:00Z",
        "usd": {"XRP": "2.88"},
    }
    body = json.dumps(document).encode()
    headers = {
        "content-type": "application/json",
        "x-jws-signature": sign_detached(SigningKey(bytes(32)), body, SIGNATURE_TYPE),
    }
    answer = await street.client.post("/v1/observations", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "source_unknown")
    answer = await street.client.post("/v1/observations", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "observation_malformed")


async def test_fixings_are_public(street: Street) -> None:
    assert (await street.client.get("/v1/fixings")).json() == {"data": []}
