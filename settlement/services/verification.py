"""Everything that can be checked from inside, in one call: the server, the schema, the books, and the whole export.

The last part is the client's own verifier, fed with the export as a stranger would feed it: it re-rates every record
and makes every root again from the signed bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from settlement.client.verifier import ExportVerifier, Report
from settlement.core.errors import Broken, SettlementError, Unavailable
from settlement.services import audit, shelf
from settlement.services.context import Context
from settlement.storage import checkpoints, halts, invariants, retention, trees
from settlement.storage.database import Connection
from settlement.storage.invariants import Violation
from settlement.storage.retention import Retired

_CHUNK = 1 << 20
"""Bytes of lines that are handed to the verifier's thread at a time."""


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What was found. `failure` is the first thing that doesn't hold; `halts` are open halts, which aren't failures.

    `invariants` is how many SQL invariants hold, `export` what the outside verifier found, None when it did not run.
    `checksums`: whether the server would notice a page that rotted.
    """

    failure: Violation | None
    halts: tuple[str, ...]
    invariants: int
    export: Report | None
    checksums: bool

    @property
    def good(self) -> bool:
        """Whether everything that was looked at holds."""
        return self.failure is None


Depth = Literal["quick", "books", "export"]
"""How far to look: the quick invariants (before each payout), all of them, or everything that was signed as well."""


async def verify(context: Context, depth: Depth = "export") -> VerificationReport:
    """Check durability, the schema's guards, SQL invariants and stored tree; at depth ``export`` the whole export too.

    Stops at the first failure and names it. Changes nothing; whoever calls it decides what to halt.
    """
    failure = await _durability(context)
    export: Report | None = None
    async with context.database.read() as connection:
        stopped = tuple(f"{halt.code}: {halt.detail}" for halt in await halts.open_halts(connection))
        if failure is None:
            missing = await invariants.missing_guard(connection)
            if missing is not None:
                failure = Violation("guard_missing", missing, "the schema has every guard that it was built with")
        if failure is None:
            failure = await invariants.first_violation(connection, deep=depth != "quick")
        if failure is None and depth != "quick":
            failure = await _wrong_tile(connection) or _missing_segment(context, await retention.every(connection))
    held = sum(depth != "quick" or not each.deep for each in invariants.invariants()) if failure is None else 0
    if failure is None and depth == "export":
        try:
            export = await read_lines(audit.export(context), ExportVerifier())
        except SettlementError as error:
            if error.code not in shelf.CODES:
                raise
            failure = Violation(error.code, "archive", error.detail)
        else:
            if export.fault is not None:
                failure = Violation(export.fault.code, export.fault.subject, export.fault.detail)
    return VerificationReport(failure, stopped, held, export, await context.database.checksums())


async def _wrong_tile(connection: Connection) -> Violation | None:
    """Where the record tree on file, from which proofs are made, is not the one that the last checkpoint states."""
    last = await checkpoints.newest(connection)
    if last is None:
        return None
    stated = bytes.fromhex(json.loads(last.document)["records"]["root"])
    wrong = await trees.first_wrong(connection, last.tree_size, stated)
    if wrong is None:
        return None
    return Violation("tree_tiles", wrong, "the record tree on file is the one that the last checkpoint states")


def _missing_segment(context: Context, left: Sequence[Retired]) -> Violation | None:
    """The first window that has left whose segments are not there; their bytes are read when they are exported."""
    for each in left:
        try:
            shelf.check_present(context, each)
        except (Broken, Unavailable) as error:
            return Violation(error.code, f"window {each.window_no}", error.detail)
    return None


async def read_lines(lines: AsyncGenerator[bytes, None], verifier: ExportVerifier) -> Report:
    """Feed lines to the client's verifier up to its first fault, in a thread so that the process goes on serving."""
    waiting: list[bytes] = []
    size = 0

    def feed(chunk: list[bytes]) -> None:
        for line in chunk:
            verifier.feed(line)

    async with aclosing(lines) as source:
        async for line in source:
            waiting.append(line)
            size += len(line)
            if size >= _CHUNK:
                await asyncio.to_thread(feed, waiting)
                waiting, size = [], 0
                if verifier.fault is not None:
                    break
    await asyncio.to_thread(feed, waiting)
    return await asyncio.to_thread(verifier.finish)


async def _durability(context: Context) -> Violation | None:
    try:
        await context.database.check_durability()
    except Broken as broken:
        return Violation(broken.code, "database", broken.detail)
    return None
