"""The audit export: everything that an outsider needs to check the books, as NDJSON, from one snapshot.

What a line refers to comes before it, so that one pass checks everything (docs/reference/audit-export.md):

    header, service_key, chain, halt, party, party_key, policy, rate_table, offer, governance_document,
    governance_entry, account, funding_intent, report_conflict, dispute, erasure, retention,
    then for each window: window, record_salt,
        for each journal entry: its usage_report, deposit, payout or demand, or its fixing behind the observations that
            came before that, then journal_entry,
            and, once the entry that a checkpoint states was read, that window's position lines and its checkpoint;
            solvency behind the entry that it states,
        obligation,
    positions of windows that are netted and not checkpointed, and for each chain_order: attempt, attempt_event.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from settlement.core import times
from settlement.core.errors import Broken
from settlement.services import shelf
from settlement.services.context import Context
from settlement.services.shelf import KeptReport
from settlement.storage import audit, funding, journal, retention
from settlement.storage.audit import Line
from settlement.storage.database import Connection

FORMAT = "audit/1"
BEFORE_WINDOWS = (
    "halt",
    "party",
    "party_key",
    "policy",
    "rate_table",
    "offer",
    "governance_document",
    "governance_entry",
    "account",
    "funding_intent",
    "report_conflict",
    "dispute",
    "erasure",
    "retention",
)


async def export(context: Context) -> AsyncGenerator[bytes, None]:
    """The lines of the export, each with its line feed. Memory doesn't grow with what is exported."""
    async with context.database.read() as connection, aclosing(_lines(context, connection)) as lines:
        async for line in lines:
            yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _lines(context: Context, connection: Connection) -> AsyncGenerator[Line, None]:
    chains = await _chains(context, connection)
    head = await journal.head(connection)
    counts = await audit.counts(connection) | {"header": 1, "chain": len(chains)}
    yield {
        "kind": "header",
        "format": FORMAT,
        "made_at": times.text(context.sources.clock()),
        "journal": {"seq": head.seq, "hash": head.hash.hex()},
        "counts": counts,
    }
    async for line in audit.stream(connection, "service_key"):
        yield line
    for chain in chains:
        yield chain
    for kind in BEFORE_WINDOWS:
        async for line in audit.stream(connection, kind):
            yield line
    async with aclosing(_Windows(context, connection)) as windows:
        async for line in windows.lines():
            yield line
    async for line in _orders(connection):
        yield line


async def _chains(context: Context, connection: Connection) -> list[Line]:
    known, decimals = await audit.chains(connection), await funding.assets(connection)
    lines = []
    for name in sorted({*known, *context.chains}):
        adapter = context.chains.get(name)
        network, treasury, fee_asset = known.get(name) or ("", "", "")
        assets = decimals.get(name, {})
        if adapter is not None:
            network, treasury = network or adapter.facts.network, treasury or adapter.treasury
            fee_asset = fee_asset or adapter.facts.fee_asset.text
            assets = assets or {asset.text: places for asset, places in adapter.facts.assets.items()}
        lines.append(
            {
                "kind": "chain",
                "chain": name,
                "network": network,
                "treasury": treasury,
                "assets": assets,
                "fee_asset": fee_asset,
            }
        )
    return lines


class _Ahead:
    """A stream of lines whose next line can be looked at before it is taken."""

    def __init__(self, lines: AsyncGenerator[Line, None]) -> None:
        self._lines = lines
        self.next: Line | None = None

    async def take(self) -> Line | None:
        """The line looked at so far; the one after it is looked at next."""
        taken = self.next
        self.next = await anext(self._lines, None)
        return taken

    async def aclose(self) -> None:
        """Give back what the lines are read with."""
        await self._lines.aclose()


class _Windows:
    """The part of the export that goes window by window."""

    def __init__(self, context: Context, connection: Connection) -> None:
        self._connection = connection
        self._entries = _Ahead(audit.stream(connection, "journal_entry"))
        self._reports = _Ahead(_reports(context, connection))
        self._deposits = _Ahead(audit.stream(connection, "deposit"))
        self._payouts = _Ahead(audit.stream(connection, "payout"))
        self._observations = _Ahead(audit.stream(connection, "observation"))
        self._fixings = _Ahead(audit.stream(connection, "fixing"))
        self._demands = _Ahead(audit.stream(connection, "demand"))
        self._solvency = _Ahead(audit.stream(connection, "solvency"))
        self._checkpoints: list[tuple[int, int]] = []
        self._seq = 0

    async def aclose(self) -> None:
        """Give back what is open, also when a segment could not be read."""
        for ahead in (self._entries, self._reports, self._deposits, self._payouts, self._solvency):
            await ahead.aclose()

    async def lines(self) -> AsyncIterator[Line]:
        """Windows with their journal, then what is left over."""
        connection = self._connection
        self._checkpoints = await audit.checkpoint_places(connection)
        positioned = len(self._checkpoints)
        windows = [line async for line in audit.stream(connection, "window")]
        for ahead in (
            *(self._entries, self._reports, self._deposits, self._payouts, self._solvency),
            *(self._observations, self._fixings, self._demands),
        ):
            await ahead.take()
        for window in windows:
            yield window
            async for line in audit.stream(connection, "record_salt", window=window["no"]):
                yield line
            async for line in self._reached(window["no"]):
                yield line
            async for line in self._journal(window):
                yield line
            async for line in audit.stream(connection, "obligation", window=window["no"]):
                yield line
        for ahead in (
            *(self._observations, self._fixings, self._demands),
            *(self._reports, self._deposits, self._payouts, self._entries),
        ):
            while (left := await ahead.take()) is not None:  # new observations; else nothing, or the verifier names it
                yield left
        for window in windows[positioned:]:
            async for line in audit.stream(connection, "position", window=window["no"]):
                yield line

    async def _journal(self, window: Line) -> AsyncIterator[Line]:
        while (entry := self._entries.next) is not None:
            if window["last_seq"] is not None and entry["seq"] > window["last_seq"]:
                return
            async for fixed in self._fixed(entry["seq"]):
                yield fixed
            for ahead, member in (
                (self._reports, "journal_seq"),
                (self._deposits, "entry_seq"),
                (self._payouts, "planned_seq"),
                (self._demands, "journal_seq"),
            ):
                while ahead.next is not None and (ahead.next[member] or 0) <= entry["seq"]:
                    line = await ahead.take()
                    assert line is not None, "it was looked at just now"
                    line.pop("planned_seq", None)
                    yield line
            await self._entries.take()
            yield entry
            self._seq = entry["seq"]
            async for line in self._reached(window["no"]):
                yield line

    async def _fixed(self, seq: int) -> AsyncIterator[Line]:
        """The fixings up to a journal entry, each behind the observations that came before it."""
        while (found := self._fixings.next) is not None and (found["journal_seq"] or 0) <= seq:
            while (seen := self._observations.next) is not None and seen["no"] <= found["observed"]:
                yield seen
                await self._observations.take()
            yield found
            await self._fixings.take()

    async def _reached(self, window_no: int) -> AsyncIterator[Line]:
        """Checkpoints of earlier windows whose entry was read, each behind its positions; then what was measured."""
        while self._checkpoints and self._checkpoints[0][0] <= self._seq and self._checkpoints[0][1] < window_no:
            _, number = self._checkpoints.pop(0)
            for kind in ("position", "checkpoint"):
                async for line in audit.stream(self._connection, kind, window=number):
                    yield line
        waiting = self._checkpoints[0][1] if self._checkpoints else window_no
        while (found := self._solvency.next) and found["journal_seq"] <= self._seq and found["window"] < waiting:
            await self._solvency.take()
            yield found


async def _reports(context: Context, connection: Connection) -> AsyncGenerator[Line, None]:
    """The usage reports; of windows that have left, the bodies come from their segments."""
    left = {each.window_no: each for each in await retention.every(connection)}
    kept: AsyncIterator[KeptReport] | None = None
    window = 0
    async with aclosing(audit.stream(connection, "usage_report")) as lines:
        async for line in lines:
            if line["window"] in left:
                if kept is None or line["window"] != window:
                    window = line["window"]
                    kept = shelf.stream(context, left[window])
                found = await anext(kept, None)
                if found is None or found.journal_seq != line["journal_seq"]:
                    raise Broken("archive_mismatch", f"the segments of win_{window} have not report {line['id']}")
                line["body"] = b64encode(found.body).decode()
            yield line


async def _orders(connection: Connection) -> AsyncIterator[Line]:
    attempts = _Ahead(audit.stream(connection, "attempt"))
    events = _Ahead(audit.stream(connection, "attempt_event"))
    await attempts.take()
    await events.take()
    async for order in audit.stream(connection, "chain_order"):
        yield order
        for ahead in (attempts, events):
            while ahead.next is not None and ahead.next["order"] == order["id"]:
                line = await ahead.take()
                assert line is not None, "it was looked at just now"
                yield line
    for ahead in (attempts, events):
        while (left := await ahead.take()) is not None:
            yield left
