"""Steps of demand over HTTP, and a request for a hold that says how much it takes."""

from __future__ import annotations

from tests.api.people import Street


async def test_steps_are_public(street: Street) -> None:
    assert (await street.client.get("/v1/demand")).json() == {"data": []}
    assert (await street.client.get("/v1/demand", params={"limit": 0})).status_code == 422
