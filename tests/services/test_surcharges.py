"""Surcharges in the books: noticed first, charged afterwards, stated, told, held to their rules by both verifiers."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from settlement.client.verifier import recompute_statement
from settlement.core import canonical
from settlement.core.surcharges import DAY, SurchargeRules
from settlement.services import funding, statements, surcharges, webhooks, windows
from settlement.services import payouts as paying
from settlement.services.verification import verify
from settlement.storage import surcharges as stored
from tests.client.market import change_policy
from tests.client.test_documents import conforms
from tests.client.town import CHAIN, Lines, exported, fund, parsed, verified
from tests.hearing import told
from tests.holding import Till, till_of
from tests.independent.test_independent import NODE, judged, judged_lines, rechained
from tests.world import World

pytestmark = pytest.mark.database
RULES = SurchargeRules(free=2, free_share=0, fee=1_000_000, most=3_000_000)


async def abuse(till: Till, unused: int) -> None:
    """Holds that are given back, one that is used; then the next day, late enough to judge this one."""
    world = till.world
    for _ in range(unused):
        await till.release(await till.place())
    clock = world.sources.settable
    clock.now = clock.now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY + timedelta(hours=2)


async def judged_days(world: World) -> int:
    count = await surcharges.judge(world.context)
    assert await surcharges.judge(world.context) == 0, "a day is judged once"
    return count


async def test_nothing_is_charged_before_a_notice_and_never_more_than_is_there(world: World, tmp_path: Path) -> None:
    await funding.open_chain(world.context, CHAIN)
    buyer, seller = await world.consumer("buyer"), await world.provider("seller", wallet=world.wallet())
    await fund(world, buyer, 20_000)  # 4,444,444 microCU
    till = await till_of(world, seller, buyer)
    await webhooks.create(world.context, buyer.party, "https://hooks.example/", ["surcharge.noticed"])
    await abuse(till, 3)
    assert await judged_days(world) == 0, "no policy charges for it"
    await change_policy(world, surcharge=RULES)
    await abuse(till, 9)
    assert await judged_days(world) == 0, "the rules of a day are those in force when it begins"
    await abuse(till, 2)
    assert await judged_days(world) == 0, "two are free"
    await abuse(till, 4)
    assert await judged_days(world) == 1
    (notice,) = await surcharges.of_consumer(world.context, buyer.id)
    assert (notice.kind, notice.facts["unused"], notice.facts["due"], notice.amount) == (
        "surcharge_noticed",
        4,
        "2000000",
        0,
    )
    assert notice.facts["since"] == f"{notice.at + timedelta(hours=46):%Y-%m-%dT00:00:00Z}"
    told_of = {name: notice.facts[name] for name in ("day", "holds", "unused", "since", "until")}
    assert [event["data"] for _, event in await told(world.context)] == [told_of | {"cu": "2"}]
    for _ in range(2):
        await abuse(till, 5)
        assert await judged_days(world) == 0, "these days began before the notice's time was over"
    charged = []
    for unused in (8, 4):
        before = (await till.balance())[0]
        await abuse(till, unused)
        charged.append((await judged_days(world), before - (await till.balance())[0]))
    assert charged == [(1, 3_000_000), (1, 1_444_444)], "the most; and what there was"
    await windows.close(world.context)
    await windows.advance(world.context, paying.plan)
    lines = parsed(await exported(world.context))
    assert verified(lines).fault is None
    assert (await verify(world.context)).good
    lies_are_found(lines, tmp_path)
    document = json.loads(json.dumps(await statements.statement(world.context, buyer.id, 1)))
    conforms(document, "statement-1.json")
    assert [each.get("amount") for each in document["surcharges"]] == [None, "3000000", "1444444"]
    statement_holds(document, tmp_path)
    async with world.context.database.read() as connection:
        assert await stored.between(connection, seller.id, 0, 10**6) == []


def statement_holds(document: dict[str, Any], folder: Path) -> None:
    """The statement passes both; with a figure changed it passes neither."""
    changed = [dict(each) for each in document["surcharges"]]
    changed[-1]["unused"] += 1
    for found, good in ((document, True), (document | {"surcharges": changed}, False)):
        assert (recompute_statement(found).fault is None) == good
        if NODE is not None:
            file = folder / "statement.json"
            file.write_text(json.dumps(found), encoding="utf-8")
            assert (judged("statement", file)[0] == 0) == good


def lies_are_found(lines: Lines, folder: Path) -> None:
    """Each figure of a notice and of a charge: whoever owns the books can't say that it was otherwise."""
    entries = [(at, json.loads(line["payload"])) for at, line in enumerate(lines) if line["kind"] == "journal_entry"]
    notice = next(each for each in entries if each[1]["kind"] == "surcharge_noticed")
    charge = next(each for each in entries if each[1]["kind"] == "surcharge")
    lies: list[tuple[tuple[int, dict[str, Any]], dict[str, Any], str | None]] = [
        (charge, {}, None),
        (charge, {"facts": charge[1]["facts"] | {"due": "2999999"}}, "surcharge_due"),
        (charge, {"facts": charge[1]["facts"] | {"unused": 4}}, "surcharge_due"),
        (charge, {"facts": charge[1]["facts"] | {"holds": 7}}, "surcharge_facts"),
        (charge, {"postings": moved(charge[1], 3_000_001)}, "surcharge_due"),
        (charge, {"at": charge[1]["facts"]["day"]}, "surcharge_facts"),
        (notice, {"facts": notice[1]["facts"] | {"since": notice[1]["facts"]["day"]}}, "surcharge_notice"),
        (notice, {"facts": notice[1]["facts"] | {"unused": 2}}, "surcharge_due"),
        (notice, {"kind": "surcharge"}, "surcharge_facts"),
    ]
    for (at, payload), change, code in lies:
        other = json.loads(json.dumps(lines))
        other[at]["payload"] = canonical.encode(payload | change).decode()
        rechained(other)
        fault = verified(other).fault
        assert (None if fault is None else fault.code) == code, change
        if NODE is not None:
            assert judged_lines(other, folder / "export.ndjson")[1].get("code") == code, change


def moved(payload: dict[str, Any], micro: int) -> list[list[str]]:
    (consumer, asset, _), (fees, *_) = payload["postings"]
    return [[consumer, asset, str(-micro)], [fees, asset, str(micro)]]
