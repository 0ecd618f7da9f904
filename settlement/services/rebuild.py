"""Rebuilding everything that is derived from what was signed: `settlement rebuild` (decision 42).

    evidence   signed reports, deposits, the chained journal, governed documents, checkpoints, salts, attempts; captures
    derived    balances, what is held, obligations, streams, the record tree, what holds and budgets have used

Figures of providers' conduct for windows that an older program settled are added on the way.

The evidence is read by the outside verifier, which holds it to every signed root on the way; then the derived tables
are written anew, in one transaction in which nothing else is booked. When the evidence itself does not hold, or the
tree that it makes has other roots than the checkpoints, nothing is changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from settlement.client.evidence import EvidenceReader
from settlement.core.errors import Broken
from settlement.core.leaves import LeafSalts, flagged
from settlement.services import audit, evidence
from settlement.services.context import Context
from settlement.services.verification import read_lines
from settlement.storage import checkpoints, rebuild, reputation, trees, usage_leaves, windows
from settlement.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was read, and how many rows of each derived table were not what the evidence says."""

    entries: int
    records: int
    checkpoints: int
    balances: int
    obligations: int
    streams: int
    tiles: int
    marks: int
    holds: int
    budgets: int
    figures: int

    @property
    def changed(self) -> int:
        """How many derived rows were wrong."""
        wrong = self.balances + self.obligations + self.streams + self.tiles + self.marks
        return wrong + self.holds + self.budgets + self.figures


async def run(context: Context) -> Rebuilt:
    """Make all derived tables anew; while it runs nothing is booked.

    Raises Broken with the verifier's code for evidence that does not hold, ``tree_rewritten`` when the record tree has
    another root than a checkpoint states. Nothing is changed then.
    """

    async def use_case(connection: Connection) -> Rebuilt:
        await windows.open_since(connection, lock=True)
        await rebuild.lock_holds(connection)
        reader = await _read(context)
        owed = (
            (each.provider, each.consumer, each.window, each.records, each.carried_in, each.pico, each.posted)
            for each in reader.obligations
        )
        pairs = await rebuild.obligations(connection, owed)
        held = await rebuild.holds(connection)
        used = await rebuild.budgets(connection)
        balances = await rebuild.balances(connection, reader.balances)
        streams = await rebuild.streams(connection)
        before, marked = await rebuild.forget_tree(connection), await rebuild.forget_marks(connection)
        without = await rebuild.windows_without_figures(connection)
        count = await _grow(context, connection, frozenset(without))
        after = await rebuild.tree(connection)
        tiles = sum(before.get(place) != after.get(place) for place in before.keys() | after.keys())
        marks = len(marked ^ await rebuild.marks(connection))
        report = reader.finish()
        counted = (balances, pairs, streams, tiles, marks, held, used, len(without))
        return Rebuilt(report.head_seq, report.records, count, *counted)

    return await context.database.run(use_case)


async def _read(context: Context) -> EvidenceReader:
    reader = EvidenceReader()
    fault = (await read_lines(audit.export(context), reader)).fault
    if fault is not None:
        raise Broken(fault.code, f"the evidence does not hold: {fault.subject}: {fault.detail}")
    return reader


async def _grow(context: Context, connection: Connection, without: frozenset[int]) -> int:
    """The record tree from the signed reports, held to the root of every checkpoint; returns how many there are.

    Windows that are `without` figures get them.
    """
    size = number = 0
    while (stored := await checkpoints.find(connection, number + 1)) is not None:
        number += 1
        salts = LeafSalts(await usage_leaves.salts(connection, number))
        growth = await trees.growth(connection, size)
        full = []
        flags: dict[str, int] = {}
        async for report in evidence.reports(context, connection, number):
            digest = f"sha256:{report.digest.hex()}"
            if number in without:
                provider, count = flagged(report.body, report.lines)
                flags[provider] = flags.get(provider, 0) + count
            full += growth.append(salts.hashes(report.body, digest=digest, window=number, lines=report.lines))
        if number in without:
            await reputation.add(connection, number, flags)
        await rebuild.plant_tree(connection, [*full, *growth.rest()])
        await usage_leaves.mark(connection, number)
        size = growth.size
        stated = json.loads(stored.document)["records"]
        if (size, (await trees.root(connection, size)).hex()) != (stated["size"], stated["root"]):
            raise Broken("tree_rewritten", f"the signed records don't make the tree of checkpoint {number}")
    return number
