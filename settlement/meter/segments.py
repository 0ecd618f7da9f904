"""Segments: the files of lines in which a meter keeps what it has seen until a report carries it.

    <folder>/segments/<uuid>.open      being written by one process, which holds its lock (flock)
    <folder>/segments/<uuid>.closed    will not grow any more

A line is the CRC-32 of its JSON as eight hex digits, a space, the JSON, and a line end. One that is cut short was never
acknowledged, and is dropped when its writer is known to be dead. Kinds of lines, each an object with one member:

    {"open": draft}      a call was let through; `draft` is its record without outcome, with the input's meters
    {"mark": {...}}      so much output has gone out: `id`, `output_tokens`
    {"record": {...}}    the call ended: its usage record, or several of them
    {"close": {...}}     the call ended and nothing is to be reported

A call that has an `open` and no end in a dead process's segment gets a record of what was marked last: a lower bound,
flagged.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

Line = Mapping[str, Any]
Record = dict[str, Any]

OPEN, CLOSED = ".open", ".closed"
MAX_SEGMENT = 8 * 1024 * 1024
"""Bytes after which a segment is closed and the next one begun."""

ESTIMATED, INTERRUPTED = "estimated", "interrupted"


def encode(line: Line) -> bytes:
    """The bytes of one line."""
    text = json.dumps(line, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (crc32(text), text)


@dataclass(slots=True)
class Reading:
    """What was read of a segment: its lines (None for a damaged one), each with the offset behind it."""

    placed: list[tuple[Line | None, int]] = field(default_factory=list)
    end: int = 0

    @property
    def lines(self) -> list[Line]:
        """The lines that are whole."""
        return [line for line, _ in self.placed if line is not None]


def read(path: Path, start: int = 0, limit: int | None = None) -> Reading:
    """The whole lines of a segment from an offset, at most about `limit` bytes; what is cut short is left for later."""
    found = Reading(end=start)
    with path.open("rb") as file:
        file.seek(start)
        for raw in file:
            if not raw.endswith(b"\n") or (limit is not None and found.end - start >= limit):
                break
            found.end += len(raw)
            found.placed.append((_decode(raw), found.end))
    return found


def _decode(raw: bytes) -> Line | None:
    text = raw[9:-1]
    try:
        if raw[8:9] != b" " or int(raw[:8], 16) != crc32(text):
            return None
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


class Writer:
    """One process's segment. Not for several threads at once."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._begin(name)

    def _begin(self, name: str) -> None:
        self.path = self.folder / f"{name}{OPEN}"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync_folder(self.folder)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append whole lines and return when they are on disk. Raises OSError; then nothing of it counts."""
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
        except OSError:
            # What got through in part is cut off again, or the next line would be glued to it.
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def rotate(self, name: str, still_open: Sequence[Line]) -> None:
        """Close this segment and begin the next, with the calls that haven't ended carried over."""
        old, file = self.path, self._file
        self._begin(name)
        if still_open:
            self.write(b"".join(encode(line) for line in still_open))
        _close(old)
        os.close(file)

    def close(self) -> None:
        """End the segment; every call in it has ended."""
        _close(self.path)
        os.close(self._file)


def recover(folder: Path) -> int:
    """End the segments whose writers are dead; returns how many of their calls were cut off and reported."""
    found = 0
    for path in sorted(folder.glob(f"*{OPEN}")):
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            continue
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not path.exists():  # another process has ended it between our look and our lock
                continue
            whole = read(path)
            os.ftruncate(file, whole.end)
            records = list(_cut_off(whole.lines))
            found += len(records)
            if records:
                os.write(file, b"".join(encode({"record": record}) for record in records))
            os.fsync(file)
            _close(path)
        finally:
            os.close(file)
    return found


def records(lines: Sequence[Line]) -> Iterator[Record]:
    """The usage records of lines, in order."""
    for line in lines:
        found = line.get("record")
        if isinstance(found, dict):
            yield found
        elif isinstance(found, list):
            yield from found


def _cut_off(lines: Sequence[Line]) -> Iterator[Record]:
    drafts: dict[str, Record] = {}
    marks: dict[str, int] = {}
    for line in lines:
        for kind, value in line.items():
            if kind == "open":
                drafts[value["id"]] = value
            elif kind == "mark":
                marks[value["id"]] = value["output_tokens"]
            else:
                for ended in value if isinstance(value, list) else [value]:
                    drafts.pop(ended["id"], None)
    for call, draft in drafts.items():
        if call in marks:
            meters = {**draft["meters"], "output_tokens": marks[call]}
            flags = [*draft.get("flags", ()), ESTIMATED, INTERRUPTED]
            yield {**draft, "outcome": "cancelled", "meters": meters, "flags": list(dict.fromkeys(flags))}
        else:
            yield {**draft, "outcome": "errored", "meters": {}, "flags": [INTERRUPTED]}


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _close(path: Path) -> None:
    path.rename(path.with_suffix(CLOSED))
    sync_folder(path.parent)
