"""Public keys over their whole life: registered, rotated, revoked, each from a time on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from httpx2 import Response

from settlement.core import times
from settlement.core.signatures import SigningKey
from tests.api.people import Person, Street, problem


async def _add(street: Street, person: Person, new: SigningKey, by: SigningKey, **more: Any) -> Response:
    document = {"purpose": "add-key", "at": street.now(), "party": person.id, "key": new.public.jwk(), **more}
    return await street.send("POST", "/v1/keys", document, by, also={"x-jws-signature-key": new})


async def _revoke(street: Street, kid: str, by: SigningKey, **more: Any) -> Response:
    document = {"purpose": "revoke-key", "at": street.now(), "kid": kid, **more}
    return await street.send("POST", f"/v1/keys/{kid}/revocation", document, by)


async def _is_taken(street: Street, key: SigningKey) -> bool:
    """Whether a request signed by that key is taken now."""
    street.world.sources.settable.advance(microseconds=1)
    document = {"purpose": "add-api-key", "at": street.now(), "scopes": ["read"]}
    answer = await street.send("POST", "/v1/api-keys", document, key)
    if answer.status_code != 201:
        problem(answer, 401, "key_unknown")
    return answer.status_code == 201


async def test_rotation_with_an_overlap(street: Street) -> None:
    person, new = await street.consumer(), street.new_key()
    clock = street.world.sources.settable
    registered = clock()
    clock.advance(seconds=1)
    begins, ends = clock() + timedelta(hours=1), clock() + timedelta(hours=2)
    added = await _add(street, person, new, person.key, valid_from=times.text(begins))
    assert added.status_code == 201
    revoked = await _revoke(street, person.key.public.kid, person.key, revoked_at=times.text(ends))
    assert revoked.json()["revoked_at"] == times.text(ends)
    assert (await _is_taken(street, person.key), await _is_taken(street, new)) == (True, False)
    clock.now = begins
    assert (await _is_taken(street, person.key), await _is_taken(street, new)) == (True, True)
    clock.now = ends
    assert (await _is_taken(street, person.key), await _is_taken(street, new)) == (False, True)
    listed = (await street.client.get("/v1/keys", headers=person.auth)).json()
    assert [(each["kid"], each["valid_from"], each["revoked_at"]) for each in listed["data"]] == [
        (person.key.public.kid, times.text(registered), times.text(ends)),
        (new.public.kid, times.text(begins), None),
    ]


async def test_the_bounds_are_half_open(street: Street) -> None:
    person, new = await street.consumer(), street.new_key()
    clock = street.world.sources.settable
    begins = clock() + timedelta(hours=1)
    await _add(street, person, new, person.key, valid_from=times.text(begins))
    clock.now = begins - timedelta(microseconds=2)
    assert not await _is_taken(street, new)
    assert await _is_taken(street, new)
    ends = clock() + timedelta(hours=1)
    await _revoke(street, new.public.kid, person.key, revoked_at=times.text(ends))
    clock.now = ends - timedelta(microseconds=2)
    assert await _is_taken(street, new)
    assert not await _is_taken(street, new)


async def test_the_last_key_cannot_be_revoked(street: Street) -> None:
    person, new = await street.consumer(), street.new_key()
    clock = street.world.sources.settable
    problem(await _revoke(street, person.key.public.kid, person.key), 409, "last_key")
    begins = clock() + timedelta(hours=1)
    await _add(street, person, new, person.key, valid_from=times.text(begins))
    clock.advance(seconds=1)
    gap = times.text(begins - timedelta(microseconds=1))
    problem(await _revoke(street, person.key.public.kid, person.key, revoked_at=gap), 409, "last_key")
    assert (await _revoke(street, person.key.public.kid, person.key, revoked_at=times.text(begins))).status_code == 200
    problem(await _revoke(street, new.public.kid, person.key), 409, "last_key")


async def test_a_revocation_can_be_brought_forward_but_not_taken_back(street: Street) -> None:
    person, new = await street.consumer(), street.new_key()
    clock = street.world.sources.settable
    await _add(street, person, new, person.key)
    later, sooner = clock() + timedelta(days=2), clock() + timedelta(days=1)
    old = person.key.public.kid
    await _revoke(street, old, new, revoked_at=times.text(later))
    assert (await _revoke(street, old, new, revoked_at=times.text(sooner))).json()["revoked_at"] == times.text(sooner)
    clock.advance(seconds=1)
    assert (await _revoke(street, old, new, revoked_at=times.text(later))).json()["revoked_at"] == times.text(sooner)
    assert (await _revoke(street, old, new)).json()["revoked_at"] == times.text(clock())
    assert not await _is_taken(street, person.key)


async def test_nothing_begins_or_ends_in_the_past(street: Street) -> None:
    person, new = await street.consumer(), street.new_key()
    past = times.text(street.world.sources.clock() - timedelta(seconds=1))
    problem(await _add(street, person, new, person.key, valid_from=past), 422, "time_in_past")
    problem(await _revoke(street, person.key.public.kid, person.key, revoked_at=past), 422, "time_in_past")


async def test_a_new_key_proves_itself_and_is_new(street: Street) -> None:
    person, other, new = await street.consumer(), await street.consumer(), street.new_key()
    document = {"purpose": "add-key", "at": street.now(), "party": person.id, "key": new.public.jwk()}
    problem(await street.send("POST", "/v1/keys", document, person.key), 401, "signature_missing")
    wrong = await street.send("POST", "/v1/keys", document, person.key, also={"x-jws-signature-key": person.key})
    problem(wrong, 401, "key_unknown")
    problem(await _add(street, person, other.key, person.key), 409, "key_already_registered")


async def test_keys_of_others_are_out_of_reach(street: Street) -> None:
    person, other, new = await street.consumer(), await street.consumer(), street.new_key()
    problem(await _add(street, person, new, other.key), 403, "key_of_another")
    problem(await _revoke(street, person.key.public.kid, other.key), 404, "unknown_key")
    problem(await _add(street, person, new, new), 401, "key_unknown")
    assert await _is_taken(street, person.key)


async def test_a_revocation_is_for_the_key_that_its_body_names(street: Street) -> None:
    person, new = await street.consumer(), street.new_key()
    await _add(street, person, new, person.key)
    document = {"purpose": "revoke-key", "at": street.now(), "kid": new.public.kid}
    path = f"/v1/keys/{person.key.public.kid}/revocation"
    problem(await street.send("POST", path, document, person.key), 422, "document_malformed")
    assert await _is_taken(street, person.key)
