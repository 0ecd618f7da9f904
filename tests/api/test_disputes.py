"""A dispute over HTTP, from both sides and by the council; refusals are problems with documented codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from governance import proposals
from governance.register import DECISION_TYPE, PROPOSAL_TYPE
from settlement.core import canonical, times
from settlement.core.disputes import ANSWER_TYPE
from settlement.core.signatures import SigningKey, sign_detached
from settlement.services import metering
from tests.api.people import JSON, Street, problem
from tests.api.town import auth
from tests.governance.chamber import seated
from tests.world import Member

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/schemas/answer-1.json").read_text("utf-8"))


async def signed(street: Street, path: str, document: Any, key: SigningKey, typ: str) -> Any:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {**JSON, "x-jws-signature": sign_detached(key, body, typ)}
    return await street.client.post(path, content=body, headers=headers)


async def used(street: Street) -> tuple[Member, Member, list[str]]:
    world = street.world
    consumer, provider = await world.consumer(micro=10**9), await world.provider()
    records = [world.record(consumer) for _ in range(3)]
    body, signature = world.report(provider, records)
    await metering.submit(world.context, body=body, signature=signature)
    return consumer, provider, [record["id"] for record in records]


async def test_a_dispute_is_opened_answered_and_ruled_on(street: Street) -> None:
    chamber = await seated(street.world)
    consumer, provider, records = await used(street)
    mine, theirs = await auth(street.world, consumer, "read", "disputes"), await auth(street.world, provider)
    claim = {"provider": provider.id, "record": records[0], "ground": "count", "counts": {"input_tokens": 1155}}
    answer = await street.client.post("/v1/disputes", json=claim, headers=mine)
    assert answer.status_code == 201
    opened = answer.json()
    assert (opened["state"], opened["charged"], opened["claimed"]) == ("open", "0.789722", "0.468888")
    place = f"/v1/disputes/{opened['id']}"
    for headers in (mine, theirs):
        assert (await street.client.get(place, headers=headers)).json() == opened
        assert (await street.client.get("/v1/disputes", headers=headers)).json()["data"] == [opened]
    said = {"type": "answer/1", "dispute": opened["id"], "answer": "contest", "counts": {"output_tokens": 211}}
    jsonschema.Draft202012Validator(SCHEMA).validate(said)
    answered = await signed(street, f"{place}/answers", said, provider.key, ANSWER_TYPE)
    assert (answered.status_code, answered.json()["state"]) == (200, "answered")
    assert json.loads(answered.json()["answer"]) == said
    ruling = {
        "type": "ruling/1",
        "version": 1,
        "parent": None,
        "effective_from": times.text(street.world.sources.clock()),
        "dispute": opened["id"],
        "consumer": consumer.id,
        "provider": provider.id,
        "award": "400000",
        "penalty": "100000",
        "reason": "the gateway's log shows no output",
    }
    body = chamber.proposal("ruling", canonical.encode(ruling))
    proposed = await signed(street, f"{place}/rulings", body, chamber.keys[0], PROPOSAL_TYPE)
    assert (proposed.status_code, proposed.json()["subject"]) == (201, opened["id"])
    wrong = await signed(street, "/v1/disputes/dsp_other/rulings", body, chamber.keys[0], PROPOSAL_TYPE)
    problem(wrong, 409, "ruling_out_of_bounds")
    decision = proposals.decide("approve", proposals.parse(body))
    for key in chamber.keys[:2]:
        path = f"/v1/governance/proposals/{proposed.json()['id']}/approvals"
        assert (await signed(street, path, decision, key, DECISION_TYPE)).status_code == 200
    ended = (await street.client.get(place, headers=theirs)).json()
    assert (ended["state"], ended["cause"]) == ("upheld", "council")
    assert (ended["award"], ended["penalty"], ended["owed"]) == ("0.4", "0.1", "0")


async def test_refusals_are_problems_and_strangers_see_nothing(street: Street) -> None:
    consumer, provider, records = await used(street)
    mine, reading = await auth(street.world, consumer, "disputes"), await auth(street.world, consumer)
    other = await auth(street.world, await street.world.consumer("other"))
    claim = {"provider": provider.id, "record": records[0], "ground": "not_requested"}
    post = street.client.post
    problem(await post("/v1/disputes", json=claim), 401, "api_key_missing")
    problem(await post("/v1/disputes", json=claim, headers=reading), 403, "scope_missing")
    problem(await post("/v1/disputes", json={**claim, "ground": "x"}, headers=mine), 422, "document_malformed")
    problem(await post("/v1/disputes", json={**claim, "why": "x"}, headers=mine), 422, "document_malformed")
    problem(await post("/v1/disputes", json={**claim, "record": "x"}, headers=mine), 422, "document_malformed")
    problem(
        await post("/v1/disputes", json={**claim, "evidence": ["my prompt"]}, headers=mine), 422, "document_malformed"
    )
    problem(await post("/v1/disputes", json={**claim, "amount": "0.7897220"}, headers=mine), 422, "document_malformed")
    problem(await post("/v1/disputes", json={**claim, "amount": "1"}, headers=mine), 409, "claim_above_charge")
    window = {"provider": provider.id, "window": "win_1", "ground": "count"}
    problem(await post("/v1/disputes", json=window, headers=mine), 409, "window_not_netted")
    problem(await post("/v1/disputes", json={**window, "window": "1"}, headers=mine), 404, "unknown_window")
    opened = (await post("/v1/disputes", json={**claim, "amount": "0.000001"}, headers=mine)).json()
    problem(await post("/v1/disputes", json=claim, headers=mine), 409, "dispute_exists")
    place = f"/v1/disputes/{opened['id']}"
    problem(await street.client.get(place, headers=other), 404, "unknown_dispute")
    assert (await street.client.get("/v1/disputes", headers=other)).json()["data"] == []
    said = {"type": "answer/1", "dispute": opened["id"], "answer": "accept"}
    problem(
        await signed(street, "/v1/disputes/dsp_other/answers", said, provider.key, ANSWER_TYPE),
        409,
        "answer_of_another",
    )
    problem(
        await signed(street, f"{place}/answers", said, provider.key, "usage-report+jws"), 401, "signature_malformed"
    )
    problem(
        await signed(street, f"{place}/answers", {**said, "answer": "no"}, provider.key, ANSWER_TYPE),
        422,
        "answer_malformed",
    )
    taken = await street.client.delete(place, headers=mine)
    assert (taken.status_code, taken.json()["state"]) == (200, "withdrawn")
    problem(await street.client.delete(place, headers=mine), 409, "dispute_ended")


async def test_disputes_come_page_by_page(street: Street) -> None:
    consumer, provider, records = await used(street)
    mine = await auth(street.world, consumer, "read", "disputes")
    for record in records:
        claim = {"provider": provider.id, "record": record, "ground": "not_received"}
        assert (await street.client.post("/v1/disputes", json=claim, headers=mine)).status_code == 201
    first = (await street.client.get("/v1/disputes?limit=2", headers=mine)).json()
    assert ([each["record"] for each in first["data"]], first["has_more"]) == ([records[2], records[1]], True)
    rest = (await street.client.get(f"/v1/disputes?cursor={first['next_cursor']}", headers=mine)).json()
    assert ([each["record"] for each in rest["data"]], rest["has_more"]) == ([records[0]], False)
