"""Retention: settled records leave the database as sealed segments; salts are deleted when their consumer asks.

    sealed -> read back -> held to the checkpoint's signed root -> compared row by row by the database -> deleted

Nothing leaves before the policy's time, and nothing that is not on disk in a file that makes the signed root. What has
left is read from there by whoever asks for it (`services.evidence`, `services.shelf`): proofs, statements, the export.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from settlement.core import archive as tree_of
from settlement.core import merkle
from settlement.core.errors import Broken, Conflict, Forbidden
from settlement.core.leaves import LeafSalts, report_leaves
from settlement.core.retention import RetentionRules
from settlement.services import archive, evidence, segments, shelf
from settlement.services.context import Context
from settlement.services.segments import Segment
from settlement.storage import checkpoints, governance, parties, retention, trees, usage_leaves, windows
from settlement.storage.checkpoints import Stored
from settlement.storage.database import Connection
from settlement.storage.retention import Retired, SaltToErase


@dataclass(frozen=True, slots=True)
class Standing:
    """The rules in force, what has left, what may leave by now, and who has asked to be forgotten."""

    rules: RetentionRules
    left: list[Retired]
    due: list[int]
    erasures: list[tuple[str, datetime, str]]
    salts_due: int


async def standing(context: Context) -> Standing:
    """What retention has done and has to do."""
    async with context.database.read() as connection:
        rules = await _rules(context, connection)
        now = context.sources.clock()
        return Standing(
            rules,
            await retention.every(connection),
            await retention.due(connection, now - rules.keep_rows),
            list(await retention.erasures(connection)),
            len(await retention.salts_to_erase(connection, now - rules.keep_salts)),
        )


async def run(context: Context) -> tuple[list[Retired], int]:
    """Erase the salts that are due, then let every window leave that may; returns those, and how many salts.

    Raises what `retire` raises; windows before the one it stopped at have left.
    """
    erased = await erase_due(context)
    left = [await retire(context, number) for number in (await standing(context)).due]
    return left, erased


async def retire(context: Context, window_no: int) -> Retired:
    """Seal a window, read it back, hold it to its checkpoint, and delete its records and signed bodies. Once.

    Raises what `seal` and `leave` raise. Nothing is deleted then.
    """
    return await leave(context, *await seal(context, window_no))


async def seal(context: Context, window_no: int) -> tuple[Retired, bytes]:
    """Write a window's segments and read them back: what they are, and the digest of their rows. Deletes nothing.

    Raises Unavailable ``archive_not_configured`` or ``extra_missing``, NotFound ``unknown_window``, Conflict
    ``window_not_due`` or ``window_retired``, Broken ``evidence_mismatch`` when they are not what was signed.
    """
    segments.require_pyarrow()
    folder = shelf.folder_of(context)
    now = context.sources.clock()
    async with context.database.read() as connection:
        await _check_due(context, connection, window_no, now)
        stored = await checkpoints.get(connection, window_no)
        before = await trees.frontier(connection, await usage_leaves.leaves_of_earlier(connection, window_no))
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        records, reports = await archive.seal(connection, window_no, folder, before.size)
        salts = LeafSalts(await usage_leaves.salts(connection, window_no))
    rows_digest = await asyncio.to_thread(_read_back, folder, records, reports, stored, before, salts)
    files = (_raw(records), _raw(reports), records.bytes, reports.bytes)
    return Retired(window_no, now, records.rows, reports.rows, *files), rows_digest


async def leave(context: Context, left: Retired, rows_digest: bytes) -> Retired:
    """Delete the rows that sealed segments hold, all of a window in one transaction, and record it.

    Raises Conflict ``window_retired``, Broken ``evidence_mismatch`` when the rows on file are not exactly those.
    """

    async def use_case(connection: Connection) -> Retired:
        await windows.get(connection, left.window_no, lock=True)
        if await retention.find(connection, left.window_no) is not None:
            raise Conflict("window_retired", f"win_{left.window_no} has left already")
        await retention.retire(connection, left, rows_digest)
        return left

    return await context.database.run(use_case)


async def erase(context: Context, party: str, reason: str) -> bool:
    """Forget a consumer: its name now, each of its salt keys once the policy's time for it is over.

    Returns False when it was asked before. Raises NotFound ``unknown_party``, Forbidden ``consumers_only``.
    """

    async def use_case(connection: Connection) -> bool:
        found = await parties.get(connection, party)
        if found.kind != "consumer":
            raise Forbidden("consumers_only", f"{party} is a provider; only consumers have salts")
        return await retention.ask_erasure(connection, found.no, context.sources.clock(), reason)

    return await context.database.run(use_case)


async def erase_due(context: Context) -> int:
    """Put leaf hashes in the place of every salt key whose consumer has asked and whose time is over; how many."""
    async with context.database.read() as connection:
        rules = await _rules(context, connection)
        due = await retention.salts_to_erase(connection, context.sources.clock() - rules.keep_salts)
    for salt in due:
        await _erase_salt(context, salt)
    return len(due)


async def _erase_salt(context: Context, salt: SaltToErase) -> None:
    """One transaction: the hashes are made from the signed records, and compared with the tree that was signed."""

    async def use_case(connection: Connection) -> None:
        made: list[tuple[int, bytes]] = []
        index = await usage_leaves.leaves_of_earlier(connection, salt.window_no)
        async for report in evidence.reports(context, connection, salt.window_no):
            signed = evidence.signed_records(report)
            places = [at for at, record in enumerate(signed) if record["consumer"] == salt.consumer]
            leaves = report_leaves(
                report.body,
                digest=f"sha256:{report.digest.hex()}",
                window=salt.window_no,
                lines=[report.lines[at] for at in places],
                keys={salt.consumer: salt.key},
            )
            made += [(index + at, merkle.leaf_hash(leaf)) for at, leaf in zip(places, leaves, strict=True)]
            index += len(report.lines)
        stored = await trees.leaves(connection, [index for index, _ in made])
        if any(stored.get(index) != found for index, found in made):
            raise Broken("tree_rewritten", f"the leaves of {salt.consumer} in win_{salt.window_no} are not in the tree")
        await retention.erase_salt(connection, salt, b"".join(found for _, found in made))

    await context.database.run(use_case)


async def _check_due(context: Context, connection: Connection, window_no: int, now: datetime) -> None:
    rules = await _rules(context, connection)
    window = await windows.get(connection, window_no)
    if await retention.find(connection, window_no) is not None:
        raise Conflict("window_retired", f"win_{window_no} has left already")
    if window_no not in await retention.due(connection, now - rules.keep_rows):
        when = "it is settled and anchored" if window.anchored_at is None else f"{rules.keep_rows} after its close"
        raise Conflict("window_not_due", f"win_{window_no} stays in the database until {when}")


async def _rules(context: Context, connection: Connection) -> RetentionRules:
    return (await governance.policy_at(connection, context.sources.clock())).retention


def _read_back(
    folder: Path, records: Segment, reports: Segment, stored: Stored, before: merkle.Frontier, salts: LeafSalts
) -> bytes:
    """Everything that was written, from the disk: each body has its digest, and all records make the signed root."""
    parts = []
    for report in shelf.reports(folder, records, reports):
        if sha256(report.body).digest() != report.digest:
            raise Broken("evidence_mismatch", f"a signed body of win_{stored.window_no} has another digest")
        parts.append(tree_of.report_part(report.digest, report.lines))
    hashes = archive.leaf_hashes(folder, records, stored.window_no, salts)
    before.extend(hashes)
    stated = json.loads(stored.document)["records"]
    if (before.size, len(hashes), before.root().hex()) != (stated["size"], stated["window"], stated["root"]):
        raise Broken("evidence_mismatch", f"the records of win_{stored.window_no} don't make the root that was signed")
    return sha256(b"".join(parts)).digest()


def _raw(segment: Segment) -> bytes:
    return bytes.fromhex(segment.digest.removeprefix("sha256:"))
