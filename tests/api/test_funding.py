"""Funding intents, exactly once for an Idempotency-Key, and the deposits that came by them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import text

from adapters.simulated import USD
from settlement.services import funding
from settlement.storage import idempotency
from settlement.storage.idempotency import Claim
from tests.api.people import JSON, Person, Street, problem

INTENT = {"chain": "simulated", "asset": USD.text, "amount": "25.5"}


async def _ask(street: Street, person: Person, document: Any = None, key: str | None = "k-1") -> Response:
    headers = {**person.auth, **({"Idempotency-Key": key} if key is not None else {})}
    return await street.client.post("/v1/funding-intents", json=document or INTENT, headers=headers)


async def _intents(street: Street) -> int:
    async with street.world.context.database.read() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM funding_intent"))).scalar_one())


async def test_an_intent_leads_to_a_deposit(street: Street) -> None:
    person = await street.consumer()
    made = (await _ask(street, person)).json()
    assert made["amount"] == "25.5"
    assert made["address"] == street.world.chain.treasury
    wallet = street.world.wallet(usd=30_000_000)
    wallet.pay(made["address"], USD, 25_500_000, int(made["reference"]))
    assert await funding.read_deposits(street.world.context, "simulated") == 1
    listed = (await street.client.get("/v1/deposits", headers=person.auth)).json()
    assert [(each["amount"], each["reference"]) for each in listed["data"]] == [("25.5", made["reference"])]
    account = (await street.client.get("/v1/accounts/me", headers=person.auth)).json()
    assert account["settled"] == listed["data"][0]["credited"] != "0"
    other = await street.consumer()
    assert (await street.client.get("/v1/deposits", headers=other.auth)).json()["data"] == []


async def test_the_same_key_gives_the_same_answer(street: Street) -> None:
    person = await street.consumer()
    first, again = await _ask(street, person), await _ask(street, person)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert await _intents(street) == 1
    assert (await _ask(street, person, key="k-2")).json()["id"] != first.json()["id"]
    other = await street.consumer()
    assert (await _ask(street, other)).json()["reference"] != first.json()["reference"]


async def test_the_key_is_required_and_stands_for_one_request(street: Street) -> None:
    person = await street.consumer()
    problem(await _ask(street, person, key=None), 400, "idempotency_key_missing")
    problem(await _ask(street, person, key=""), 400, "idempotency_key_missing")
    problem(await _ask(street, person, key="x" * 129), 422, "idempotency_key_malformed")
    problem(await _ask(street, person, key="a b"), 422, "idempotency_key_malformed")
    assert (await _ask(street, person)).status_code == 201
    problem(await _ask(street, person, {**INTENT, "amount": "26"}), 422, "idempotency_key_reused")
    assert await _intents(street) == 1


async def test_a_request_in_flight_is_not_carried_out_twice(street: Street) -> None:
    person = await street.consumer()
    answers = await asyncio.gather(*(_ask(street, person) for _ in range(8)))
    made = [each for each in answers if each.status_code == 201]
    assert made
    assert len({each.content for each in made}) == 1
    for answer in answers:
        if answer.status_code != 201:
            problem(answer, 409, "request_in_flight")
    assert await _intents(street) == 1


async def test_a_claim_of_a_process_that_died_is_taken_over(street: Street) -> None:
    database, now = street.world.context.database, street.world.sources.clock()
    claim = Claim("acc_x", "POST /v1/x", "k", b"f" * 32)
    async with database.begin() as connection:
        assert await idempotency.claim(connection, claim, now, now) is None
    later = now + timedelta(seconds=61)
    async with database.begin() as connection:
        assert await idempotency.claim(connection, claim, later, later - timedelta(seconds=60)) is None
    async with database.begin() as connection:
        assert await idempotency.forget(connection, later) == 0
        assert await idempotency.forget(connection, later + timedelta(seconds=1)) == 1


async def test_a_refusal_gives_the_key_back(street: Street) -> None:
    person = await street.consumer()
    problem(await _ask(street, person, {**INTENT, "asset": "EUR"}), 404, "unknown_asset")
    assert (await _ask(street, person)).status_code == 201


@pytest.mark.parametrize(
    "amount",
    ["0", "-1", "+1", "1e3", "1.0000001", "0x1", " 1", "1_000", "\uff11", "9223372036854775808", "", "1.", ".5"],
)
async def test_amounts_that_are_none(street: Street, amount: str) -> None:
    answer = await _ask(street, await street.consumer(), {**INTENT, "amount": amount})
    assert problem(answer, 422, answer.json()["code"])["errors"][0]["pointer"] == "/amount"
    assert await _intents(street) == 0


async def test_numbers_are_not_amounts(street: Street) -> None:
    person = await street.consumer()
    headers = {**JSON, **person.auth, "Idempotency-Key": "1"}
    body = b'{"chain":"simulated","asset":"SIM","amount":25}'
    answer = await street.client.post("/v1/funding-intents", content=body, headers=headers)
    problem(answer, 422, "document_malformed")


async def test_an_intent_is_shown_again_also_as_a_picture(street: Street) -> None:
    person, other = await street.consumer(), await street.consumer()
    made = (await _ask(street, person)).json()
    assert made["combined_address"] is None
    path = f"/v1/funding-intents/{made['id']}"
    assert (await street.client.get(path, headers=person.auth)).json() == made
    vector = await street.client.get(f"{path}/qr.svg", headers=person.auth)
    assert (vector.headers["content-type"], vector.content[:5]) == ("image/svg+xml", b"<?xml")
    raster = await street.client.get(f"{path}/qr.png", headers=person.auth)
    assert (raster.headers["content-type"], raster.content[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")
    problem(await street.client.get(path, headers=other.auth), 404, "unknown_intent")
    problem(await street.client.get(f"{path}/qr.png", headers=other.auth), 404, "unknown_intent")
