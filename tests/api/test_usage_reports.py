"""The hot route: the answer, the same answer again, and what is refused, over HTTP."""

from __future__ import annotations

import json

import pytest
from httpx2 import Response

from settlement.client.verifier import check_receipt
from settlement.core.signatures import sign_detached
from tests.api.people import JSON, Street, problem
from tests.api.town import auth
from tests.storage.books import balance

pytestmark = pytest.mark.database


async def post(street: Street, body: bytes, signature: str | None) -> Response:
    headers = JSON if signature is None else {**JSON, "x-jws-signature": signature}
    return await street.client.post("/v1/usage-reports", content=body, headers=headers)


async def test_a_report_is_answered_with_a_receipt_and_again_with_the_same(street: Street) -> None:
    world = street.world
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    body, signature = world.report(provider, [world.record(consumer), world.record("acc_" + "0" * 26)])
    answer = await post(street, body, signature)
    assert (answer.status_code, answer.headers.get("idempotency-replayed")) == (201, None)
    found = answer.json()
    assert (found["accepted"], found["total"]) == (1, "0.789722")
    assert [(each["line"], each["pointer"], each["code"]) for each in found["refused"]] == [
        (1, "/records/1", "unknown_consumer")
    ]
    assert check_receipt(found["receipt"], key=world.context.key.public.jwk(), body=body).good
    again = await post(street, body, signature)
    assert (again.status_code, again.headers["idempotency-replayed"], again.json()) == (201, "true", found)
    assert await balance(world, provider.id) == 789_722

    mine = await auth(world, provider)
    stored = await street.client.get("/v1/receipts/report-1", headers=mine)
    assert (stored.status_code, stored.json()) == (200, found)
    problem(await street.client.get("/v1/receipts/report-2", headers=mine), 404, "unknown_report")
    other = await auth(world, await world.provider())
    problem(await street.client.get("/v1/receipts/report-1", headers=other), 404, "unknown_report")


async def test_what_is_refused_charges_nothing(street: Street) -> None:
    world = street.world
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    stranger = await world.provider()
    body, signature = world.report(provider, [world.record(consumer)])
    skipped = json.dumps({**json.loads(body), "seq": 2, "report": "x", "prev": "sha256:" + "0" * 64}).encode()
    for sent, signed, status, code in (
        (body, None, 401, "signature_missing"),
        (body + b" ", signature, 401, "signature_invalid"),
        (body, sign_detached(stranger.key, body), 403, "key_of_another"),
        (skipped, sign_detached(provider.key, skipped), 409, "sequence_gap"),
        (b"[]", sign_detached(provider.key, b"[]"), 422, "document_malformed"),
    ):
        problem(await post(street, sent, signed), status, code)
    assert await balance(world, provider.id) == 0
    assert (await post(street, body, signature)).status_code == 201
