"""Registration of consumers, and what their account shows."""

from __future__ import annotations

import json
from datetime import timedelta
from hashlib import sha256

from sqlalchemy import text

from settlement.core import times
from settlement.core.signatures import sign_detached
from tests.api.people import JSON, Street, problem


async def test_a_consumer_registers_and_reads_its_account(street: Street) -> None:
    person = await street.consumer()
    assert person.id.startswith("acc_")
    assert person.document["kid"] == person.key.public.kid
    assert person.document["status"] == "active"
    await street.world.credit(person.id, 1_000_789_722)
    answer = await street.client.get("/v1/accounts/me", headers=person.auth)
    assert answer.json() == {
        "id": person.id,
        "name": "consumer",
        "status": "active",
        "settled": "1000.789722",
        "held": "0",
        "available": "1000.789722",
    }
    assert answer.headers["cache-control"] == "no-store"


async def test_only_the_hash_of_an_api_key_is_kept(street: Street) -> None:
    person = await street.consumer()
    secret = person.api_key.rsplit("_", 1)[1]
    async with street.world.context.database.read() as connection:
        row = (await connection.execute(text("SELECT id, secret_hash, scopes FROM api_key"))).one()
        everything = (await connection.execute(text("SELECT api_key::text FROM api_key"))).scalar_one()
    assert row.id == "key_" + person.api_key.split("_")[1]
    assert row.secret_hash == sha256(secret.encode()).digest()
    assert secret not in everything


async def test_a_key_is_registered_once(street: Street) -> None:
    key = street.new_key()
    document = street.registration("consumer", key)
    assert (await street.send("POST", "/v1/accounts", document, key)).status_code == 201
    problem(await street.send("POST", "/v1/accounts", document, key), 409, "key_already_registered")
    as_provider = street.registration("provider", key)
    problem(await street.send("POST", "/v1/providers", as_provider, key), 409, "key_already_registered")
    async with street.world.context.database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM party"))).scalar_one() == 1


async def test_possession_of_the_key_must_be_proven(street: Street) -> None:
    key, other = street.new_key(), street.new_key()
    document = street.registration("consumer", key)
    body = json.dumps(document).encode()
    problem(await street.send("POST", "/v1/accounts", document), 401, "signature_missing")
    problem(await street.send("POST", "/v1/accounts", document, other), 401, "key_unknown")
    headers = {**JSON, "x-jws-signature": sign_detached(key, body + b" ")}
    answer = await street.client.post("/v1/accounts", content=body, headers=headers)
    assert "www-authenticate" in answer.headers
    problem(answer, 401, "signature_invalid")


async def test_a_signature_is_good_for_five_minutes_and_one_purpose(street: Street) -> None:
    key = street.new_key()
    now = street.world.sources.clock()
    for at in (now - timedelta(seconds=301), now + timedelta(seconds=301)):
        stale = {**street.registration("consumer", key), "at": times.text(at)}
        problem(await street.send("POST", "/v1/accounts", stale, key), 401, "signature_expired")
    elsewhere = street.registration("provider", key)
    found = problem(await street.send("POST", "/v1/accounts", elsewhere, key), 422, "document_malformed")
    assert [each["pointer"] for each in found["errors"]] == ["/purpose"]
    edge = {**street.registration("consumer", key), "at": times.text(now - timedelta(seconds=300))}
    assert (await street.send("POST", "/v1/accounts", edge, key)).status_code == 201


async def test_names_are_normalised_and_printable(street: Street) -> None:
    key = street.new_key()
    for name in ("a\u202eb", "two\nlines", "x" * 129):
        document = {**street.registration("consumer", key), "name": name}
        problem(await street.send("POST", "/v1/accounts", document, key), 422, "name_malformed")
    document = {**street.registration("consumer", key), "name": "Cafe\u0301"}
    answer = await street.send("POST", "/v1/accounts", document, key)
    token = answer.json()["api_key"]
    mine = await street.client.get("/v1/accounts/me", headers={"Authorization": f"Bearer {token}"})
    assert mine.json()["name"] == "Caf\u00e9"
