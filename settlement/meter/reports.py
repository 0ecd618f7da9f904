"""Reports on disk: each body is written once, numbered and chained, before it is sent for the first time.

    <folder>/reports/000000/000000041.json      the exact bytes of report 41
    <folder>/reports/000000/000000041.cursor    how far the segments are in reports, this one included
    <folder>/reports/000000/000000041.answer    the service's answer, once there is one
    <folder>/refused.ndjson                     records that nobody is charged for, with the reason
    <folder>/start.json                         where the chain begins when the provider has reported before

The cursor is written before the body, and the body's name appears last: a process that is killed in between finds no
report, and writes it again. Nothing is ever written over a body.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from settlement.core import canonical
from settlement.core.errors import Conflict, Malformed
from settlement.meter import refusals, segments
from settlement.meter.segments import CLOSED, OPEN, Record, sync_folder

MAX_RECORDS = 1_000
MAX_BYTES = 4 * 1024 * 1024
"""Bounds of one report, well below what the service takes."""

Cursor = dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """A report on disk; `full` when it had no room for more records, so that others may wait."""

    seq: int
    body: bytes
    full: bool


class Reports:
    """The reports of one provider in one folder. One process has them at a time: the one that holds the lock."""

    def __init__(self, folder: Path, provider: str) -> None:
        self.folder = folder
        self.provider = provider
        self._damaged: set[tuple[str, int]] = set()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(folder / "sender.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Conflict("spool_in_use", f"another process sends the reports of {folder}") from None
        start = _read_json(folder / "start.json") or {"seq": 0, "digest": None}
        self.first = start["seq"] + 1
        self.last = max((int(path.stem) for path in folder.glob("reports/*/*.json")), default=start["seq"])
        self.digest = start["digest"]
        self.cursor: Cursor = {}
        if self.last >= self.first:
            body = self.body(self.last)
            self.digest = canonical.digest(body)
            self.cursor = _read_json(self._path(self.last, "cursor")) or {}
            owner = json.loads(body)["provider"]
            if owner != provider:
                self.close()
                raise Conflict("spool_of_another", f"{folder} holds reports of {owner}, not of {provider}")

    def close(self) -> None:
        """Let another process send."""
        os.close(self._lock)

    @property
    def damaged(self) -> int:
        """How many lines of segments could not be read."""
        return len(self._damaged)

    def body(self, seq: int) -> bytes:
        """The exact bytes of a report."""
        return self._path(seq, "json").read_bytes()

    def unanswered(self) -> int | None:
        """The number of the first report without an answer; they are answered in order."""
        seq = self.last
        while seq >= self.first and not self._path(seq, "answer").exists():
            seq -= 1
        return seq + 1 if seq < self.last else None

    def write(self) -> Report | None:
        """Make the next report from records that are in none yet; None when there are none."""
        records, cursor, done = self._gather()
        if not records:
            self._drop(done)
            return None
        seq = self.last + 1
        document = {
            "v": 1,
            "provider": self.provider,
            "report": f"meter-{seq}",
            "seq": seq,
            "prev": self.digest,
            "records": records,
        }
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()
        _write(self._path(seq, "cursor"), json.dumps(cursor).encode())
        _write(self._path(seq, "json"), body)
        self.last, self.digest, self.cursor = seq, canonical.digest(body), cursor
        self._drop(done)
        return Report(seq, body, full=len(records) >= MAX_RECORDS or len(body) >= MAX_BYTES // 2)

    def answered(self, seq: int, answer: Mapping[str, Any]) -> None:
        """Keep the service's answer. Refused records are kept apart first, so that none is forgotten."""
        refused = answer.get("refused") or []
        if refused:
            records = json.loads(self.body(seq))["records"]
            refusals.keep(
                self.folder,
                [
                    {"seq": seq, "line": each["line"], "code": each["code"], "record": records[each["line"]]}
                    for each in refused
                ],
            )
        _write(self._path(seq, "answer"), json.dumps(answer).encode())

    def _gather(self) -> tuple[list[Record], Cursor, list[Path]]:
        records: list[Record] = []
        cursor: Cursor = {}
        done: list[Path] = []
        room = MAX_BYTES
        for path in sorted(self.folder.glob("segments/*"), key=lambda path: path.name):
            if path.suffix not in (OPEN, CLOSED):
                continue
            start = self.cursor.get(path.stem, 0)
            if room <= 0 or len(records) >= MAX_RECORDS:
                cursor[path.stem] = start
                continue
            try:
                found, end, damaged = _take(path, start, MAX_RECORDS - len(records), room)
                size = path.stat().st_size
            except FileNotFoundError:  # closed between the listing and now: the next round finds it by its new name
                cursor[path.stem] = start
                continue
            records.extend(found)
            room -= end - start
            self._damaged |= {(path.stem, place) for place in damaged}
            # Also of a segment that is done: should we die before it is deleted, it must not be taken again.
            cursor[path.stem] = end
            if path.suffix == CLOSED and end >= size:
                done.append(path)
        return records, cursor, done

    def _drop(self, done: list[Path]) -> None:
        """Delete segments that are in reports to their last line."""
        for path in done:
            path.unlink(missing_ok=True)
        if done:
            sync_folder(done[0].parent)

    def _path(self, seq: int, suffix: str) -> Path:
        return self.folder / "reports" / f"{seq // 1000:06d}" / f"{seq:09d}.{suffix}"


def begin_at(folder: Path, seq: int, digest: str) -> None:
    """Let an empty spool go on behind report `seq`, whose body has this digest. Raises Malformed, Conflict."""
    canonical.digest_raw(digest)
    if seq < 1:
        raise Malformed("sequence_malformed", "reports are numbered from 1")
    if any(folder.glob("reports/*/*.json")):
        raise Conflict("spool_in_use", f"{folder} has reports already; their chain goes on by itself")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / "start.json", json.dumps({"seq": seq, "digest": digest}).encode())


def _take(path: Path, start: int, most: int, room: int) -> tuple[list[Record], int, set[int]]:
    """Up to `most` records from an offset, the offset behind them, and the offsets behind damaged lines among them.

    A line may carry several records; those of one line stay in one report.
    """
    kept: list[Record] = []
    end, damaged = start, set[int]()
    for line, behind in segments.read(path, start, room).placed:
        more = [] if line is None else list(segments.records([line]))
        if kept and len(kept) + len(more) > most:
            break
        kept.extend(more)
        end = behind
        if line is None:
            damaged.add(behind)
    return kept, end, damaged


def _write(path: Path, data: bytes) -> None:
    """The file appears complete and durable, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    sync_folder(path.parent)
    sync_folder(path.parent.parent)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
