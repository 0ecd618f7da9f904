"""Statements over HTTP: they recompute, and are one's own."""

from __future__ import annotations

import csv
import io

import pytest

from settlement.client.verifier import recompute_statement
from tests.api.people import Street, problem
from tests.api.town import auth
from tests.client.town import Town

pytestmark = pytest.mark.database


async def test_a_statement_recomputes_as_it_was_served(street: Street, town: Town) -> None:
    for member in (town.buyer, town.plain, town.own):
        answer = await street.client.get("/v1/statements/win_2", headers=await auth(street.world, member))
        assert answer.headers["content-type"] == "application/json"
        result = recompute_statement(answer.content, trusted_key=town.context.key.public.jwk())
        assert result.fault is None
        assert answer.json()["party"] == member.id
        assert result.records > 0


async def test_csv_has_the_same_records(street: Street, village: Town) -> None:
    mine = await auth(street.world, village.buyer)
    document = (await street.client.get("/v1/statements/win_1", headers=mine)).json()
    answer = await street.client.get("/v1/statements/win_1", params={"format": "csv"}, headers=mine)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["record"] for row in rows] == [each["record"]["id"] for each in document["records"]]


async def test_what_is_refused(street: Street, village: Town) -> None:
    mine = await auth(street.world, village.buyer)
    narrow = await auth(street.world, village.buyer, "funding")
    for path, headers, status, code in (
        ("/v1/statements/win_2", mine, 409, "window_not_netted"),
        ("/v1/statements/win_7", mine, 404, "unknown_window"),
        ("/v1/statements/win_01", mine, 404, "unknown_window"),
        ("/v1/statements/win_1?format=xml", mine, 422, "request_malformed"),
        ("/v1/statements/win_1", {}, 401, "api_key_missing"),
        ("/v1/statements/win_1", narrow, 403, "scope_missing"),
    ):
        answer = await street.client.get(path, headers=headers)
        assert (path, answer.status_code, answer.json()["code"]) == (path, status, code)
        problem(answer, status, code)
