"""Reading an export without believing its derived figures: they come out of the evidence."""

from __future__ import annotations

import json

import pytest

from settlement.client.evidence import EvidenceReader
from tests.client.town import Lines, Town, exported, parsed
from tests.world import World

pytestmark = pytest.mark.database


def read(lines: Lines) -> EvidenceReader:
    reader = EvidenceReader()
    for line in lines:
        reader.feed(json.dumps(line))
    report = reader.finish()
    assert report.fault is None, report.fault
    return reader


async def test_derived_figures_come_from_the_evidence_whatever_the_export_says(world: World, town: Town) -> None:
    honest = parsed(await exported(world.context))
    expected = read(honest)
    stated = {line["id"]: int(line["settled"]) for line in honest if line["kind"] == "account"}
    assert expected.balances == {account: amount for account, amount in stated.items() if account in expected.balances}
    owed = [line for line in honest if line["kind"] == "obligation"]
    assert sorted(
        (each.window, each.provider, each.consumer, str(each.pico)) for each in expected.obligations
    ) == sorted((line["window"], line["provider"], line["consumer"], line["pico"]) for line in owed)
    for line in honest:
        if line["kind"] == "account":
            line["settled"] = "12345"
        if line["kind"] == "obligation":
            line["pico"] = "1"
    lying = read(honest)
    assert (lying.balances, lying.obligations) == (expected.balances, expected.obligations)
