"""Handing over to a new key: old processes stop signing, proofs and both verifiers follow, and no forgery passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from settlement.client.proofs import check_proof
from settlement.client.statements import recompute_statement
from settlement.client.verifier import verify_export
from settlement.core.errors import Conflict, Unavailable
from settlement.core.signatures import SigningKey, parse_base64url, sign_compact, sign_document
from settlement.services import proofs, service_keys, statements, windows
from tests.client.town import Lines, Town, build, exported, of_kind, parsed, send, settle, trade, verified
from tests.independent.test_independent import NODE, judged, judged_lines
from tests.world import World

pytestmark = pytest.mark.database
NEW = SigningKey(bytes([9]) * 32)


async def handed_over(town: Town) -> SigningKey:
    """A town whose key was replaced after window 2, with a window settled and usage under the new key."""
    world = town.world
    old = world.context.key
    await service_keys.rotate(world.context, NEW)
    world.context = replace(world.context, key=NEW)
    await settle(world)
    await trade(town, 5)
    return old


async def test_the_export_of_both_keys_holds_and_either_is_enough_to_trust(
    world: World, town: Town, tmp_path: Path
) -> None:
    old = await handed_over(town)
    lines = parsed(await exported(world.context))
    report = verified(lines)
    assert report.fault is None, report.fault
    assert report.service_keys == (old.public.kid, NEW.public.kid)
    for key in (old, NEW):
        trusting = verify_export(map(json.dumps, lines), trusted_keys=frozenset({key.public.kid}))
        assert trusting.fault is None
    stranger = verify_export(map(json.dumps, lines), trusted_keys=frozenset({"another"}))
    assert stranger.fault is not None
    assert stranger.fault.code == "key_not_trusted"
    if NODE is not None:
        assert judged_lines(lines, tmp_path / "export.ndjson")[1]["ok"] is True
        assert judged(tmp_path / "export.ndjson", NEW.public.kid)[0] == 0


async def test_a_process_with_the_old_key_signs_nothing_more(world: World, town: Town) -> None:
    await service_keys.rotate(world.context, NEW)
    world.sources.settable.advance(minutes=10)
    with pytest.raises(Unavailable, match="signer_retired"):
        await trade(town, 7)
    await windows.close(world.context)
    await windows.settle_net(world.context, 3)
    with pytest.raises(Unavailable, match="signer_retired"):
        await windows.settle_checkpoint(world.context, 3)
    with pytest.raises(Unavailable, match="signer_retired"):
        await service_keys.rotate(world.context, SigningKey(bytes([10]) * 32))
    world.context = replace(world.context, key=NEW)
    assert await windows.settle_checkpoint(world.context, 3)


async def test_no_key_is_taken_twice(world: World) -> None:
    await build(world, rounds=0)
    old = world.context.key
    with pytest.raises(Conflict, match="key_known"):
        await service_keys.rotate(world.context, old)
    await service_keys.rotate(world.context, NEW)
    with pytest.raises(Conflict, match="key_known"):
        await service_keys.rotate(replace(world.context, key=NEW), old)


async def test_proofs_and_statements_of_before_and_after_are_linked_to_either_key(
    world: World, town: Town, tmp_path: Path
) -> None:
    old = await handed_over(town)
    stranger = SigningKey(bytes([11]) * 32)
    for window, signer in ((1, old), (3, NEW)):
        proof = await proofs.liability_proof(world.context, window, town.buyer.id)
        statement = await statements.statement(world.context, town.buyer.id, window)
        assert proof["service_key"] == statement["service_key"] == signer.public.jwk()
        for trusted in (old, NEW):
            assert check_proof(proof, trusted_key=trusted.public.jwk()).fault is None
            assert recompute_statement(statement, trusted_key=trusted.public.jwk()).fault is None
        found = check_proof(proof, trusted_key=stranger.public.jwk()).fault
        assert found is not None
        assert found.code == "key_not_trusted"
        cut = check_proof({**proof, "handovers": []}, trusted_key=(old if signer is NEW else NEW).public.jwk()).fault
        assert cut is not None
        assert cut.code == "key_not_trusted"
        if NODE is not None:
            file = tmp_path / f"{window}.json"
            file.write_text(json.dumps(proof))
            assert judged("proof", file, old.public.kid)[0] == judged("proof", file, NEW.public.kid)[0] == 0
            assert judged("proof", file, stranger.public.kid)[1]["code"] == "key_not_trusted"


def both(lines: Lines, file: Path) -> str:
    """The code that both verifiers name."""
    ours = verified(lines).fault
    assert ours is not None
    if NODE is not None:
        assert judged_lines(lines, file)[1]["code"] == ours.code
    return ours.code


async def test_the_old_key_can_forge_nothing_of_after_and_the_new_nothing_of_before(
    world: World, town: Town, tmp_path: Path
) -> None:
    old = await handed_over(town)
    honest = parsed(await exported(world.context))
    file = tmp_path / "export.ndjson"

    def resigned(kind: str, accept: int, key: SigningKey) -> Lines:
        lines = json.loads(json.dumps(honest))
        line = [each for each in lines if each["kind"] == kind][accept]
        if kind == "checkpoint":
            line["signatures"] = [sign_document(key, line["document"].encode())]
        else:
            payload = line["receipt"].split(".")[1]
            line["receipt"] = sign_compact(key, parse_base64url(payload) or b"", "receipt+jws")
        found: Lines = lines
        return found

    assert both(resigned("checkpoint", -1, old), file) == "checkpoint_signature"
    assert both(resigned("checkpoint", 0, NEW), file) == "checkpoint_signature"
    assert both(resigned("usage_report", -1, old), file) == "receipt_signature"
    assert both(resigned("usage_report", 0, NEW), file) == "receipt_signature"


async def test_a_hand_over_that_is_not_the_journals_is_named(world: World, town: Town, tmp_path: Path) -> None:
    await handed_over(town)
    honest = parsed(await exported(world.context))
    at = of_kind(honest, "service_key", lambda line: line["document"] is not None)
    file = tmp_path / "export.ndjson"
    for member, value, code in (
        ("journal_seq", honest[at]["journal_seq"] + 1, "service_key_entry"),
        ("signatures", honest[at]["signatures"][:1], "service_key_signature"),
        ("document", honest[at]["document"].replace("2026", "2027"), "service_key_signature"),
    ):
        lines = json.loads(json.dumps(honest))
        lines[at][member] = value
        assert both(lines, file) == code, member
    missing = [line for number, line in enumerate(json.loads(json.dumps(honest))) if number != at]
    missing[0]["counts"]["service_key"] -= 1
    assert both(missing, file) in {"receipt_signature", "service_key_entry", "checkpoint_signature"}


async def test_reports_go_on_under_the_new_key(world: World, town: Town) -> None:
    await handed_over(town)
    await send(world, town.plain, [world.record(town.buyer)])
