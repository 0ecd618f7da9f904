"""An explained charge is the one that is on file, in the statement and in the proof, and is nobody else's business."""

from __future__ import annotations

import json

import pytest

from settlement.core.errors import NotFound
from settlement.services import charges, proofs, statements
from tests.client.town import Town

pytestmark = pytest.mark.database


async def records_of(town: Town) -> list[tuple[str, str, str]]:
    """(provider, record, charge) of what the buyer used in window 1, by its statement."""
    statement = await statements.statement(town.context, town.buyer.id, 1)
    return [(each["provider"], each["record"]["id"], each["charge_pico"]) for each in statement["records"]]


async def test_it_equals_statement_and_proof_with_every_factor(town: Town) -> None:
    asked = set()
    for provider, record, pico in await records_of(town):
        found = await charges.explain(town.context, town.buyer.party, provider, record)
        leaf = json.loads((await proofs.record_proof(town.context, provider, record))["leaf"])
        assert found["charge_pico"] == pico == leaf["charge_pico"]
        assert found["record"] == leaf["record"]
        assert (found["rates"]["version"], found["line"]) == (leaf["rates"], leaf["line"])
        asked.add((provider, tuple(step["multiplier"] for step in found["multipliers"])))
    assert asked == {(town.plain.id, ("0.9",)), (town.linked.id, ())}


async def test_only_consumer_and_provider_see_it(village: Town) -> None:
    provider, record, _ = next(each for each in await records_of(village) if each[0] == village.plain.id)
    assert await charges.explain(village.context, village.plain.party, provider, record)
    for member, asked_of, name in (
        (village.own, provider, record),
        (village.linked, provider, record),
        (village.buyer, village.linked.id, record),
        (village.buyer, provider, "019aaa00-0000-7000-8000-000000000000"),
        (village.buyer, provider, "x"),
    ):
        with pytest.raises(NotFound, match="record_unknown"):
            await charges.explain(village.context, member.party, asked_of, name)
