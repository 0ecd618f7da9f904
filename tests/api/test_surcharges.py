"""A consumer's notices and surcharges over HTTP."""

from __future__ import annotations

from tests.api.people import Street, problem


async def test_a_consumer_reads_its_own_and_nobody_else_does(street: Street) -> None:
    path = "/v1/accounts/me/surcharges"
    problem(await street.client.get(path), 401, "api_key_missing")
    buyer, seller = await street.consumer(), await street.provider()
    assert (await street.client.get(path, headers=buyer.auth)).json() == {"data": []}
    problem(await street.client.get(path, headers=seller.auth), 403, "consumers_only")
