"""Registration of providers, the link to a consumer account, and where they are paid."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import text

from adapters.simulated import USD
from settlement.api.app import create_app
from settlement.core import times
from settlement.core.policy import Policy
from settlement.core.signatures import verify_detached
from settlement.storage import parties
from tests.api.people import Person, Street, problem

LINK = "x-jws-signature-account"


def _payout(street: Street, **more: Any) -> dict[str, Any]:
    return {"chain": "simulated", "asset": USD.text, "address": street.world.wallet().address, **more}


async def _set(street: Street, person: Person, payout: dict[str, Any]) -> Response:
    document = {"purpose": "set-payout-address", "at": street.now(), "payout": payout}
    return await street.send("PUT", "/v1/providers/me/payout-address", document, person.key)


async def test_a_provider_registers_with_account_and_payout_address(street: Street) -> None:
    company = await street.consumer()
    payout = _payout(street, reference=77)
    person = await street.provider({LINK: company.key}, account=company.id, payout=payout)
    assert person.document["account"] == company.id
    assert person.document["payout"] == {**payout, "proven": False, "valid_from": street.now()}
    mine = (await street.client.get("/v1/providers/me", headers=person.auth)).json()
    assert mine == {
        "id": person.id,
        "name": "provider",
        "status": "active",
        "account": company.id,
        "settled": "0",
        "payout": {**payout, "proven": False, "valid_from": street.now()},
        "payout_next": None,
        "fallback": None,
    }


async def test_a_provider_waits_for_review_unless_configured_otherwise(street: Street) -> None:
    app = create_app(street.world.context)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://api.test") as client:
        person = await Street(client, street.world).provider()
    assert person.document["status"] == "pending"


async def test_the_account_must_sign_the_same_body(street: Street) -> None:
    company, stranger, key = await street.consumer(), await street.consumer(), street.new_key()
    other_provider = await street.provider()
    document = street.registration("provider", key, account=company.id)

    async def attempt(**also: Any) -> Response:
        return await street.send("POST", "/v1/providers", document, key, **also)

    problem(await attempt(), 403, "account_not_proven")
    problem(await attempt(also={LINK: stranger.key}), 403, "account_not_proven")
    problem(await attempt(also={LINK: street.new_key()}), 403, "account_not_proven")
    problem(await attempt(also={LINK: key}), 403, "account_not_proven")
    problem(await attempt(headers={LINK: "x..y"}), 403, "account_not_proven")
    as_account = street.registration("provider", key, account=other_provider.id)
    answer = await street.send("POST", "/v1/providers", as_account, key, also={LINK: other_provider.key})
    problem(answer, 403, "account_not_proven")
    assert (await attempt(also={LINK: company.key})).status_code == 201


async def test_an_account_has_one_provider(street: Street) -> None:
    company = await street.consumer()
    await street.provider({LINK: company.key}, account=company.id)
    key = street.new_key()
    document = street.registration("provider", key, account=company.id)
    answer = await street.send("POST", "/v1/providers", document, key, also={LINK: company.key})
    problem(answer, 409, "account_already_linked")


async def test_an_address_that_cannot_be_paid_is_refused(street: Street) -> None:
    person = await street.provider()
    good = _payout(street)
    table = [
        ({**good, "chain": "nowhere"}, 404, "unknown_chain"),
        ({**good, "asset": "USD"}, 404, "unknown_asset"),
        ({**good, "asset": "SIM"}, 422, "asset_not_paid"),
        ({**good, "address": good["address"] + "x"}, 422, "address_malformed"),
        ({**good, "address": street.world.chain.treasury}, 422, "address_ours"),
        ({**good, "reference": 2**62}, 422, "reference_out_of_range"),
        ({**good, "reference": -1}, 422, "document_malformed"),
        ({**good, "reference": "1"}, 422, "document_malformed"),
        ({**good, "surprise": 1}, 422, "document_malformed"),
    ]
    for payout, status, code in table:
        problem(await _set(street, person, payout), status, code)
    mine = (await street.client.get("/v1/providers/me", headers=person.auth)).json()
    assert mine["payout"] is None


async def test_a_change_of_address_waits_and_can_be_called_off(street: Street) -> None:
    person = await street.provider()
    first, second, third = _payout(street), _payout(street), _payout(street)
    clock = street.world.sources.settable
    started = clock()
    answer = await _set(street, person, first)
    assert answer.json()["payout"]["valid_from"] == times.text(started)
    clock.advance(seconds=1)
    answer = await _set(street, person, second)
    changed = clock()
    due = changed + _cooldown(street)
    assert answer.json()["payout"] == {**second, "reference": None, "proven": False, "valid_from": times.text(due)}

    async def in_force(at: datetime) -> str:
        async with street.world.context.database.read() as connection:
            party = await parties.get(connection, person.id)
            found = await parties.payout_address_at(connection, party.no, at)
            assert found is not None
            return found.address

    assert await in_force(due - _tick()) == first["address"]
    assert await in_force(due) == second["address"]
    mine = (await street.client.get("/v1/providers/me", headers=person.auth)).json()
    assert (mine["payout"]["address"], mine["payout_next"]["address"]) == (first["address"], second["address"])

    clock.advance(seconds=1)
    again = await _set(street, person, second)
    assert again.json()["payout"]["valid_from"] == times.text(due), (
        "asking again neither restarts nor shortens the wait"
    )
    clock.advance(seconds=1)
    called_off = await _set(street, person, first)
    assert called_off.json()["payout"]["valid_from"] == times.text(clock())
    assert await in_force(due) == first["address"]
    mine = (await street.client.get("/v1/providers/me", headers=person.auth)).json()
    assert mine["payout_next"] is None
    clock.advance(seconds=1)
    await _set(street, person, third)
    assert await in_force(clock() + _cooldown(street)) == third["address"]


async def test_a_signed_change_takes_effect_once(street: Street) -> None:
    person = await street.provider()
    old = {"purpose": "set-payout-address", "at": street.now(), "payout": _payout(street)}
    path = "/v1/providers/me/payout-address"
    assert (await street.send("PUT", path, old, person.key)).status_code == 200
    await _set(street, person, _payout(street))
    problem(await street.send("PUT", path, old, person.key), 409, "signature_replayed")


async def test_only_a_provider_has_a_payout_address(street: Street) -> None:
    consumer = await street.consumer()
    problem(await _set(street, consumer, _payout(street)), 403, "providers_only")
    problem(await street.client.get("/v1/providers/me", headers=consumer.auth), 403, "providers_only")


async def test_the_signed_request_is_kept_as_evidence(street: Street) -> None:
    person = await street.provider()
    document = {"purpose": "set-payout-address", "at": street.now(), "payout": _payout(street)}
    body = json.dumps(document).encode()
    await street.send("PUT", "/v1/providers/me/payout-address", body, person.key)
    async with street.world.context.database.read() as connection:
        row = (await connection.execute(text("SELECT signed_body, signature FROM payout_address"))).one()
    verify_detached(row.signature, row.signed_body, person.key.public)
    assert row.signed_body == body


def _cooldown(street: Street) -> timedelta:
    return Policy(version=1, effective_from=street.world.sources.clock()).address_cooldown


def _tick() -> timedelta:
    return timedelta(microseconds=1)
