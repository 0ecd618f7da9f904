"""Feeds: a file of prices, CSV or JSON, as the observations that a source would sign one by one.

A row is a time, a series and a price in USD; rows of one source and time make one ``observation/1``, which names the
file's digest (docs/reference/value.md). Standard library only.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

from settlement.core import canonical, observations, strictjson, times
from settlement.core.errors import Malformed

MEMBERS = frozenset({"at", "series", "usd"})
MAX_BYTES = 16 * 1024 * 1024


def read(document: bytes, source: str, since: datetime | None = None) -> list[bytes]:
    """The bodies of a file's observations, oldest first, to be signed; with `since` only those of that time or later.

    Rows that name another `source` are left out. Raises Malformed ``feed_malformed``, naming the first row that is
    wrong, and ``observation_malformed`` for a price that is none.
    """
    if len(document) > MAX_BYTES:
        _refuse("the file", f"is larger than {MAX_BYTES} bytes")
    found: dict[datetime, dict[str, str]] = {}
    for place, row in _rows(document):
        if row.get("source", source) != source:
            continue
        try:
            at = times.parse(row["at"])
        except Malformed:
            _refuse(place, f"has no time in RFC 3339, UTC: {row['at']!r}")
        if row["series"] in found.setdefault(at, {}):
            _refuse(place, f"says a second price of {row['series']} at {row['at']}")
        found[at][row["series"]] = row["usd"]
    if not found:
        _refuse("the file", f"has no price of {source}")
    digest = canonical.digest(document)
    bodies = []
    for at, usd in sorted(found.items()):
        body = canonical.encode(
            {"type": observations.TYPE, "source": source, "at": times.text(at), "usd": usd, "feed": digest}
        )
        observations.parse(body)
        bodies += [body] if since is None or at >= since else []
    return bodies


def _rows(document: bytes) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse("the file", "is not UTF-8")
    if text.lstrip().startswith(("[", "{")):
        value = strictjson.loads(text.encode())
        items = value.get("prices") if isinstance(value, dict) else value
        if not isinstance(items, list):
            _refuse("the file", "is neither a list of prices nor an object with the member prices")
        named = {"source": value["source"]} if isinstance(value, dict) and "source" in value else {}
        for number, item in enumerate(items):
            yield _checked(f"/{number}", {**named, **item} if isinstance(item, dict) else {})
        return
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        yield _checked(f"line {number}", row)


def _checked(place: str, row: Mapping[Any, object]) -> tuple[str, Mapping[str, str]]:
    kept = {str(name): value for name, value in row.items() if name in MEMBERS or name == "source"}
    if not kept.keys() >= MEMBERS or not all(isinstance(value, str) for value in kept.values()):
        _refuse(place, "has not the text members at, series, usd")
    return place, {name: str(value) for name, value in kept.items()}


def _refuse(place: str, what: str) -> NoReturn:
    raise Malformed("feed_malformed", f"{place} {what}")
