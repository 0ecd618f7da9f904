"""Statements on the real services: what is in them, who sees what, and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from fractions import Fraction

import pytest

from settlement.core.errors import Conflict, NotFound
from settlement.services import statements
from tests.client.town import Town, build
from tests.world import World

pytestmark = pytest.mark.database


async def test_a_statement_has_the_party_and_nobody_else(village: Town) -> None:
    buyer = await statements.statement(village.context, village.buyer.id, 1)
    assert {entry["record"]["consumer"] for entry in buyer["records"]} == {village.buyer.id}
    assert {pair["provider"] for pair in buyer["pairs"]} == {village.linked.id, village.plain.id}
    assert buyer["position"]["party"] == village.buyer.id
    assert [deposit["asset"] for deposit in buyer["deposits"]] == ["USD:" + deposit_issuer(buyer)]
    plain = await statements.statement(village.context, village.plain.id, 1)
    assert {entry["provider"] for entry in plain["records"]} == {village.plain.id}
    assert {entry["record"]["consumer"] for entry in plain["records"]} == {village.own.id, village.buyer.id}
    assert [payout["state"] for payout in plain["payouts"]] == ["settled"]
    assert plain["payouts"][0]["tx"] is not None


def deposit_issuer(document: statements.Document) -> str:
    issuer: str = document["deposits"][0]["asset"].partition(":")[2]
    return issuer


async def test_a_linked_company_has_one_position(village: Town) -> None:
    own = await statements.statement(village.context, village.own.id, 1)
    linked = await statements.statement(village.context, village.linked.id, 1)
    assert own["position"] == linked["position"]
    assert own["position"]["party"] == village.linked.id
    assert own["position"]["linked"] is True
    assert int(own["position"]["netted"]) > 0


async def test_there_is_no_statement_before_the_netting(village: Town) -> None:
    with pytest.raises(Conflict) as refused:
        await statements.statement(village.context, village.buyer.id, 2)
    assert refused.value.code == "window_not_netted"
    for party, window in ((village.buyer.id, 9), ("acc_" + "0" * 26, 1)):
        with pytest.raises(NotFound):
            await statements.statement(village.context, party, window)


async def test_a_party_without_usage_has_an_empty_statement(world: World) -> None:
    idle = await world.consumer("idle")
    town = await build(world, rounds=1)
    found = await statements.statement(town.context, idle.id, 1)
    assert (found["records"], found["pairs"], found["position"], found["opening"]) == ([], [], None, "0")


async def records_of(*entries: statements.Document) -> AsyncIterator[statements.Document]:
    for entry in entries:
        yield entry


async def text(pieces: AsyncIterator[bytes]) -> str:
    return b"".join([piece async for piece in pieces]).decode()


async def test_csv_has_a_row_a_record_and_no_formula(village: Town) -> None:
    found = await statements.statement(village.context, village.buyer.id, 1)
    found["records"][0]["record"]["model"] = "@SUM(A1)"
    opened = statements.Opened(found, records_of(*found["records"]), Fraction(1))
    rows = list(csv.DictReader(io.StringIO(await text(statements.as_csv(opened)))))
    assert len(rows) == len(found["records"])
    assert rows[0]["model"] == "'@SUM(A1)"
    assert rows[0]["record"] == found["records"][0]["record"]["id"]
    whole, _, part = rows[1]["charge_cu"].partition(".")
    assert int(whole + part.ljust(12, "0")) == int(found["records"][1]["charge_pico"])


async def test_json_in_pieces_is_the_same_statement(village: Town) -> None:
    for member in (village.buyer, village.plain, village.own):
        async with statements.opened(village.context, member.id, 1) as opened:
            pieces = json.loads(await text(statements.as_json(opened)))
        assert pieces == await statements.statement(village.context, member.id, 1)
