"""Records leave the database whole or not at all, and everything that was provable stays so; salts go on request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from settlement.client.proofs import check_proof
from settlement.client.statements import recompute_statement
from settlement.client.verifier import verify_export
from settlement.core.errors import Broken, Conflict, Forbidden, NotFound, Unavailable
from settlement.core.signatures import sign_detached
from settlement.services import archive, charges, disputes, metering, proofs, rebuild, retention, statements
from settlement.services.context import Context
from settlement.services.verification import verify
from settlement.storage import parties
from tests.client.town import Town, exported, parsed, settle, trade
from tests.services.test_rebuild import plain
from tests.world import World

pytest.importorskip("pyarrow", reason="NOT RUN: without pyarrow (the extra archive) nothing was proved about retention")
pytestmark = pytest.mark.database

WINDOWS = (1, 2, 3)


async def old_town(town: Town, folder: Path) -> Context:
    """Make it a town whose three settled windows are 91 days old, with a fourth that is new and an open one."""
    world = town.world
    await settle(world)
    world.sources.settable.advance(days=91)
    context = replace(world.context, archive=folder / "archive")
    assert (await retention.standing(context)).due == [1, 3], "a window that is disputed stays"
    with pytest.raises(Conflict, match="window_not_due"):
        await retention.retire(context, 2)
    assert await disputes.end_overdue(context)
    await settle(world)
    return replace(world.context, archive=folder / "archive")


async def documents(context: Context, town: Town) -> dict[str, Any]:
    """Every proof, explanation and statement of the town's first windows, as parties get them."""
    found: dict[str, Any] = {}
    for provider in (town.linked, town.plain):
        for body in provider.sent[:8]:
            for record in json.loads(body)["records"]:
                name = f"{provider.id}/{record['id']}"
                try:
                    found[f"proof {name}"] = await proofs.record_proof(context, provider.id, record["id"])
                    found[f"charge {name}"] = await charges.explain(context, provider.party, provider.id, record["id"])
                except NotFound as refused:
                    found[name] = refused.code
        for consumer in (town.buyer, town.own, provider):
            for window in WINDOWS:
                found[f"statement {consumer.id} {window}"] = await statements.statement(context, consumer.id, window)
    return found


def rows(url: str, query: str) -> Sequence[Any]:
    with psycopg.connect(plain(url)) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_everything_stays_provable_after_the_rows_have_left(
    world: World, town: Town, database_url: str, tmp_path: Path
) -> None:
    context = await old_town(town, tmp_path)
    before, lines = await documents(context, town), parsed(await exported(context))
    left, erased = await retention.run(context)
    assert ([each.window_no for each in left], erased) == ([1, 2, 3], 0)
    assert rows(database_url, "SELECT DISTINCT window_no FROM usage_record") == []
    assert rows(database_url, "SELECT count(*) FROM usage_report WHERE octet_length(body) > 0") == [(0,)]
    assert await documents(context, town) == before
    after = parsed(await exported(context))
    assert [line for line in after[1:] if line["kind"] != "retention"] == lines[1:]
    assert sum(line["kind"] == "retention" for line in after) == 3
    report = await verify(context)
    assert report.good, report.failure
    for name, document in before.items():
        if name.startswith("proof"):
            assert check_proof(document, trusted_key=world.context.key.public.jwk()).fault is None
        elif name.startswith("statement"):
            assert recompute_statement(json.dumps(document).encode()).fault is None
    assert sum(name.startswith("proof") for name in before) > 20


async def test_books_go_on_after_rows_have_left(world: World, town: Town, database_url: str, tmp_path: Path) -> None:
    """Carries go on, a report that is sent again gets its answer, derived tables come back, and it is done once."""
    context = await old_town(town, tmp_path)
    town = replace(town, world=replace(world, context=context))
    await retention.run(context)
    body = town.plain.sent[0]
    answer = await metering.submit(context, body=body, signature=sign_detached(town.plain.key, body))
    assert answer.replayed
    with pytest.raises(Conflict, match="window_retired"):
        await retention.retire(context, 1)
    with pytest.raises(Conflict, match="window_not_due"):
        await retention.retire(context, 4)
    await trade(town, 1)
    await settle(town.world)
    tree = rows(database_url, "SELECT * FROM tree_tile ORDER BY 1, 2")
    assert (await rebuild.run(context)).changed == 0
    assert rows(database_url, "SELECT * FROM tree_tile ORDER BY 1, 2") == tree
    manifest = json.loads((await archive.write(context, 2, tmp_path)).read_bytes())
    archive.check(manifest, tmp_path, world.context.key.public.jwk())
    report = await verify(context)
    assert report.good, report.failure


async def test_nothing_leaves_that_is_not_exactly_in_the_segments(
    world: World, town: Town, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = await old_town(town, tmp_path)
    with pytest.raises(Unavailable, match="archive_not_configured"):
        await retention.retire(world.context, 1)
    count = rows(database_url, "SELECT count(*) FROM usage_record")
    owner = psycopg.connect(plain(database_url), autocommit=True)
    for statement in (
        "DELETE FROM usage_record WHERE window_no = 1",
        "UPDATE usage_report SET body = '' WHERE window_no = 1",
        "SELECT set_config('settlement.retiring', '1', false); DELETE FROM usage_record",
        "SELECT set_config('settlement.retiring', '1', false); UPDATE usage_report SET body = ''",
        "SELECT retire_window(1, 0, 0, '', '', '', 0, 0, now())",
        "SELECT retire_window(5, 0, 0, '', '', '', 0, 0, now())",
    ):
        with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
            owner.execute(statement.encode())
    owner.execute("SET session_replication_role = replica")
    owner.execute("UPDATE usage_record SET charge_pico = charge_pico + 1 WHERE window_no = 2 AND line = 0")
    with pytest.raises(Broken, match="evidence_mismatch"):
        await retention.run(context)
    assert rows(database_url, "SELECT window_no FROM retention") == [(1,)]
    owner.execute("UPDATE usage_record SET charge_pico = charge_pico - 1 WHERE window_no = 2 AND line = 0")
    owner.execute("UPDATE usage_report SET body = (SELECT body FROM usage_report WHERE no = 7) WHERE no = 8")
    with pytest.raises(Broken, match="evidence_mismatch"):
        await retention.run(context)
    owner.close()
    (remaining,) = rows(database_url, "SELECT count(*) FROM usage_record WHERE window_no > 1")
    assert 0 < remaining[0] < count[0][0]


async def test_a_row_that_changes_after_it_was_sealed_keeps_its_window(
    world: World, town: Town, database_url: str, tmp_path: Path
) -> None:
    """The database compares by itself, in the transaction that deletes."""
    context = await old_town(town, tmp_path)
    sealed = await retention.seal(context, 1)
    with psycopg.connect(plain(database_url)) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE usage_record SET rates_version = 2 WHERE window_no = 1 AND line = 1")
    with pytest.raises(Broken, match="do not hold exactly its rows"):
        await retention.leave(context, *sealed)
    assert rows(database_url, "SELECT count(*) FROM retention") == [(0,)]


async def test_a_lost_or_changed_segment_is_named(world: World, town: Town, tmp_path: Path) -> None:
    context = await old_town(town, tmp_path)
    await retention.run(context)
    record = json.loads(town.plain.sent[0])["records"][0]["id"]
    folder = tmp_path / "archive"
    (reports,) = [each for each in folder.iterdir() if each.name.startswith("reports") and await _of(context, each, 1)]
    (records,) = [each for each in folder.iterdir() if each.name.startswith("records") and await _of(context, each, 1)]
    whole = reports.read_bytes()
    reports.chmod(0o600)
    reports.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    report = await verify(context)
    assert report.failure is not None
    assert (report.failure.name, report.failure.subject) == ("segment_changed", "archive")
    reports.unlink()
    for depth in ("books", "export"):
        report = await verify(context, depth)
        assert report.failure is not None
        assert (report.failure.name, report.failure.subject) == ("segment_missing", "window 1")
    assert (await proofs.record_proof(context, town.plain.id, record))["type"] == "proof/1"
    records.unlink()
    with pytest.raises(Unavailable, match="segment_missing"):
        await proofs.record_proof(context, town.plain.id, record)


async def _of(context: Context, file: Path, window: int) -> bool:
    standing = await retention.standing(context)
    left = next(each for each in standing.left if each.window_no == window)
    return left.records_digest.hex() in file.name or left.reports_digest.hex() in file.name


@pytest.mark.parametrize("retired", [False, True])
async def test_erased_salts_leave_every_root_and_everybody_elses_proofs(
    world: World, town: Town, database_url: str, tmp_path: Path, retired: bool
) -> None:
    """What is erased can't be shown or tested any more; what was signed and summed still verifies, from end to end."""
    context = await old_town(town, tmp_path)
    before = await documents(context, town)
    assert await retention.erase(context, town.buyer.id, "asked by letter of 2027-02-20")
    assert not await retention.erase(context, town.buyer.id, "again")
    with pytest.raises(Forbidden, match="consumers_only"):
        await retention.erase(context, town.plain.id, "a provider")
    if retired:
        await retention.run(context)
    else:
        assert await retention.erase_due(context) == 3
    assert await retention.erase_due(context) == 0
    assert rows(database_url, f"SELECT name FROM party WHERE id = '{town.buyer.id}'") == [("erased",)]
    salts = rows(
        database_url,
        """SELECT window_no, key IS NULL FROM record_salt s JOIN party p ON p.no = s.consumer_no
        WHERE p.id = '"""
        + town.buyer.id
        + "' ORDER BY 1",
    )
    assert salts == [(1, True), (2, True), (3, True), (4, False)] or salts == [(1, True), (2, True), (3, True)]
    kept = lost = 0
    for name, document in before.items():
        if not name.startswith("proof"):
            continue
        provider, record = name.removeprefix("proof ").split("/")
        if json.loads(document["leaf"])["record"]["consumer"] == town.buyer.id:
            lost += 1
            with pytest.raises(NotFound, match="record_erased"):
                await proofs.record_proof(context, provider, record)
        else:
            kept += 1
            assert await proofs.record_proof(context, provider, record) == document
    assert lost > 10
    assert kept > 3
    statement = await statements.statement(context, town.buyer.id, 1)
    assert {record["salt"] for record in statement["records"]} == {None}
    assert recompute_statement(json.dumps(statement).encode()).fault is None
    report = await verify(context)
    assert report.good, report.failure
    assert (await rebuild.run(context)).changed == 0
    manifest = json.loads((await archive.write(context, 1, tmp_path)).read_bytes())
    archive.check(manifest, tmp_path, world.context.key.public.jwk())
    proof = next(name for name in before if name.startswith("proof") and town.buyer.id in json.dumps(before[name]))
    with pytest.raises(NotFound, match="record_erased"):
        archive.prove(manifest, tmp_path, *proof.removeprefix("proof ").split("/"))


async def test_a_forged_leaf_hash_of_an_erased_consumer_breaks_the_root(
    world: World, town: Town, tmp_path: Path
) -> None:
    context = await old_town(town, tmp_path)
    await retention.erase(context, town.buyer.id, "asked")
    await retention.run(context)
    lines = parsed(await exported(context))
    assert verify_export(json.dumps(line) for line in lines).fault is None
    place = next(at for at, line in enumerate(lines) if line["kind"] == "record_salt" and line["hashes"])
    hashes = lines[place]["hashes"]
    found = {}
    for what, change in {
        "one changed": {"hashes": "00" * 32 + hashes[64:]},
        "one left out": {"hashes": hashes[64:]},
        "one too many": {"hashes": hashes + "00" * 32},
        "a key as well": {"key": "00" * 32},
        "neither": {"hashes": None},
    }.items():
        changed = [*lines[:place], {**lines[place], **change}, *lines[place + 1 :]]
        fault = verify_export(json.dumps(line) for line in changed).fault
        found[what] = fault and fault.code
    unasked = [line for line in lines if line["kind"] != "erasure"]
    unasked[0] = {**unasked[0], "counts": {**unasked[0]["counts"], "erasure": 0}}
    fault = verify_export(json.dumps(line) for line in unasked).fault
    found["not asked for"] = fault and fault.code
    fewer = [{**line, "records": line["records"] - 1} if line["kind"] == "retention" else line for line in lines]
    fault = verify_export(json.dumps(line) for line in fewer).fault
    found["retired less"] = fault and fault.code
    assert found == {
        "one changed": "checkpoint_records",
        "one left out": "salt_missing",
        "one too many": "salt_erased",
        "a key as well": "salt_erased",
        "neither": "salt_erased",
        "not asked for": "salt_erased",
        "retired less": "retention_rows",
    }


async def test_the_policy_says_when(world: World, tmp_path: Path, town: Town) -> None:
    """Nothing is due a second before; the salts of a window stay until disputes over it have ended."""
    context = replace(world.context, archive=tmp_path / "archive")
    world.sources.settable.advance(days=1)
    await disputes.end_overdue(context)
    world.sources.settable.advance(days=-1)
    await retention.erase(context, town.buyer.id, "asked")
    async with context.database.read() as connection:
        assert (await parties.get(connection, town.buyer.id)).name == "erased"
    world.sources.settable.advance(days=89)
    assert await retention.run(context) == ([], 0)
    standing = await retention.standing(context)
    assert (standing.due, standing.salts_due, len(standing.erasures)) == ([], 0, 1)
    world.sources.settable.advance(days=1)
    left, erased = await retention.run(context)
    assert ([each.window_no for each in left], erased) == ([1, 2], 2)
