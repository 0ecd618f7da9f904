"""The spool: a call's beginning, its marks and its record are on disk before anybody relies on them.

Lines that are asked for while others are being written wait and share the next fsync. When the disk refuses, the
caller gets `SpoolFailed` and must not finish its answer; what was lost is counted, and `healthy` is false until a
line gets through again, so that no new call is let in meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from settlement.core.errors import NotFound, Unavailable
from settlement.core.ids import Sources
from settlement.meter import refusals, segments
from settlement.meter.segments import MAX_SEGMENT, Line, Record

LOG = logging.getLogger("settlement.meter")


class SpoolFailed(Unavailable):
    """The disk didn't take a line."""

    def __init__(self, reason: str) -> None:
        super().__init__("spool_failed", f"usage can't be written to the spool: {reason}")


class Spool:
    """One process's part of a spool folder. `wake` is set when there is a new record to report."""

    def __init__(self, folder: Path, sources: Sources) -> None:
        self.folder = folder
        self.recovered = segments.recover(folder / "segments") if (folder / "segments").exists() else 0
        self.healthy = True
        self.lost = 0
        self.wake = asyncio.Event()
        self._sources = sources
        self._writer = segments.Writer(folder / "segments", self._new_name())
        self._open: dict[str, Line] = {}
        self._waiting: list[tuple[Line, asyncio.Future[None]]] = []
        self._settling: asyncio.Task[None] | None = None

    async def ready(self) -> bool:
        """Whether the disk takes lines: when the last one failed, by trying another, which says nothing."""
        if not self.healthy:
            with suppress(SpoolFailed):
                await self._append({"close": {"id": ""}})
        return self.healthy

    async def begin(self, draft: Record) -> None:
        """A call is let through; returns when that is on disk. Raises SpoolFailed."""
        line = {"open": draft}
        await self._append(line)
        self._open[draft["id"]] = line

    def mark(self, call: str, output_tokens: int) -> None:
        """So much output has gone out; written with the next lines, and not waited for."""
        self._put({"mark": {"id": call, "output_tokens": output_tokens}}).add_done_callback(_forget)

    async def record(self, *records: Record) -> None:
        """A call ended; returns when its records are on disk. Raises SpoolFailed, and counts the loss.

        One that no report can carry is kept among the refused, so that it does not hold up the others.
        """
        reported = [record for record in records if refusals.unfit(record) is None]
        try:
            if len(reported) < len(records):
                await asyncio.to_thread(self._refuse, [record for record in records if record not in reported])
            await self._append({"record": reported} if reported else {"close": {"id": records[0]["id"]}})
        except (SpoolFailed, OSError) as error:
            self.lost += len(records)
            raise error if isinstance(error, SpoolFailed) else _failed(error) from None
        self._open.pop(records[0]["id"], None)
        self.wake.set()

    def _refuse(self, records: Sequence[Record]) -> None:
        for record in records:
            LOG.error("record %s can't be reported: its %s is not as usage/1", record.get("id"), refusals.unfit(record))
        refusals.keep(
            self.folder,
            [{"seq": 0, "line": record["id"], "code": refusals.MALFORMED, "record": record} for record in records],
        )

    async def close_call(self, call: str) -> None:
        """A call ended and nothing is to be reported."""
        await self._append({"close": {"id": call}})
        self._open.pop(call, None)

    async def close(self) -> None:
        """Write what waits and end the segment. Calls that haven't ended stay open in it for the next start."""
        while self._settling is not None:
            await asyncio.wait([self._settling])
        if not self._open:
            self._writer.close()

    async def _append(self, line: Line) -> None:
        await asyncio.shield(self._put(line))

    def _put(self, line: Line) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, future))
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle())
        return future

    async def _settle(self) -> None:
        try:
            while self._waiting:
                lines, self._waiting = self._waiting, []
                data = b"".join(segments.encode(line) for line, _ in lines)
                try:
                    await asyncio.to_thread(self._write, data)
                except OSError as error:
                    self.healthy = False
                    for _, future in lines:
                        future.set_exception(_failed(error))
                else:
                    self.healthy = True
                    for _, future in lines:
                        future.set_result(None)
        finally:
            self._settling = None

    def _write(self, data: bytes) -> None:
        if self._writer.size >= MAX_SEGMENT:
            self._writer.rotate(self._new_name(), list(self._open.values()))
        self._writer.write(data)

    def _new_name(self) -> str:
        return self._sources.record_id(self._sources.clock())


def _failed(error: OSError) -> SpoolFailed:
    return SpoolFailed(error.strerror or type(error).__name__)


def _forget(future: asyncio.Future[None]) -> None:
    """A mark that the disk didn't take is no loss by itself: the call's record comes, or the disk says so again."""
    if not future.cancelled():
        future.exception()


def status(folder: Path) -> Mapping[str, Any]:
    """What is in a spool folder, without a lock: records waiting, reports by state, refusals by code.

    Raises NotFound ``file_missing``.
    """
    if not folder.is_dir():
        raise NotFound("file_missing", f"there is no spool {folder}")
    bodies = {path.stem for path in folder.glob("reports/*/*.json")}
    answers = {path.stem for path in folder.glob("reports/*/*.answer")}
    last = max(bodies, default=None)
    cursor: dict[str, int] = next(
        (json.loads(path.read_bytes()) for path in folder.glob(f"reports/*/{last}.cursor")), {}
    )
    waiting = 0
    for segment in folder.glob("segments/*"):
        reading = segments.read(segment, cursor.get(segment.stem, 0))
        waiting += sum(1 for _ in segments.records(reading.lines))
    return {
        "waiting": waiting,
        "reports": len(bodies),
        "unanswered": len(bodies - answers),
        "refused": refusals.count(folder),
    }
