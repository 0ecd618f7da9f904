"""Records that nobody is charged for, kept with the reason: refused by the service, or such as no report can carry.

    <folder>/refused.ndjson      a JSON object a line: `seq` and `line` of the report, `code`, `record`

One record that `usage/1` does not allow would have its whole report refused, and every report behind it with it. So it
is found before it goes into one: `seq` is then 0, `line` the record's id, and `code` ``record_malformed``.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from settlement.meter.dialects import MAX_UNITS

FILE = "refused.ndjson"
MALFORMED = "record_malformed"
MAX_FLAGS = 16
"""The most flags that one record can carry (usage/1)."""
NAME = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")

_NAMED = ("consumer", "model", "operation", "tier")
_MAY_BE_NAMED = ("hold", "upstream_id", "rates")
_OUTCOMES = frozenset({"completed", "truncated", "cancelled", "errored"})


def unfit(record: Mapping[str, Any]) -> str | None:
    """The member for which `usage/1` does not allow a record; None for one that can be reported."""
    for member in (*_NAMED, *(each for each in _MAY_BE_NAMED if each in record)):
        if not _is_name(record.get(member)):
            return member
    if record.get("outcome") not in _OUTCOMES:
        return "outcome"
    meters = record.get("meters")
    if not isinstance(meters, Mapping) or not all(_is_name(meter) and _is_count(meters[meter]) for meter in meters):
        return "meters"
    flags = record.get("flags")
    if "flags" in record and not (
        isinstance(flags, list) and all(map(_is_name, flags)) and 0 < len(flags) == len(set(flags)) <= MAX_FLAGS
    ):
        return "flags"
    return None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_UNITS


def keep(folder: Path, refused: Sequence[Mapping[str, Any]]) -> None:
    """Append refusals; they are on disk when this returns. Raises OSError."""
    with (folder / FILE).open("a+b") as file:
        cut_short = file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
        lines = "".join(f"{json.dumps(each)}\n" for each in refused).encode()
        file.write(b"\n" + lines if cut_short else lines)
        file.flush()
        os.fsync(file.fileno())


def count(folder: Path) -> dict[str, int]:
    """How many records were refused, by code; one that was written down twice counts once."""
    found: Counter[str] = Counter()
    seen: set[tuple[int, int | str]] = set()
    path = folder / FILE
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            each = json.loads(line)
        except ValueError:  # cut short when its writer died, who writes it again
            continue
        if (each["seq"], each["line"]) not in seen:
            seen.add((each["seq"], each["line"]))
            found[each["code"]] += 1
    return dict(sorted(found.items()))
