"""Archiving a window: its records and reports as sealed segments, with a manifest by which each can be proven.

The manifest (`archive/1`, docs/reference/archive.md) holds the window's checkpoint and what came before it of the
record tree. Segments that make the checkpoint's root again are complete and unchanged, whoever kept them. Salts are a
segment of their own, so that what a consumer asked to be deleted need not be in the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from settlement.client.keychain import document_keys
from settlement.client.lines import Fields, Wrong
from settlement.client.proofs import check_checkpoint
from settlement.core import canonical, merkle
from settlement.core.archive import WindowTree
from settlement.core.checkpoints import record_leaf, record_salt
from settlement.core.errors import Broken, Conflict, Malformed, NotFound
from settlement.core.leaves import LeafSalts
from settlement.services import evidence, segments, service_keys, shelf
from settlement.services.context import Context
from settlement.services.segments import Row, Sealing, Segment
from settlement.storage import archive, checkpoints, retention, trees, usage_leaves
from settlement.storage.database import Connection

Document = dict[str, Any]
TYPE = "archive/1"
CONTENTS = ("records", "reports", "salts")


async def write(context: Context, window_no: int, folder: Path) -> Path:
    """Seal a checkpointed window into `folder`; returns the manifest's path. Segments that are there stay as they are.

    Raises NotFound ``unknown_checkpoint``, Conflict ``window_not_anchored`` before its digest is in a final ledger,
    Broken ``evidence_mismatch`` when what was read does not make the checkpoint's root.
    """
    segments.require_pyarrow()
    async with context.database.read() as connection:
        stored = await checkpoints.get(connection, window_no)
        anchors = await checkpoints.anchors(connection, window_no)
        if not anchors:
            raise Conflict("window_not_anchored", f"win_{window_no} is sealed when its checkpoint is on a chain")
        before = await trees.frontier(connection, await usage_leaves.leaves_of_earlier(connection, window_no))
        left = await retention.find(connection, window_no)
        if left is None:
            found = await seal(connection, window_no, folder, before.size)
        else:
            found = shelf.copy(context, left, folder)
        salts = _seal_salts(folder, await usage_leaves.salts(connection, window_no))
        manifest = {
            "type": TYPE,
            "window": window_no,
            "checkpoint": {
                "window": window_no,
                "document": stored.document.decode(),
                "signatures": list(stored.signatures),
            },
            "frontier": before.to_bytes().hex(),
            "segments": [
                {"content": each.content, "digest": each.digest, "bytes": each.bytes, "rows": each.rows}
                for each in (*found, salts)
            ],
            "anchors": [
                {"chain": each.chain, "network": each.network, "tx": each.tx, "ledger": each.ledger} for each in anchors
            ],
            **await service_keys.credentials(connection, stored.signatures),
        }
    try:
        check(manifest, folder)
    except (Broken, Malformed) as error:
        raise Broken(
            "evidence_mismatch", f"what is on file of win_{window_no} is not what was signed: {error}"
        ) from None
    path = folder / f"win_{window_no}.archive.json"
    path.write_bytes(canonical.encode(manifest) + b"\n")
    return path


async def seal(connection: Connection, window_no: int, folder: Path, first: int) -> tuple[Segment, Segment]:
    """The records and the reports of a window that is in the database, as two segments; leaves begin at `first`."""
    with Sealing(folder, "records") as sealing:
        index = first
        async for report in usage_leaves.stream(connection, window_no):
            provider = json.loads(report.body)["provider"]
            for line, record in zip(report.lines, evidence.signed_records(report), strict=True):
                sealing.add(
                    (index, line.record_id, provider, record["consumer"], report.digest, line.line, line.rates,
                     line.charge_pico, canonical.encode(record))
                )  # fmt: skip
                index += 1
        records = sealing.seal()
    with Sealing(folder, "reports") as sealing:
        async for signed in archive.reports(connection, window_no):
            sealing.add(
                (signed.journal_seq, signed.id, signed.provider, signed.report, signed.seq, signed.received_at,
                 signed.digest, signed.kid, signed.signature, signed.accepted, signed.total, signed.receipt,
                 signed.body)
            )  # fmt: skip
        return records, sealing.seal()


def _seal_salts(folder: Path, salts: Iterable[tuple[str, bytes | None, bytes | None]]) -> Segment:
    with Sealing(folder, "salts") as sealing:
        for salt in salts:
            sealing.add(salt)
        return sealing.seal()


def leaf_of(row: Row, window: int, salts: LeafSalts) -> bytes | None:
    """The bytes of a row's leaf; None when its salt was erased."""
    key = salts.keys.get(row["consumer"])
    if key is None:
        return None
    return record_leaf(
        provider=row["provider"],
        report=f"sha256:{row['report'].hex()}",
        line=row["line"],
        window=window,
        rates=row["rates"],
        charge_pico=int(row["charge_pico"]),
        salt=record_salt(key, row["id"]),
        record=json.loads(row["record"]),
    )


def leaf_hashes(folder: Path, records: Segment, window: int, salts: LeafSalts) -> list[bytes]:
    """The leaf hashes of all rows of a segment. Raises Broken ``salt_missing`` and what `segments.rows` raises."""
    made = []
    for row in segments.rows(folder, records):
        leaf = leaf_of(row, window, salts)
        made.append(salts.left(row["consumer"]) if leaf is None else merkle.leaf_hash(leaf))
    return made


def check(manifest: Mapping[str, Any], folder: Path, trusted: Mapping[str, object] | None = None) -> WindowTree:
    """Hold the segments of a manifest to its checkpoint: digests, signatures, and the root that all records make.

    Returns the window's tree. Raises Broken ``archive_mismatch`` or ``segment_changed``, Malformed.
    """
    try:
        fields = Fields(manifest, "archive")
        if fields.text("type") != TYPE:
            raise Malformed("archive_malformed", f"the manifest is no {TYPE}")
        key, _ = document_keys(fields, trusted)
        checkpoint, _ = check_checkpoint(fields.object("checkpoint"), {key.kid: key})
        before = merkle.Frontier.from_bytes(bytes.fromhex(fields.text("frontier")))
        listed = _segments(fields)
        stated = checkpoint.object("records")
        sizes = (stated.whole("size"), stated.whole("window"), stated.text("root"))
    except Wrong as wrong:
        raise Broken(wrong.code, f"{wrong.subject}: {wrong.detail}") from None
    hashes = leaf_hashes(folder, listed["records"], checkpoint["window"], _salts(folder, listed))
    for _ in shelf.reports(folder, listed["records"], listed["reports"]):
        pass
    tree = WindowTree(before, hashes)
    if (tree.size, len(hashes), tree.root().hex()) != sizes:
        raise Broken("archive_mismatch", "the records of the segment don't make the root of the checkpoint")
    return tree


def prove(manifest: Mapping[str, Any], folder: Path, provider: str, record: str) -> Document:
    """`proof/1` of a record, from the segments alone.

    Raises NotFound ``record_unknown`` or ``record_erased``, and what `check` raises.
    """
    tree = check(manifest, folder)
    try:
        wanted = UUID(record).bytes
    except ValueError:
        raise NotFound("record_unknown", "a usage record's id is a UUID") from None
    listed, window = _segments(Fields(manifest, "archive")), manifest["window"]
    salts = _salts(folder, listed)
    for row in segments.rows(folder, listed["records"]):
        if row["id"] == wanted and row["provider"] == provider:
            leaf = leaf_of(row, window, salts)
            if leaf is None:
                raise NotFound("record_erased", f"the salts of win_{window} were deleted: {row['consumer']} asked")
            return {
                "type": "proof/1",
                "tree": "records",
                "leaf": leaf.decode(),
                "index": row["index"],
                "size": tree.size,
                "path": [each.hex() for each in tree.path(row["index"])],
                "checkpoint": manifest["checkpoint"],
                "anchors": [],
                "service_key": manifest["service_key"],
                "handovers": manifest["handovers"],
            }
    raise NotFound("record_unknown", f"{provider} has no record {record} in win_{window}")


def _salts(folder: Path, listed: Mapping[str, Segment]) -> LeafSalts:
    return LeafSalts((row["consumer"], row["key"], row["hashes"]) for row in segments.rows(folder, listed["salts"]))


def _segments(fields: Fields) -> dict[str, Segment]:
    found = [
        Segment(each.text("content"), each.digest("digest"), each.whole("bytes"), each.whole("rows"))
        for each in fields.objects("segments")
    ]
    return {each.content: each for each in _all_of(found)}


def _all_of(found: Sequence[Segment]) -> Sequence[Segment]:
    if sorted(each.content for each in found) != sorted(CONTENTS):
        raise Malformed("archive_malformed", f"a manifest names one segment each of {', '.join(CONTENTS)}")
    return found
