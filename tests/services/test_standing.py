"""Discounts by volume in the books: charged, explained, in statements and proofs, and recomputed by both verifiers."""

from __future__ import annotations

import json
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from settlement.client.verifier import check_proof, recompute_statement
from settlement.core.disputes import ANSWER, ANSWER_TYPE, Ground
from settlement.core.signatures import sign_detached
from settlement.core.standing import StandingRules, VolumeTier
from settlement.services import charges, disputes, funding, proofs, statements
from settlement.services.disputes import Claim, SignedOffer
from tests.client.market import change_policy
from tests.client.test_documents import conforms
from tests.client.town import CHAIN, exported, fund, parsed, send, settle, verified
from tests.independent.test_independent import NODE, judged_lines
from tests.world import Member, World

pytestmark = pytest.mark.database
BIG = {"input_tokens": 1_000_003, "output_tokens": 77_777}
HALF = {"input_tokens": 500_001, "output_tokens": 38_888}
TIERS = (VolumeTier(0, Fraction(98, 100)), VolumeTier(1, Fraction(1)), VolumeTier(800_000_000, Fraction(9, 10)))


def half_of(par: int) -> int:
    """What half of par costs with a tenth off, step by step."""
    return par * 5_000 // 10_000 * 9_000 // 10_000


async def charge(world: World, seller: Member, buyer: Member, meters: dict[str, int] | None = None) -> tuple[str, int]:
    """A record now: its id, and the picoCU that are on file for it."""
    record = world.record(buyer, meters=meters or BIG)
    await send(world, seller, [record])
    found = await charges.explain(world.context, buyer.party, seller.id, record["id"])
    return record["id"], int(found["charge_pico"])


async def contest(world: World, seller: Member, buyer: Member, record: str, ground: Ground, **more: Any) -> int:
    """A dispute of the record that the provider agrees with: the microCU that were given back."""
    claim = Claim(seller.id, ground, record=UUID(record), **more)
    dispute = await disputes.open_dispute(world.context, buyer.party, claim)
    if dispute.state == "open":
        body = json.dumps({"type": ANSWER, "dispute": dispute.id, "answer": "accept"}).encode()
        dispute = await disputes.answer(world.context, body, sign_detached(seller.key, body, ANSWER_TYPE))
    assert dispute.award == dispute.claimed
    return dispute.award


async def test_what_was_charged_in_the_days_before_makes_the_next_days_cheaper(world: World, tmp_path: Path) -> None:

    await funding.open_chain(world.context, CHAIN)
    buyer, other = await world.consumer("buyer"), await world.consumer("other")
    seller = await world.provider("seller", wallet=world.wallet())
    for member in (buyer, other):
        await fund(world, member, 90_000_000)
    _, par = await charge(world, seller, buyer)
    await change_policy(world, standing=StandingRules(timedelta(days=2), TIERS))
    assert (await charge(world, seller, buyer))[1] == par, "the rules of a day are those in force when it begins"
    await settle(world)
    clock = world.sources.settable
    clock.now = clock.now.replace(hour=0, minute=0) + timedelta(days=1)
    first, cheaper = await charge(world, seller, buyer)
    assert cheaper == par * 9_000 // 10_000, "two of them are above 800 CU"
    assert (await charge(world, seller, other))[1] == par * 9_800 // 10_000, "who uses little pays less"
    explained = await charges.explain(world.context, buyer.party, seller.id, first)
    assert explained["multipliers"][-1]["name"] == "standing"
    assert int(explained["volume"]) >= 800_000_000
    _, half = await charge(world, seller, buyer, HALF)
    back = await contest(world, seller, buyer, first, "count", counts=HALF)
    assert back == (cheaper - half) // 10**6, "as if the right counts had been reported that day"
    second, _ = await charge(world, seller, buyer)
    body = world.offer(seller, world.sources.clock(), usual="0.5")[0]
    cheap = SignedOffer(body, sign_detached(seller.key, body, "offer+jws"))
    assert await contest(world, seller, buyer, second, "price", offer=cheap) == (cheaper - half_of(par)) // 10**6
    await settle(world)
    clock.advance(days=3)
    assert (await charge(world, seller, buyer))[1] == par * 9_800 // 10_000, "all of that is too long ago"
    await settle(world)
    lines = parsed(await exported(world.context))
    assert verified(lines).fault is None
    if NODE is not None:
        code, verdict = judged_lines(lines, tmp_path / "export.ndjson")
        assert code == 0, verdict
    for member in (buyer, other, seller):
        document = json.loads(json.dumps(await statements.statement(world.context, member.id, 2)))
        conforms(document, "statement-1.json")
        assert recompute_statement(document).fault is None
        for wrong in ([], [dict(each, volume="5") for each in document["standings"]]):
            assert recompute_statement(document | {"standings": wrong}).fault is not None
    proof = await proofs.record_proof(world.context, seller.id, first)
    conforms(proof, "proof-1.json")
    table = document["rate_tables"][0]["document"].encode()
    assert check_proof(proof, rate_table=table).good
    assert not check_proof({**proof, "standing": "0.91"}, rate_table=table).good
    assert not check_proof({name: each for name, each in proof.items() if name != "standing"}, rate_table=table).good
