"""Demand in the books: quoted, kept by holds, charged, explained, stated, proved, and made again by both verifiers."""

from __future__ import annotations

import json
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from settlement.client.verifier import check_proof, recompute_statement
from settlement.core.demand import DemandPoint, DemandRules, read
from settlement.core.errors import Conflict
from settlement.core.holds import Ask
from settlement.core.multipliers import ONE
from settlement.services import charges, demand, funding, holds, offers, proofs, quotes, statements
from settlement.services.quotes import Asked
from settlement.services.verification import verify
from tests.client.market import change_policy
from tests.client.test_documents import conforms
from tests.client.town import CHAIN, Lines, exported, fund, parsed, send, settle, verified
from tests.holding import INPUT, Till, till_of
from tests.independent.test_independent import NODE, judged, judged_lines
from tests.world import Member, World

pytestmark = pytest.mark.database
HOUR = timedelta(hours=1)
BUSY = DemandRules(
    cap=Fraction(3, 2),
    slew=Fraction(1, 4),
    curve=(DemandPoint(500_000, Fraction(1)), DemandPoint(1_000_000, Fraction(2))),
)
BIG = {"input_tokens": 1_000_003, "output_tokens": 77_777}
PAR = 1155 * 277_777_778 + 200 * 2_222_222_222
CAPACITY = 400_000_000
"""microCU an hour: less than what one record of `BIG` costs."""


async def use(world: World, till: Till, placed: holds.Answer | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record of 200 output tokens, under a hold or none: the record, and why it costs what it does."""
    more: dict[str, Any] = {} if placed is None else {"hold": placed.stored.id}
    record = world.record(till.consumer, meters={**INPUT, "output_tokens": 200}, **more)
    await send(world, till.provider, [record])
    return record, await charges.explain(world.context, till.consumer.party, till.provider.id, record["id"])


async def quoted(till: Till) -> int:
    asked = Asked("gpt-5", "standard", INPUT, None, 200, Ask(), till.provider.id)
    found = await quotes.quote(till.world.context, asked)
    assert found.quote.expected.amount == -(-(PAR * found.demand // ONE) // 10**6)
    return found.demand


async def step(world: World, *, hours: int = 1) -> None:
    """The worker's next step, and the time from which it is in force."""
    world.sources.settable.advance(hours=hours)
    assert await demand.make_due(world.context) is not None
    assert await demand.make_due(world.context) is None, "the next one is not due"
    world.sources.settable.advance(minutes=5)


async def opened(world: World) -> tuple[Till, Member]:
    await funding.open_chain(world.context, CHAIN)
    buyer = await world.consumer("buyer")
    seller, idle = [await world.provider(name, wallet=world.wallet()) for name in ("seller", "idle")]
    await fund(world, buyer, 90_000_000)
    now = world.sources.clock()
    body, signature = world.offer(seller, now + timedelta(minutes=10), capacity=str(CAPACITY))
    await offers.publish(world.context, body, signature)
    world.sources.settable.advance(minutes=11)
    return await till_of(world, seller, buyer), idle


async def test_a_busy_provider_is_dearer_for_whoever_was_quoted_that(world: World, tmp_path: Path) -> None:
    till, _ = await opened(world)
    with pytest.raises(Conflict, match="no curve"):
        await demand.make(world.context)
    assert await quoted(till) == ONE
    await change_policy(world, demand=BUSY)
    assert await demand.make_due(world.context) is not None
    world.sources.settable.advance(minutes=5)
    early = await till.place(expires_in=3600)
    await send(world, till.provider, [world.record(till.consumer, meters=BIG)])
    await step(world)
    assert await quoted(till) == 12_500, "the slew lets it rise by a quarter"
    dear = await till.place()
    assert (early.stored.demand, dear.stored.demand) == (ONE, 12_500)
    assert holds.document(dear.stored)["demand"] == "1.25"
    with pytest.raises(Conflict, match=r"multiplies by 1\.25, and 1\.2 was the most"):
        await holds.place(world.context, replaced(till, most_demand=12_000))
    assert (await holds.place(world.context, replaced(till, most_demand=12_500))).stored.demand == 12_500
    extended = await till.extend(dear, 2)
    assert extended.stored.hold.amount > dear.stored.hold.amount
    assert (await use(world, till, None))[1]["charge_pico"] == str(PAR), "what nobody was quoted, nobody pays"
    record, explained = await use(world, till, dear)
    assert explained["charge_pico"] == str(PAR * 12_500 // ONE)
    assert explained["multipliers"][-1]["name"] == "demand"
    assert explained["demand"]["number"] == 2
    assert (await use(world, till, early))[1]["charge_pico"] == str(PAR), "an earlier hold keeps what it was quoted"
    await settle(world)
    await step(world, hours=2)
    assert await quoted(till) == ONE, "nobody used it, so it falls again"
    lines = parsed(await exported(world.context))
    assert verified(lines).fault is None
    steps = [read(line["document"].encode()) for line in lines if line["kind"] == "demand"]
    assert [each.multiplier(till.provider.id) for each in steps] == [ONE, 12_500, ONE]
    assert (await verify(world.context)).good
    await documents_hold(world, till, record["id"], tmp_path)
    lies_are_found(lines, tmp_path)
    async with world.context.database.begin() as connection:
        await connection.execute(text("UPDATE hold SET demand = 10000"))
    failure = (await verify(world.context)).failure
    assert failure is not None
    assert failure.name == "hold_demand"


def replaced(till: Till, **more: Any) -> holds.Placing:
    return replace(till.placing(), **more)


async def documents_hold(world: World, till: Till, record: str, folder: Path) -> None:
    """Statements and a proof, by both verifiers, with the step and without it."""
    for member in (till.consumer, till.provider):
        document = json.loads(json.dumps(await statements.statement(world.context, member.id, 1)))
        conforms(document, "statement-1.json")
        assert [each["number"] for each in document["demands"]] == [1, 2]
        wrong = [document | {"demands": document["demands"][:1]}]
        for each, good in ((document, True), *((each, False) for each in wrong)):
            assert (recompute_statement(each).fault is None) == good
            assert (judged_document("statement", each, folder) is None) == good
    proof = json.loads(json.dumps(await proofs.record_proof(world.context, till.provider.id, record)))
    conforms(proof, "proof-1.json")
    table = document["rate_tables"][0]["document"].encode()
    assert check_proof(proof, rate_table=table).good
    assert judged_document("proof", proof, folder) is None
    assert not check_proof({name: each for name, each in proof.items() if name != "demand"}, rate_table=table).good
    assert not check_proof({**proof, "demand": document["demands"][0]}, rate_table=table).good
    (newest,) = await demand.newest(world.context, 1)
    later = {**proof, "demand": demand.document(newest)}
    fault = check_proof(later, rate_table=table).fault
    assert fault is not None
    assert fault.code == "proof_demand"
    assert judged_document("proof", later, folder) == (None if NODE is None else "proof_demand")


def judged_document(kind: str, document: dict[str, Any], folder: Path) -> str | None:
    """What the second verifier says of a document: the code of its fault, None when it is good or there is no Node."""
    if NODE is None:
        return None
    file = folder / f"{kind}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    code, verdict = judged(kind, file)
    return None if code == 0 else str(verdict["code"])


def lies_are_found(lines: Lines, folder: Path) -> None:
    """Each member of the last step changed, its entry lost, and the policy's curve as if it had been another."""
    if NODE is not None:
        assert judged_lines(lines, folder / "export.ndjson")[1]["ok"]
    places = [at for at, line in enumerate(lines) if line["kind"] == "demand"]
    told = lines[places[1]]
    lies: list[tuple[dict[str, Any], str]] = [
        ({"document": told["document"].replace('"1.25"', '"1.5"')}, "demand_digest"),
        ({"number": 7}, "demand_malformed"),
        ({"signatures": []}, "demand_signature"),
    ]
    for lie, code in lies:
        other = json.loads(json.dumps(lines))
        other[places[1]].update(lie)
        assert (fault := verified(other).fault) is not None
        assert fault.code == code
        if NODE is not None:
            assert judged_lines(other, folder / "export.ndjson")[1]["code"] == code
