"""Requests for the demonstration: read from a trace of real traffic, or drawn from published quantiles.

A trace is CSV or JSON lines, plain or gzip, with a time, input tokens and output tokens under any of the names in
`COLUMNS`; cached input tokens and a model are used when they are there. Times may be ISO 8601 with any number of
fractional digits, or numbers of seconds (of milliseconds where the column's name ends in ``_ms``).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from settlement.core.errors import Malformed, NotFound

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "time": ("timestamp", "timestamp_ms", "time", "arrived_at", "arrival_time", "created_at"),
    "input": ("contexttokens", "input_tokens", "request tokens", "input_length", "num_prefill_tokens", "prompt_tokens"),
    "output": (
        "generatedtokens",
        "output_tokens",
        "response tokens",
        "output_length",
        "num_decode_tokens",
        "completion_tokens",
    ),
    "cached": ("cached_input_tokens_ideal", "cached_input_tokens", "cached_tokens", "cache_read_tokens"),
    "model": ("model",),
}
"""What a column may be called, in lower case."""

QUANTILES = {
    "input": ((0, 3), (50, 1_020), (90, 2_734), (99, 4_142), (100, 8_000)),
    "output": ((0, 7), (50, 129), (90, 424), (99, 601), (100, 1_000)),
}
"""Tokens a request, by percent, of the Azure 2023 conversation trace (CC-BY-4.0, Patel et al., "Splitwise", ISCA 2024).

The ends are ours. Straight lines between so few points make the mean input about a fifth larger than the trace's.
"""

LATEST = 10**15
"""No time is that late, be it in seconds or milliseconds."""

GENERATED_RATE = 5.53
"""Requests a second of the same trace."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: microseconds since the first, and its tokens; `cached` are part of `input`."""

    offset: int
    input: int
    output: int
    cached: int = 0
    model: str | None = None


def generated(count: int, seed: int) -> list[Request]:
    """`count` requests drawn from the published quantiles; the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - made-up traffic, not a secret
    offset = 0
    requests = []
    for _ in range(count):
        sizes = {name: _drawn(points, dice.randrange(10_000)) for name, points in QUANTILES.items()}
        requests.append(Request(offset, sizes["input"], sizes["output"]))
        offset += int(dice.expovariate(GENERATED_RATE) * 1_000_000)
    return requests


def read_trace(path: Path) -> list[Request]:
    """The requests of a trace file, in order of time.

    Raises NotFound ``file_missing``, Malformed ``trace_malformed`` naming line and column.
    """
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise _malformed(path, 1, "the file has no requests")
    names = _names(path, first[1])
    requests = [_request(path, line, row, names) for line, row in (first, *rows)]
    requests.sort(key=lambda request: request.offset)
    begin = requests[0].offset
    return [
        Request(request.offset - begin, request.input, request.output, request.cached, request.model)
        for request in requests
    ]


def _drawn(points: Iterable[tuple[int, int]], percent_hundredths: int) -> int:
    """The value at a quantile, on straight lines between the published points."""
    before: tuple[int, int] | None = None
    for percent, tokens in points:
        here = percent * 100
        if before is not None and percent_hundredths <= here:
            start, low = before
            return low + (tokens - low) * (percent_hundredths - start) // (here - start)
        before = (here, tokens)
    raise ValueError("a quantile lies between 0 and 100 percent")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows, whatever the file's kind."""
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            text = io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, "utf-8-sig", newline="")
            if ".jsonl" in path.name or ".ndjson" in path.name:
                for line, content in enumerate(text, 1):
                    if content.strip():
                        row = json.loads(content)
                        if not isinstance(row, dict):
                            raise ValueError(f"line {line} is not an object")
                        yield line, row
            else:
                for line, row in enumerate(csv.DictReader(text), 2):
                    yield line, row
    except FileNotFoundError:
        raise NotFound("file_missing", f"there is no trace {path}") from None
    except (OSError, EOFError, ValueError, RecursionError, csv.Error, zlib.error) as error:
        raise Malformed("trace_malformed", f"{path.name} can't be read as a trace: {error}") from error


def _names(path: Path, row: Mapping[str, Any]) -> dict[str, str]:
    """Which of the file's columns is which."""
    present = {str(name).strip().lower(): name for name in row if name is not None}
    names = {
        kind: present[next(spelled for spelled in spellings if spelled in present)]
        for kind, spellings in COLUMNS.items()
        if any(spelled in present for spelled in spellings)
    }
    for kind in ("time", "input", "output"):
        if kind not in names:
            known = ", ".join(COLUMNS[kind])
            raise _malformed(path, 1, f"no column for {kind}; it may be called {known}; found: {', '.join(present)}")
    return names


def _request(path: Path, line: int, row: Mapping[str, Any], names: Mapping[str, str]) -> Request:
    tokens = {}
    for kind in ("input", "output", "cached"):
        if kind in names:
            tokens[kind] = _whole(path, line, names[kind], row.get(names[kind]))
    cached = min(tokens.get("cached", 0), tokens["input"])
    model = row.get(names["model"]) if "model" in names else None
    offset = _micros(path, line, names["time"], row.get(names["time"]))
    return Request(offset, tokens["input"], tokens["output"], cached, str(model) if model else None)


def _whole(path: Path, line: int, column: str, value: object) -> int:
    try:
        number = Decimal(str(value).strip())
        if number == number.to_integral_value() and 0 <= number <= 10**9:
            return int(number)
    except InvalidOperation:
        pass
    raise _malformed(path, line, f"{column} is {value!r}, not a number of tokens")


def _micros(path: Path, line: int, column: str, value: object) -> int:
    """Microseconds of a time of day or of a number; more digits than microseconds are cut off."""
    text = str(value).strip()
    try:
        scale = 1_000 if column.lower().endswith("_ms") else 1_000_000
        number = Decimal(text)
        if not -LATEST < number < LATEST:
            raise _malformed(path, line, f"{column} is {value!r}, not a time")
        return int(number * scale)
    except InvalidOperation:
        pass
    try:
        whole, _, fraction = text.rstrip("Z").partition(".")
        moment = datetime.fromisoformat(whole)
        seconds = moment.toordinal() * 86_400 + moment.hour * 3_600 + moment.minute * 60 + moment.second
        digits = fraction[:6].ljust(6, "0")
        if not digits.isdecimal():
            raise ValueError(text)
        return seconds * 1_000_000 + int(digits)
    except ValueError:
        raise _malformed(path, line, f"{column} is {value!r}, not a time") from None


def _malformed(path: Path, line: int, what: str) -> Malformed:
    return Malformed("trace_malformed", f"{path.name}, line {line}: {what}")
