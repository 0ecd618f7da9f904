"""Archiving a window: its records and reports as sealed segments, with a manifest by which each can be proven.

The manifest (`archive/1`, docs/reference/archive.md) holds the window's checkpoint and what came before it of the
record tree. A segment that makes the checkpoint's root again is complete and unchanged, whoever kept it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from settlement.services import segments, service_keys
from settlement.services.context import Context
from settlement.services.segments import Sealing, Segment
from settlement.storage import archive, checkpoints, trees, usage_leaves

Document = dict[str, Any]
TYPE = "archive/1"


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
        previous = await checkpoints.find(connection, window_no - 1)
        before = merkle.Frontier() if previous is None else await trees.frontier(connection, previous.tree_size)
        keys = await usage_leaves.salt_keys(connection, window_no)
        sealing, index = Sealing(folder, "records"), before.size
        async for report in usage_leaves.stream(connection, window_no):
            body = json.loads(report.body)
            for line in report.lines:
                record = body["records"][line.line]
                salt = record_salt(keys[record["consumer"]], line.record_id)
                sealing.add(
                    (index, line.record_id, body["provider"], record["consumer"], report.digest, line.line, line.rates,
                     line.charge_pico, salt, canonical.encode(record))
                )  # fmt: skip
                index += 1
        records = sealing.seal()
        sealing = Sealing(folder, "reports")
        async for signed in archive.reports(connection, window_no):
            sealing.add(
                (signed.journal_seq, signed.id, signed.provider, signed.report, signed.seq, signed.received_at,
                 signed.digest, signed.kid, signed.signature, signed.accepted, signed.total, signed.receipt,
                 signed.body)
            )  # fmt: skip
        reports = sealing.seal()
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
                for each in (records, reports)
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
    hashes = [merkle.leaf_hash(_leaf(row, checkpoint["window"])) for row in segments.rows(folder, listed["records"])]
    for _ in segments.rows(folder, listed["reports"]):
        pass
    tree = WindowTree(before, hashes)
    if (tree.size, len(hashes), tree.root().hex()) != sizes:
        raise Broken("archive_mismatch", "the records of the segment don't make the root of the checkpoint")
    return tree


def prove(manifest: Mapping[str, Any], folder: Path, provider: str, record: str) -> Document:
    """`proof/1` of a record, from the segments alone. Raises NotFound ``record_unknown`` and what `check` raises."""
    tree = check(manifest, folder)
    try:
        wanted = UUID(record).bytes
    except ValueError:
        raise NotFound("record_unknown", "a usage record's id is a UUID") from None
    listed = _segments(Fields(manifest, "archive"))
    for row in segments.rows(folder, listed["records"]):
        if row["id"] == wanted and row["provider"] == provider:
            return {
                "type": "proof/1",
                "tree": "records",
                "leaf": _leaf(row, manifest["window"]).decode(),
                "index": row["index"],
                "size": tree.size,
                "path": [each.hex() for each in tree.path(row["index"])],
                "checkpoint": manifest["checkpoint"],
                "anchors": [],
                "service_key": manifest["service_key"],
                "handovers": manifest["handovers"],
            }
    raise NotFound("record_unknown", f"{provider} has no record {record} in win_{manifest['window']}")


def _segments(fields: Fields) -> dict[str, Segment]:
    found = [
        Segment(each.text("content"), each.digest("digest"), each.whole("bytes"), each.whole("rows"))
        for each in fields.objects("segments")
    ]
    return {each.content: each for each in _both(found)}


def _both(found: Sequence[Segment]) -> Sequence[Segment]:
    if sorted(each.content for each in found) != ["records", "reports"]:
        raise Malformed("archive_malformed", "a manifest names one segment of records and one of reports")
    return found


def _leaf(row: Mapping[str, Any], window: int) -> bytes:
    return record_leaf(
        provider=row["provider"],
        report=f"sha256:{row['report'].hex()}",
        line=row["line"],
        window=window,
        rates=row["rates"],
        charge_pico=int(row["charge_pico"]),
        salt=row["salt"],
        record=json.loads(row["record"]),
    )
