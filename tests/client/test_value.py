"""The index offline: an honest market passes, every lie about a price, a fixing or a conversion is found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from settlement.client.verifier import recompute_statement
from settlement.core import canonical
from settlement.core.signatures import sign_document
from settlement.services import statements
from tests.client.market import Market
from tests.client.test_documents import conforms
from tests.client.test_verifier import changed, get, places, put
from tests.client.town import Lines, exported, of_kind, parsed, verdicts, verified
from tests.world import World

pytestmark = pytest.mark.database
UNSEEN = {("observation", "received_at"), ("deposit", "closed_at"), ("deposit", "ledger")}
"""Our clock and the chain's, within what the rules leave open."""


def fault_of(lines: Lines) -> str:
    report = verified(lines)
    return "" if report.fault is None else report.fault.code


async def test_an_honest_market_passes_and_its_fixings_are_made_again(market_export: list[bytes]) -> None:
    lines = parsed(market_export)
    assert fault_of(lines) == ""
    frozen = [json.loads(line["document"])["frozen"] for line in lines if line["kind"] == "fixing"]
    assert frozen == [None, None, None, "source_stale GPU", None, None, "gap between basket and value", None]
    deposits = [line["fixing"] for line in lines if line["kind"] == "deposit"]
    assert deposits[-5:] == [1, 2, 5, 8] or None in deposits
    rates = [(line["fixing"], line["own_rate"]) for line in lines if line["kind"] == "payout"]
    assert (8, False) in rates


async def test_every_member_of_observations_fixings_and_conversions_is_checked(market_export: list[bytes]) -> None:
    lines = parsed(market_export)
    raw = market_export
    chosen = [
        (number, line)
        for kind, found in (("observation", 2), ("fixing", 3), ("deposit", 3))
        for number, line in [each for each in enumerate(lines) if each[1]["kind"] == kind][-found:]
    ]
    chosen.sort(key=lambda each: each[0])
    changes, keys = [], []
    for number, line in chosen:
        for at in places(line):
            other = json.loads(json.dumps(line))
            put(other, at, changed(get(line, at)))
            changes.append((number, [json.dumps(other).encode(), *raw[number + 1 :]]))
            keys.append((line["kind"], *[step for step in at if isinstance(step, str)]))
    found = zip(keys, verdicts(raw, changes), strict=True)
    assert {key for key, report in found if report.good} == UNSEEN
    missing = verdicts(raw, [(number, raw[number + 1 :]) for number, _ in chosen])
    doubled = verdicts(raw, [(number, [raw[number], *raw[number:]]) for number, _ in chosen])
    for (number, line), without, twice in zip(chosen, missing, doubled, strict=True):
        assert not without.good, f"{line['kind']} {number} is missed"
        assert not twice.good, f"{line['kind']} {number} comes twice"


def resigned(market: Market, line: dict[str, Any], **members: object) -> None:
    """A fixing as a service that lies would sign it."""
    document = canonical.encode(json.loads(line["document"]) | members)
    line["document"], line["digest"] = document.decode(), canonical.digest(document)
    line["signatures"] = [sign_document(market.world.context.key, document)]


async def test_a_service_that_signs_another_value_is_found(market: Market) -> None:
    lines = parsed(await exported(market.world.context))
    for members, code in (
        ({"value": "4500000000001"}, "fixing_document"),
        ({"quantities": {}}, "fixing_document"),
        ({"observations": []}, "fixing_document"),
        ({"parent": None}, "fixing_document"),
        ({"reset": True}, "fixing_reset"),
        ({"at": "2026-11-22T10:00:00Z"}, "fixing_number"),
    ):
        other = json.loads(json.dumps(lines))
        resigned(market, other[of_kind(other, "fixing", lambda line: line["number"] == 3)], **members)
        assert fault_of(other) == code, members


async def test_statements_of_a_market_recompute_and_a_better_rate_is_found(world: World, market: Market) -> None:
    seen = set()
    for member in (market.buyer, market.seller):
        for window in range(1, 5):
            document = json.loads(json.dumps(await statements.statement(world.context, member.id, window)))
            conforms(document, "statement-1.json")
            assert recompute_statement(document).fault is None
            for kind in ("deposits", "withdrawals", "payouts"):
                for at, line in enumerate(document[kind]):
                    if line["fixing"] is None:
                        continue
                    other = json.loads(json.dumps(document))
                    if kind == "payouts":
                        for place in (other[kind][at], other["position"]):
                            place["amount"] = str(int(place["amount"]) + 1)
                    else:
                        wrong = line["micro_per_unit"].replace(line["micro_per_unit"][0], "9", 1)
                        other[kind][at]["micro_per_unit"] = wrong
                    assert recompute_statement(other).fault is not None
                    del other[kind]
                    seen.add(kind)
    assert seen == {"deposits", "withdrawals", "payouts"}
