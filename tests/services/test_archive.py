"""Sealed segments prove themselves: complete, unchanged, and a proof of each record without the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from settlement.client.proofs import check_proof
from settlement.core.errors import Broken, Conflict, Malformed, NotFound, Unavailable
from settlement.core.signatures import SigningKey
from settlement.services import archive, proofs, windows
from tests.client.town import Town, send, settle
from tests.world import World

pytest.importorskip("pyarrow", reason="NOT RUN: without pyarrow (the extra archive) nothing was proved about segments")
pytestmark = pytest.mark.database

Manifest = dict[str, Any]


async def sealed(town: Town, folder: Path) -> list[Manifest]:
    """A town's first two windows and one without usage, sealed."""
    world = town.world
    await settle(world)
    await settle(world)
    return [json.loads((await archive.write(world.context, number, folder)).read_bytes()) for number in (1, 2, 4)]


def errors(manifest: Manifest) -> list[str]:
    schema = json.loads((Path(__file__).parents[2] / "docs/reference/schemas/archive-1.json").read_text("utf-8"))
    return [each.message for each in jsonschema.Draft202012Validator(schema).iter_errors(manifest)]


def records_of(manifest: Manifest) -> Manifest:
    return next(each for each in manifest["segments"] if each["content"] == "records")


async def test_every_window_is_proven_by_its_files_alone(world: World, town: Town, tmp_path: Path) -> None:
    manifests = await sealed(town, tmp_path)
    key = world.context.key.public.jwk()
    for manifest in manifests:
        document = json.loads(manifest["checkpoint"]["document"])
        tree = archive.check(manifest, tmp_path, key)
        assert (tree.size, tree.root().hex()) == (document["records"]["size"], document["records"]["root"])
        assert errors(manifest) == []
        for each in manifest["segments"]:
            file = tmp_path / f"{each['content']}-{each['digest'][7:]}.parquet"
            assert file.stat().st_size == each["bytes"]
            assert file.stat().st_mode & 0o222 == 0
    with pytest.raises(Broken, match="key_not_trusted"):
        archive.check(manifests[0], tmp_path, SigningKey(bytes(32)).public.jwk())


async def test_a_proof_from_a_segment_is_the_services_own(world: World, tmp_path: Path, town: Town) -> None:
    manifests = {
        number: json.loads((await archive.write(world.context, number, tmp_path)).read_bytes()) for number in (1, 2)
    }
    compared = 0
    for member in (town.plain, town.linked):
        for body in member.sent:
            for record in json.loads(body)["records"]:
                try:
                    ours = await proofs.record_proof(world.context, member.id, record["id"])
                except NotFound:
                    continue  # refused, or in the window that is open
                manifest = manifests[ours["checkpoint"]["window"]]
                made = archive.prove(manifest, tmp_path, member.id, record["id"])
                assert check_proof(made, trusted_key=world.context.key.public.jwk()).fault is None
                ours.pop("offer", None)  # what the rates were multiplied by is the service's to show
                assert {**made, "anchors": ours["anchors"]} == ours
                compared += 1
    assert compared > 5
    with pytest.raises(NotFound, match="record_unknown"):
        archive.prove(manifests[1], tmp_path, town.plain.id, "019aaa00-0000-7000-8000-000000000001")


async def test_a_changed_segment_or_manifest_is_named(town: Town, tmp_path: Path) -> None:
    first, manifest, _ = await sealed(town, tmp_path)
    records = records_of(manifest)
    for changed, code in (
        ({**manifest, "frontier": manifest["frontier"][:-2] + "00"}, "archive_mismatch"),
        ({**manifest, "segments": [records]}, "archive_malformed"),
        ({**manifest, "segments": [records_of(first), *manifest["segments"][1:]]}, "archive_mismatch"),
        ({**manifest, "type": "archive/2"}, "archive_malformed"),
    ):
        with pytest.raises((Broken, Malformed), match=code):
            archive.check(changed, tmp_path)
    file = tmp_path / f"records-{records['digest'][7:]}.parquet"
    whole = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(Broken, match="segment_changed"):
        archive.check(manifest, tmp_path)
    file.unlink()
    with pytest.raises(Unavailable, match="segment_missing"):
        archive.check(manifest, tmp_path)


async def test_a_window_is_sealed_once_its_checkpoint_is_on_a_chain(
    world: World, tmp_path: Path, village: Town
) -> None:
    await send(world, village.plain, [world.record(village.buyer)])
    await windows.close(world.context)
    with pytest.raises(NotFound, match="unknown_checkpoint"):
        await archive.write(world.context, 2, tmp_path)
    await windows.settle_net(world.context, 2)
    await windows.settle_checkpoint(world.context, 2)
    with pytest.raises(Conflict, match="window_not_anchored"):
        await archive.write(world.context, 2, tmp_path)
