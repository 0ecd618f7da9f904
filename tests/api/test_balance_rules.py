"""Balance rules over HTTP."""

from __future__ import annotations

import pytest

from adapters.simulated import USD
from tests.api.people import Street, problem

pytestmark = [pytest.mark.anyio, pytest.mark.database]

TOP_UP = {"chain": "simulated", "asset": "USD:sim1issuer", "amount": "25"}
PATH = "/v1/balance-rules"


async def test_made_listed_and_removed(street: Street) -> None:
    owner, client = await street.consumer(), street.client
    made = await client.post(PATH, json={"below": "10.5", "top_up": {**TOP_UP, "asset": USD.text}}, headers=owner.auth)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["below"], shown["state"], shown["top_up"]["amount"]) == ("10.5", "armed", "25")
    plain = (await client.post(PATH, json={"below": "1"}, headers=owner.auth)).json()
    assert plain["top_up"] is None
    assert (await client.get(PATH, headers=owner.auth)).json()["data"] == [shown, plain]
    assert (await client.delete(f"{PATH}/{plain['id']}", headers=owner.auth)).status_code == 204
    problem(await client.delete(f"{PATH}/{plain['id']}", headers=owner.auth), 404, "unknown_balance_rule")
    nothing = {"below": "1", "top_up": {**TOP_UP, "asset": USD.text, "amount": "0"}}
    refused = problem(await client.post(PATH, json=nothing, headers=owner.auth), 422, "amount_malformed")
    assert refused["errors"][0]["pointer"] == "/top_up/amount"


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({}, 422, "document_malformed"),
        ({"below": "0"}, 422, "amount_malformed"),
        ({"below": "-1"}, 422, "amount_malformed"),
        ({"below": "1", "top_up": {**TOP_UP, "chain": "nowhere"}}, 404, "unknown_chain"),
        ({"below": "1", "top_up": {**TOP_UP, "asset": "EUR"}}, 404, "unknown_asset"),
        ({"below": "1", "top_up": {"chain": "simulated", "asset": "USD"}}, 422, "document_malformed"),
    ],
)
async def test_what_is_none_is_refused(street: Street, document: dict[str, object], status: int, code: str) -> None:
    owner = await street.consumer()
    problem(await street.client.post(PATH, json=document, headers=owner.auth), status, code)
    provider = await street.provider()
    problem(await street.client.post(PATH, json={"below": "1"}, headers=provider.auth), 403, "consumers_only")
