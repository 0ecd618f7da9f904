"""Proofs over HTTP are good offline; what isn't anchored or isn't yours has none."""

from __future__ import annotations

import json

import pytest

from settlement.client.verifier import check_proof
from tests.api.people import Street, problem
from tests.api.town import auth
from tests.client.town import Town

pytestmark = pytest.mark.database


async def test_what_is_served_checks_offline(street: Street, town: Town) -> None:
    mine = await auth(street.world, town.buyer)
    record = json.loads(town.linked.sent[0])["records"][0]["id"]
    key = (await street.client.get("/.well-known/jwks.json")).json()["keys"][0]
    for path, headers, tree in (
        (f"/v1/usage-records/{town.linked.id}/{record}/proof", {}, "records"),
        ("/v1/windows/win_1/position/proof", mine, "positions"),
        ("/v1/windows/win_1/liability/proof", mine, "liabilities"),
    ):
        answer = await street.client.get(path, headers=headers)
        found = check_proof(answer.content, trusted_key=key)
        assert found.fault is None
        assert (found.tree, found.window) == (tree, 1)
        assert town.buyer.id in str(found.leaf)


async def test_what_has_no_proof(street: Street, village: Town) -> None:
    mine, idle = await auth(street.world, village.buyer), await auth(street.world, await street.world.consumer())
    open_record = json.loads(village.linked.sent[-1])["records"][0]["id"]
    cases = [
        (f"/v1/usage-records/{village.plain.id}/{open_record}/proof", {}, 404, "record_unknown"),
        (f"/v1/usage-records/{village.linked.id}/{open_record}/proof", {}, 404, "record_not_checkpointed"),
        (f"/v1/usage-records/{village.linked.id}/nonsense/proof", {}, 404, "record_unknown"),
        ("/v1/windows/win_1/position/proof", idle, 404, "position_unknown"),
        ("/v1/windows/win_1/liability/proof", idle, 404, "liability_unknown"),
        ("/v1/windows/win_9/position/proof", mine, 404, "unknown_checkpoint"),
        ("/v1/windows/1/position/proof", mine, 404, "unknown_window"),
        ("/v1/windows/win_1/position/proof", {}, 401, "api_key_missing"),
    ]
    found = []
    for path, headers, _, _ in cases:
        answer = await street.client.get(path, headers=headers)
        code = answer.json()["code"]
        problem(answer, answer.status_code, code)
        found.append((path, headers, answer.status_code, code))
    assert found == cases


async def test_solvency_is_public(street: Street) -> None:
    before = (await street.client.get("/v1/solvency")).json()
    assert before == {"owed": "0", "held": "0", "covered": True, "short": None, "published": []}
    await street.world.consumer(micro=5_000_000)
    after = (await street.client.get("/v1/solvency")).json()
    assert (after["owed"], after["covered"]) == ("5", False), "these CU came from nowhere"
