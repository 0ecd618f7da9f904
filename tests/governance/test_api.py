"""A decision over HTTP, from a member's bytes to the table in force; strangers are refused with documented codes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from governance import api, proposals, service
from governance.register import DECISION_TYPE, PROPOSAL_TYPE
from settlement.api.app import create_app
from settlement.api.problems import CODES
from settlement.core import canonical
from settlement.core.signatures import SigningKey, sign_detached
from tests.api.people import JSON, Street
from tests.governance.chamber import DAY, seated
from tests.governance.tables import following
from tests.world import World, first_rates

pytestmark = pytest.mark.database


@pytest.fixture
def app(world: World) -> FastAPI:
    return create_app(world.context, routers=[api.router])


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://api.test") as found:
        yield found


async def post(client: AsyncClient, path: str, body: bytes, key: SigningKey, typ: str) -> tuple[int, dict[str, Any]]:
    headers = {**JSON, "x-jws-signature": sign_detached(key, body, typ)}
    answer = await client.post(path, content=body, headers=headers)
    found = answer.json()
    assert answer.is_success or found["code"] in CODES
    return answer.status_code, found


async def test_a_decision_over_http(client: AsyncClient, world: World) -> None:
    assert (await client.get("/v1/council")).json()["governed_by"] == "operator"
    chamber = await seated(world)
    council = (await client.get("/v1/council")).json()
    assert council["governed_by"] == "council"
    assert council["council"]["digest"] == canonical.digest(chamber.first)
    body = chamber.proposal("rates", following(first_rates(), chamber.now + 20 * DAY))
    place = "/v1/governance/proposals"
    status, made = await post(client, place, body, chamber.keys[0], PROPOSAL_TYPE)
    assert (status, made["state"], made["threshold"], made["notice_seconds"]) == (201, "open", "higher", 1209600)
    assert (await post(client, place, body, chamber.keys[0], PROPOSAL_TYPE))[0] == 201
    mine = f"{place}/{made['id']}"
    exact = await client.get(f"{mine}/document")
    assert exact.content == body
    proposal = proposals.parse(exact.content)
    for number in range(3):
        decision = proposals.decide("approve", proposal)
        status, found = await post(client, f"{mine}/approvals", decision, chamber.keys[number], DECISION_TYPE)
        assert status == 200
    assert found["state"] == "adopted"
    assert [each["name"] for each in found["approved"]] == ["member 0", "member 1", "member 2"]
    world.sources.settable.advance(days=1)
    await service.enact_due(world.context)
    assert (await client.get(mine)).json()["state"] == "enacted"
    assert (await client.get(place)).json()["data"][0]["id"] == made["id"]
    table = (await client.get("/v1/rate-tables/2")).content
    assert canonical.digest(table) == made["document_digest"]
    log = (await client.get("/v1/governance/log?limit=3")).json()
    assert (len(log["data"]), log["next_cursor"]) == (3, "3")
    rest = (await client.get("/v1/governance/log?after=3&limit=100")).json()
    council = (await client.get("/v1/council")).json()
    assert council["log"] == {"size": rest["data"][-1]["no"], "head": rest["data"][-1]["hash"]}


async def test_strangers_and_wrong_doors(client: AsyncClient, world: World) -> None:
    chamber = await seated(world)
    proposal = await chamber.propose("rates", following(first_rates(), chamber.now + 20 * DAY))
    mine = f"/v1/governance/proposals/{proposal.id}"
    decision = proposals.decide("approve", proposal)
    stranger = SigningKey(bytes(32))
    assert (await post(client, f"{mine}/approvals", decision, stranger, DECISION_TYPE))[1]["code"] == "not_a_member"
    wrong = await post(client, f"{mine}/vetoes", decision, chamber.keys[0], DECISION_TYPE)
    assert (wrong[0], wrong[1]["code"]) == (409, "decision_of_another")
    assert (await client.post(f"{mine}/comments", json={"text": "x"})).json()["code"] == "api_key_missing"
    street = Street(client, world)
    person = await street.consumer()
    said = await client.post(f"{mine}/comments", json={"text": "too dear"}, headers=person.auth)
    assert said.status_code == 201
    found = (await client.get(f"{mine}/comments")).json()["data"]
    assert [(each["party"], each["text"], each["no"]) for each in found] == [(person.id, "too dear", said.json()["no"])]
    missing = "/v1/governance/proposals/prp_" + "0" * 26
    for path in (missing, f"{missing}/document", f"{missing}/comments"):
        assert (await client.get(path)).json()["code"] == "unknown_proposal"


async def test_the_description_is_complete(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert len([path for path in paths if path.startswith(("/v1/governance/", "/v1/council"))]) == 11
    for path in ("/v1/council", "/v1/governance/log", "/v1/governance/proposals/{proposal}/approvals"):
        assert path in paths
