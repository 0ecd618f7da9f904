"""The page to print: sums that are the statement's, and nothing that a name could smuggle in."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from settlement.core.units import decimal_text
from settlement.services import printing, statements
from tests.client.town import Town, build
from tests.services.test_statements import records_of, text
from tests.world import World

pytestmark = pytest.mark.database


async def test_the_page_has_the_sums_the_balances_and_where_to_check_them(village: Town) -> None:
    for member in (village.buyer, village.plain, village.own):
        found = await statements.statement(village.context, member.id, 1)
        async with statements.opened(village.context, member.id, 1) as opened:
            page = await text(printing.as_html(opened))
        pico = sum(int(entry["charge_pico"]) for entry in found["records"])
        for said in (member.id, decimal_text(pico, 12), found["checkpoint"]["digest"], found["payouts"] and "settled"):
            assert not said or said in page
        assert found["position_proof"]["anchors"][0]["tx"] in page
        assert page.count("<html") == page.count("</html>") == 1
        assert not re.search(r"(src|href)=|<script|url[(]", page), "it needs nothing from anywhere"


async def test_what_disputes_moved_and_what_is_held_back_is_on_the_page(town: Town) -> None:
    found = await statements.statement(town.context, town.buyer.id, 2)
    async with statements.opened(town.context, town.buyer.id, 2) as opened:
        page = await text(printing.as_html(opened))
    assert len(found["disputes"]) == 3
    for each in found["disputes"]:
        assert each["id"] in page
        assert decimal_text(int(each["amount"]), 6) in page
    async with statements.opened(town.context, town.plain.id, 2) as opened:
        assert f"until {opened.head['position']['held_until']}" in await text(printing.as_html(opened))


async def test_names_are_text_and_never_markup(village: Town) -> None:
    found = await statements.statement(village.context, village.buyer.id, 1)
    found["records"][0]["record"]["model"] = "<script>alert(1)</script>"
    opened = statements.Opened(found, records_of(*found["records"]), Fraction(1))
    page = await text(printing.as_html(opened))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


async def test_an_idle_party_has_a_page(world: World) -> None:
    idle = await world.consumer("idle")
    town = await build(world, rounds=1)
    async with statements.opened(town.context, idle.id, 1) as opened:
        assert "None in this window." in await text(printing.as_html(opened))
