"""Taking money out over HTTP: prove an address, withdraw once for an Idempotency-Key, see the fee beside the amount."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import text

from adapters.simulated import USD, Wallet
from settlement.core import addresses, times
from settlement.services import chains, withdrawals
from settlement.storage import idempotency
from tests.api.people import JSON, Person, Street, problem


def proof(street: Street, person: Person, wallet: Wallet, **changes: Any) -> dict[str, str]:
    at = street.world.sources.clock() + changes.pop("late", timedelta())
    said = {
        "network": street.world.chain.facts.network,
        "address": wallet.address,
        "kid": person.key.public.kid,
        "at": at,
        **changes,
    }
    key, signature = wallet.prove(addresses.statement(**said))
    return {"at": times.text(at), "signature": signature, "public_key": key}


async def set_address(
    street: Street, person: Person, wallet: Wallet, found: dict[str, str] | None, path: str = "accounts"
) -> Response:
    payout: dict[str, Any] = {"chain": "simulated", "asset": USD.text, "address": wallet.address, "reference": 7}
    if found is not None:
        payout["proof"] = found
    document = {"purpose": "set-payout-address", "at": street.now(), "payout": payout}
    return await street.send("PUT", f"/v1/{path}/me/payout-address", document, person.key)


async def withdraw(street: Street, person: Person, amount: str | None, key: str = "k-1") -> Response:
    headers = {**JSON, **person.auth, "Idempotency-Key": key}
    body = {} if amount is None else {"amount": amount}
    return await street.client.post("/v1/withdrawals", json=body, headers=headers)


async def rich(street: Street) -> tuple[Person, Wallet]:
    person, wallet = await street.consumer(), street.world.wallet()
    await street.world.credit(person.id, 5_000_000_000)
    await _hold_assets(street)
    answer = await set_address(street, person, wallet, proof(street, person, wallet))
    assert answer.status_code == 200, answer.text
    street.world.sources.settable.advance(hours=72)
    return person, wallet


async def _hold_assets(street: Street) -> None:
    """The treasury must hold what it pays: somebody pays it without a name."""
    street.world.wallet(usd=100_000_000).pay(street.world.chain.treasury, USD, 100_000_000, 4_000_000_000)


async def test_money_leaves_to_the_proven_address_and_the_fee_is_beside_it(street: Street) -> None:
    person, wallet = await rich(street)
    made = await withdraw(street, person, "2000")
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["fee"], shown["cu"], shown["amount"]) == ("2.222222", "1997.777778", "8.99")
    assert (shown["state"], shown["address"], shown["reference"]) == ("planned", wallet.address, 7)
    again = await withdraw(street, person, "2000")
    assert (again.content, again.headers["idempotency-replayed"]) == (made.content, "true")
    await chains.run_until_idle(street.world.context, "simulated")
    assert wallet.balance(USD) == 8_990_000
    listed = (await street.client.get("/v1/withdrawals", headers=person.auth)).json()["data"]
    assert [(each["id"], each["state"], each["fee"]) for each in listed] == [(shown["id"], "settled", "2.222222")]
    assert listed[0]["transaction"]
    account = (await street.client.get("/v1/accounts/me", headers=person.auth)).json()
    assert account["settled"] == "3000"
    other = await street.consumer()
    assert (await street.client.get("/v1/withdrawals", headers=other.auth)).json()["data"] == []


async def test_a_reply_that_was_never_stored_does_not_make_a_second_withdrawal(street: Street) -> None:
    """The process dies between the withdrawal's commit and its reply's; the same request comes again."""
    person, _ = await rich(street)
    first = (await withdraw(street, person, "2000")).json()
    async with street.world.context.database.begin() as connection:
        await connection.execute(text("DELETE FROM idempotency_key"))
    assert (await withdraw(street, person, "2000")).json()["id"] == first["id"]
    assert (await withdraw(street, person, "2000", "k-2")).json()["id"] != first["id"]
    assert len(await withdrawals.page(street.world.context, await _party(street, person), before=None, limit=9)) == 2
    assert idempotency.Claim.__name__ == "Claim"


async def _party(street: Street, person: Person) -> Any:
    from settlement.storage import parties

    async with street.world.context.database.read() as connection:
        return await parties.get(connection, person.id)


@pytest.mark.parametrize(
    ("document", "code", "status"),
    [
        ("10", "withdrawal_too_small", 409),
        ("5000.000001", "insufficient_balance", 402),
        ("1.0000001", "amount_malformed", 422),
        ("-5", "amount_malformed", 422),
    ],
)
async def test_what_can_not_leave_is_refused(street: Street, document: str, code: str, status: int) -> None:
    person, _ = await rich(street)
    answer = await withdraw(street, person, document)
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] in (code, "document_malformed")


async def test_withdrawals_need_a_key_of_their_scope_an_idempotency_key_and_an_address(street: Street) -> None:
    person = await street.consumer()
    answer = await street.client.post("/v1/withdrawals", json={}, headers=person.auth)
    problem(answer, 400, "idempotency_key_missing")
    problem(await withdraw(street, person, "1000"), 409, "address_not_set")
    weaker = await street.client.post("/v1/api-keys", json={"scopes": ["read"]}, headers=person.auth)
    assert weaker.status_code == 201, weaker.text
    reader = Person(person.id, person.key, weaker.json()["api_key"])
    problem(await withdraw(street, reader, "1000"), 403, "scope_missing")
    provider = await street.provider()
    problem(await withdraw(street, provider, "1000"), 403, "consumers_only")


async def test_an_address_is_proven_by_its_own_key_for_this_participant_and_now(street: Street) -> None:
    person, wallet, thief = await street.consumer(), street.world.wallet(), street.world.wallet()
    problem(await set_address(street, person, wallet, None), 422, "address_unproven")
    good = proof(street, person, wallet)
    for bad in (
        {**good, "signature": thief.prove("x")[1]},
        {**good, "public_key": thief.key.public.hex()},
        {**proof(street, person, thief, address=wallet.address)},
        {**proof(street, person, wallet, kid="a" * 43)},
        {**proof(street, person, wallet, network="simulated:other")},
        {**proof(street, person, wallet, address=thief.address)},
        {**good, "at": times.text(street.world.sources.clock() + timedelta(seconds=1))},
        {**proof(street, person, wallet, late=timedelta(hours=-1, seconds=-1))},
        {**good, "signature": "zz"},
    ):
        street.world.sources.settable.advance(seconds=1)
        problem(await set_address(street, person, wallet, bad), 422, "address_proof_invalid")
    assert (await set_address(street, person, wallet, good)).json()["payout"]["proven"] is True


async def test_the_text_to_sign_is_given_by_the_service(street: Street) -> None:
    person, wallet = await street.consumer(), street.world.wallet()
    query = {"chain": "simulated", "address": wallet.address, "kid": person.key.public.kid}
    asked = await street.client.get("/v1/address-proof", params=query, headers=person.auth)
    said = asked.json()
    assert said["method"] == "simulated"
    key, signature = wallet.prove(said["text"])
    found = {"at": said["at"], "signature": signature, "public_key": key}
    assert (await set_address(street, person, wallet, found)).status_code == 200
    unknown = await street.client.get("/v1/address-proof", params={**query, "kid": "other"}, headers=person.auth)
    problem(unknown, 404, "unknown_key")


async def test_the_first_address_waits_as_well_and_another_takes_its_place(street: Street) -> None:
    """Whoever has stolen a key proves an address of his own: its owner has three days to see it."""
    person, thief, own = await street.consumer(), street.world.wallet(), street.world.wallet()
    await street.world.credit(person.id, 5_000_000_000)
    await _hold_assets(street)
    for wallet in (thief, own):
        await set_address(street, person, wallet, proof(street, person, wallet))
        problem(await withdraw(street, person, "1000"), 409, "address_not_set")
        shown = (await street.client.get("/v1/accounts/me/payout-address", headers=person.auth)).json()
        assert (shown["payout"], shown["payout_next"]["address"]) == (None, wallet.address)
        street.world.sources.settable.advance(hours=71)
    problem(await withdraw(street, person, "1000"), 409, "address_not_set")
    street.world.sources.settable.advance(hours=1)
    assert (await withdraw(street, person, "1000")).json()["address"] == own.address


async def test_a_changed_address_waits_and_the_old_one_is_paid_meanwhile(street: Street) -> None:
    person, old = await rich(street)
    fresh = street.world.wallet()
    changed = await set_address(street, person, fresh, proof(street, person, fresh))
    assert changed.json()["payout"]["valid_from"] == times.text(street.world.sources.clock() + timedelta(hours=72))
    shown = (await street.client.get("/v1/accounts/me/payout-address", headers=person.auth)).json()
    assert (shown["payout"]["address"], shown["payout_next"]["address"]) == (old.address, fresh.address)
    assert (await withdraw(street, person, "1000")).json()["address"] == old.address
    street.world.sources.settable.advance(hours=72)
    assert (await withdraw(street, person, "1000", "k-2")).json()["address"] == fresh.address


async def test_a_provider_may_prove_its_address_and_may_leave_it(street: Street) -> None:
    provider, wallet = await street.provider(), street.world.wallet()
    plain = await set_address(street, provider, wallet, None, "providers")
    assert plain.json()["payout"]["proven"] is False
    street.world.sources.settable.advance(seconds=1)
    proven = await set_address(street, provider, wallet, proof(street, provider, wallet), "providers")
    assert proven.json()["payout"]["proven"] is True
