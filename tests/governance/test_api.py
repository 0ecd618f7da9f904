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
from tests.governance.test_refusals import state
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


ABOUT = ("council", "governance", "disputes", "observations", "fixings", "demand", "offers", "rate-tables", "meters",
         "counterfactual", "surcharges", "reputation")  # fmt: skip
"""Words of the paths of what governs, of what a CU is worth, and of disputes."""
NAMES = ("x", "prp_" + "0" * 26, "win_1", "0", "-1", "9" * 30, "%00", "%ff", "..", "é", "a" * 3000,
         "prp_%0a" + "0" * 25)  # fmt: skip
BODIES = (b"", b"null", b"[]", b"{}", b"[" * 2000, b'{"a":NaN}', b'{"a":1,"a":1}', b"\xff", b'{"text":""}',
          b'{"type":"x","more":1e9}', b'{"text":17}',
          b'{"provider":"prv_x","ground":"count","record":"x","window":"win_1"}')  # fmt: skip
QUERIES = ("?after=-1", "?after=x&limit=0", "?limit=1000000", "?cursor=%00", "?rates=prp_x", "?rates=", "?rates=-1")
SIGNATURES = (None, "", "a..b", "." * 5000, "e30..AAAA")


def calls(app: FastAPI) -> list[tuple[str, str]]:
    """Each method and path that is about governing, value and disputes."""
    return [
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        if any(f"/{word}" in path for word in ABOUT)
        for method in methods
    ]


async def test_bad_input_to_every_route_is_a_documented_problem_and_changes_nothing(
    app: FastAPI, client: AsyncClient, world: World
) -> None:
    """Names, queries, bodies and signatures that do harm, with a consumer's API key, a provider's, and none."""
    chamber, street = await seated(world), Street(client, world)
    proposal = await chamber.propose("rates", following(first_rates(), chamber.now + 20 * DAY))
    doors = [{}, (await street.consumer()).auth, (await street.provider()).auth]
    found = calls(app)
    assert len(found) > 25
    before, seen = await state(world), set()
    for number, (method, path) in enumerate(found):
        names = (*NAMES, proposal.id) if "{" in path else ("",)
        tries: list[tuple[str, str, bytes, str | None]] = [(name, "", b"{}", None) for name in names]
        tries += [(proposal.id, query, b"{}", None) for query in QUERIES]
        tries += [(proposal.id, "", body, SIGNATURES[turn % 5]) for turn, body in enumerate(BODIES * 2)]
        tries += [(proposal.id, "", body, "signed") for body in BODIES] if method == "POST" else []
        for turn, (name, query, body, signature) in enumerate(tries):
            if signature == "signed":
                signature = sign_detached(chamber.keys[0], body, (PROPOSAL_TYPE, DECISION_TYPE)[turn % 2])
            headers = {**JSON, **doors[(number + turn) % 3]} | (
                {} if signature is None else {"x-jws-signature": signature}
            )
            place = path
            while "{" in place:
                place = place.replace(place[place.index("{") : place.index("}") + 1], name)
            answer = await client.request(method, place + query, content=body, headers=headers)
            what = f"{method} {place[:80]}{query} {body[:40]!r} {str(signature)[:20]}: {answer.text[:300]}"
            assert answer.status_code < 500, what
            if answer.is_success or answer.status_code == 304:
                assert method == "GET", what
                continue
            assert answer.headers["content-type"] == "application/problem+json", what
            assert answer.json()["code"] in CODES, what
            seen.add(answer.json()["code"])
        assert method == "GET" or await state(world) == before, f"{method} {path}"
    assert {
        "unknown_proposal",
        "signature_missing",
        "api_key_missing",
        "json_duplicate_key",
        "proposal_malformed",
    } <= seen
    assert "rate_limited" not in seen
