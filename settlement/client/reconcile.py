"""A consumer's own log beside its statement: which calls are billed, which are not, and where the two disagree.

The log is CSV with a header row, or a JSON object a line. A call is found by `id`, the usage record's id that the
provider told, or else by `upstream_id`, the id in the model's answer. What else the log says is compared: `model`,
`provider`, `at`, and the count of every meter that has a column (docs/reference/reconcile.md).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from settlement.core import strictjson, times
from settlement.core.errors import Malformed

TOLERANCE = timedelta(minutes=5)
"""How far the two clocks may be apart."""

KINDS = (
    "not_billed",
    "not_logged",
    "logged_twice",
    "billed_twice",
    "provider_differs",
    "model_differs",
    "meters_differ",
    "time_differs",
)
"""Every kind of difference, in the order in which they are listed."""

_OWN = frozenset({"id", "upstream_id", "at", "model", "provider"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: its kind, the id by which the call is known, a sentence, the exact charge at stake in picoCU."""

    kind: str
    id: str
    detail: str
    pico: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many calls were logged, billed, and agree in everything, and what differs."""

    logged: int
    billed: int
    matched: int
    differences: tuple[Difference, ...]

    @property
    def good(self) -> bool:
        """Whether log and statement say the same."""
        return not self.differences

    def by_kind(self) -> dict[str, list[Difference]]:
        """The differences of each kind that there are."""
        found: dict[str, list[Difference]] = {kind: [] for kind in KINDS}
        for each in self.differences:
            found[each.kind].append(each)
        return {kind: of_kind for kind, of_kind in found.items() if of_kind}


@dataclass(frozen=True, slots=True)
class _Billed:
    record: Mapping[str, Any]
    provider: str
    pico: int


def compare(log: bytes, statement: bytes) -> Comparison:
    """Compare a log with a statement/1.

    Raises Malformed ``log_malformed`` or ``statement_malformed``, naming the line or what is missing.
    """
    calls = _calls(log)
    billed = _billed(statement)
    differences: list[Difference] = []
    by_key: dict[tuple[str, str], _Billed] = {}
    for each in billed:
        for name in ("id", "upstream_id"):
            key = (name, str(each.record.get(name, "")))
            if key[1] and key in by_key:
                differences.append(Difference("billed_twice", key[1], f"{name} is in two charged records", each.pico))
            by_key.setdefault(key, each)
    seen: set[int] = set()
    matched = 0
    for call in calls:
        name = "id" if call.get("id") else "upstream_id"
        found = by_key.get((name, call[name]))
        if found is None:
            differences.append(Difference("not_billed", call[name], "it is in the log and in no charged record", 0))
        elif id(found) in seen:
            differences.append(Difference("logged_twice", call[name], "it is in the log more than once", found.pico))
        else:
            seen.add(id(found))
            between = list(_between(call, found, call[name]))
            differences += between
            matched += not between
    for each in billed:
        if id(each) not in seen:
            differences.append(Difference("not_logged", each.record["id"], f"{each.record['model']} at "
                                          f"{each.record['at']} by {each.provider}", each.pico))  # fmt: skip
    order = {kind: place for place, kind in enumerate(KINDS)}
    differences.sort(key=lambda each: (order[each.kind], each.id))
    return Comparison(len(calls), len(billed), matched, tuple(differences))


def _between(call: Mapping[str, str], found: _Billed, key: str) -> Iterable[Difference]:
    """What a call and its charged record say differently."""
    record = found.record
    for name, said in (("provider", found.provider), ("model", record["model"])):
        if call.get(name, said) != said:
            yield Difference(f"{name}_differs", key, f"logged {call[name]}, charged {said}", found.pico)
    meters = {name: text for name, text in call.items() if name not in _OWN and text != ""}
    wrong = [
        f"{name} logged {text}, charged {record['meters'].get(name, 0)}"
        for name, text in sorted(meters.items())
        if int(text) != record["meters"].get(name, 0)
    ]
    if wrong:
        yield Difference("meters_differ", key, "; ".join(wrong), found.pico)
    if call.get("at") and abs(times.parse(call["at"]) - times.parse(record["at"])) > TOLERANCE:
        yield Difference("time_differs", key, f"logged {call['at']}, charged {record['at']}", found.pico)


def _billed(statement: bytes) -> list[_Billed]:
    try:
        document = json.loads(statement)
        if document["type"] != "statement/1":
            raise ValueError("it has another type")
        return [_charged(entry) for entry in document["records"]]
    except KeyError as error:
        raise Malformed("statement_malformed", f"this is no statement/1: {error.args[0]} is missing") from None
    except (Malformed, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed("statement_malformed", f"this is no statement/1: {error}") from None


def _charged(entry: Mapping[str, Any]) -> _Billed:
    """A record of a statement, with all that is compared."""
    record = entry["record"]
    times.parse(record["at"])
    for name, kind in (("id", str), ("model", str), ("meters", dict)):
        if not isinstance(record[name], kind):
            raise TypeError(f"{name} of a record has the wrong type")
    return _Billed(record, entry["provider"], int(entry["charge_pico"]))


def _calls(log: bytes) -> list[dict[str, str]]:
    """The calls of a log, every value as text."""
    try:
        text = log.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Malformed("log_malformed", "the log is not UTF-8") from None
    rows = _json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text)
    calls = []
    for number, row in rows:
        if not row.get("id") and not row.get("upstream_id"):
            raise Malformed("log_malformed", f"line {number} has neither id nor upstream_id")
        for name, value in row.items():
            if name not in _OWN and value and not (value.isascii() and value.isdecimal() and len(value) < 20):
                raise Malformed("log_malformed", f"line {number}: {name} is {value[:40]!r}, not a count")
        if row.get("at"):
            try:
                times.parse(row["at"])
            except Malformed as error:
                raise Malformed("log_malformed", f"line {number}: {error.detail}") from None
        calls.append(row)
    return calls


def _csv_rows(text: str) -> Iterable[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise Malformed("log_malformed", f"line {reader.line_num} has another number of cells than the header")
            yield reader.line_num, row
    except csv.Error as error:
        raise Malformed("log_malformed", f"line {reader.line_num}: {error}") from None


def _json_rows(text: str) -> Iterable[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = strictjson.loads(line.encode())
        except Malformed as error:
            raise Malformed("log_malformed", f"line {number}: {error.detail}") from None
        if not isinstance(row, dict):
            raise Malformed("log_malformed", f"line {number} is no JSON object")
        meters = row.pop("meters", {})
        members = {**row, **meters} if isinstance(meters, dict) else row
        if any(not isinstance(value, (str, int)) or isinstance(value, bool) for value in members.values()):
            raise Malformed("log_malformed", f"line {number}: a value is neither text nor a count")
        yield number, {name: str(value) for name, value in members.items()}
