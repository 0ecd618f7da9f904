"""The log in the database: a whole decision, in both verifiers; processes that come late; a log that was rewritten."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from sqlalchemy import text

from governance import service
from governance.service import log
from settlement.core import times
from settlement.core.errors import Broken
from settlement.core.signatures import SigningKey
from settlement.services import funding
from settlement.storage import governance as storage
from settlement.storage.database import Database
from tests.client.town import CHAIN, Lines, exported, parsed, settle, verified
from tests.governance.chamber import DAY, Chamber, seated
from tests.governance.tables import following
from tests.independent.test_independent import NODE, judged_lines
from tests.world import World, first_rates

pytestmark = pytest.mark.database


async def decided(world: World) -> Chamber:
    """A rate table, a council, a pause and a suspension, each decided; a comment; a veto; a checkpoint of it all."""
    await funding.open_chain(world.context, CHAIN)
    chamber = await seated(world)
    provider = await world.provider()
    table = await chamber.propose("rates", following(first_rates(), chamber.now + 20 * DAY))
    await service.comment(world.context, provider.party, table.id, "twice as much is too much")
    assert await chamber.decide("approve", table, 0, 1) == "open", "rates that double need the higher threshold"
    assert await chamber.decide("approve", table, 2) == "adopted"
    assert await service.enact_due(world.context) == [], "the time-lock is not over"
    world.sources.settable.advance(days=1)
    assert [entry.kind for entry in await service.enact_due(world.context)] == ["enacted"]
    keys = [SigningKey(world.sources.entropy(32)) for _ in range(3)]
    change = await chamber.propose("council", await chamber.next_council(keys))
    assert await chamber.decide("approve", change, 0, 1) == "open", "the new council has to agree"
    chamber.keys += keys
    assert await chamber.decide("approve", change, 4, 5) == "adopted"
    until = times.text(chamber.now + DAY)
    pause = await chamber.propose("pause", await chamber.chained("pause", stop=["payouts"], until=until, reason="x"))
    assert await chamber.decide("approve", pause, 3) == "enacted"
    members = {"party": provider.id, "status": "suspended", "reason": "x"}
    stop = await chamber.propose("participant", await chamber.chained("participant", provider.id, **members))
    assert await chamber.decide("approve", stop, 0, 1) == "enacted"
    unwanted = await chamber.propose("rates", following(chamber_table(await tables(world)), chamber.now + 40 * DAY))
    assert await chamber.decide("veto", unwanted, 0, 3) == "vetoed"
    world.sources.settable.advance(days=1)
    await service.enact_due(world.context)
    await settle(world)
    return chamber


async def tables(world: World) -> list[storage.Signed]:
    async with world.context.database.read() as connection:
        return await storage.rate_tables(connection)


def chamber_table(found: list[storage.Signed]) -> bytes:
    return found[-1].document


async def test_what_a_council_decides_is_in_force_and_both_verifiers_agree(world: World, tmp_path: Path) -> None:
    await decided(world)
    assert [table.version for table in await tables(world)] == [1, 2]
    lines = parsed(await exported(world.context))
    assert verified(lines).fault is None
    stated = next(json.loads(line["document"]) for line in lines if line["kind"] == "checkpoint")["governance"]
    entries = [line for line in lines if line["kind"] == "governance_entry"]
    assert stated == {"size": len(entries), "head": entries[-1]["hash"]}
    if NODE is not None:
        code, verdict = judged_lines(lines, tmp_path / "export.ndjson")
        assert code == 0, verdict


async def test_a_log_that_was_changed_is_found_by_both_verifiers(world: World, tmp_path: Path) -> None:
    """Also when the service hashes everything anew: then a signature or a rule is what does not hold."""
    await decided(world)
    honest = parsed(await exported(world.context))
    places = [at for at, line in enumerate(honest) if line["kind"] == "governance_entry"]
    kinds = [json.loads(honest[at]["payload"])["kind"] for at in places]
    for number, kind in enumerate(kinds):
        lines = copy.deepcopy(honest)
        del lines[places[number]]
        _chain_anew(lines)
        found = verified(lines).fault
        assert found is not None, kind
        if NODE is not None and number % 3 == 0:
            assert judged_lines(lines, tmp_path / "export.ndjson")[0] == 2, kind
    for kind in ("approved", "vetoed", "proposed"):
        lines = copy.deepcopy(honest)
        one, other = [at for at, each in zip(places, kinds, strict=True) if each == kind][:2]
        facts = [json.loads(lines[at]["payload"]) for at in (one, other)]
        facts[0]["facts"]["signature"] = facts[1]["facts"]["signature"]
        lines[one]["payload"] = json.dumps(facts[0], separators=(",", ":"), sort_keys=True)
        _chain_anew(lines)
        found = verified(lines).fault
        assert found is not None
        assert found.code == "governance_rule", (kind, found)
        if NODE is not None:
            assert judged_lines(lines, tmp_path / "export.ndjson")[1]["code"] == "governance_rule"


def _chain_anew(lines: Lines) -> None:
    from settlement.core.governing import EMPTY

    head = EMPTY
    for line in lines:
        if line["kind"] == "governance_entry":
            line["no"], line["previous"] = head.size + 1, head.hash.hex()
            head = head.extended(line["payload"].encode())
            line["hash"] = head.hash.hex()
    lines[0]["counts"]["governance_entry"] = head.size


async def test_a_process_that_comes_late_reads_the_same(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chamber = await decided(world)
    monkeypatch.setattr(log, "_BATCH", 3)
    known = await chamber.register()
    late = Database(database_url)
    try:
        context = type(world.context)(late, world.sources, world.context.key, world.context.chains)
        found = await service.current(context)
        assert (found.head, found.chains, found.proposals) == (known.head, known.chains, known.proposals)
    finally:
        await late.close()


async def test_a_log_that_was_rewritten_governs_no_more(world: World, database_url: str) -> None:
    chamber = await seated(world)
    async with world.context.database.engine.begin() as connection:
        await connection.execute(text("RESET ROLE"))
        await connection.execute(text("ALTER TABLE governance_entry DISABLE TRIGGER append_only"))
        changed = "UPDATE governance_entry SET payload = replace(encode(payload, 'escape'), ' ', '')::bytea || ' '"
        await connection.execute(text(f"{changed} WHERE no = 2"))
    log._known.pop(world.context.database)
    with pytest.raises(Broken, match="governance_log_broken"):
        await chamber.register()
