"""Payouts and earnings over HTTP: amounts in both scales, page by page, nobody else's."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from settlement.core.units import cu_text
from settlement.services import payouts
from tests.api.people import Street, problem
from tests.api.town import auth
from tests.client.town import Town

pytestmark = pytest.mark.database


async def pages(street: Street, path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    """All rows of a list, one a page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        parameters = {"limit": "1", **({"cursor": cursor} if cursor else {})}
        page = (await street.client.get(path, params=parameters, headers=headers)).json()
        assert page["has_more"] == (page["next_cursor"] is not None)
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_every_payout_with_its_transaction(street: Street, town: Town) -> None:
    mine = await auth(street.world, town.plain)
    found = await pages(street, "/v1/payouts", mine)
    assert found == (await street.client.get("/v1/payouts", headers=mine)).json()["data"]
    assert [(each["window"], each["state"]) for each in found] == [("win_2", "settled"), ("win_1", "settled")]
    stored = [await payouts.of_window(town.context, number) for number in (2, 1)]
    rows = [row for window in stored for row in window if row.party_id == town.plain.id]
    assert [each["cu"] for each in found] == [cu_text(row.micro) for row in rows]
    assert [Fraction(each["amount"]) * 10**6 for each in found] == [row.amount for row in rows], "USD has 6 places"
    assert all(each["transaction"] and each["ledger"] for each in found)
    nobody = await auth(street.world, await street.world.provider())
    assert (await street.client.get("/v1/payouts", headers=nobody)).json()["data"] == []


async def test_earnings_by_window(street: Street, town: Town) -> None:
    mine = await auth(street.world, town.linked)
    found = await pages(street, "/v1/earnings", mine)
    assert [each["window"] for each in found] == ["win_2", "win_1"]
    for each in found:
        assert Fraction(each["net"]) == Fraction(each["earned"]) - Fraction(each["spent"])
        assert Fraction(each["netted"]) == min(Fraction(each["earned"]), Fraction(each["spent"])) > 0
    page = (await street.client.get("/v1/earnings", headers=mine)).json()
    assert Fraction(page["settled"]) >= Fraction(page["open_window"]) > 0


async def test_a_cursor_of_another_list_is_refused(street: Street, town: Town) -> None:
    mine = await auth(street.world, town.plain)
    cursor = (await street.client.get("/v1/payouts", params={"limit": "1"}, headers=mine)).json()["next_cursor"]
    for path, value in (("/v1/earnings", cursor), ("/v1/payouts", "cGF5Xy0x"), ("/v1/payouts", cursor + "=")):
        problem(await street.client.get(path, params={"cursor": value}, headers=mine), 422, "cursor_malformed")
    for path in ("/v1/payouts", "/v1/earnings"):
        problem(await street.client.get(path, headers=await auth(street.world, town.buyer)), 403, "providers_only")
