"""The shapes in which usage is reported, read from `dialects.json`, and what one usage object says under its shape.

A dialect is known by the members of the usage object alone, so it holds for servers that copy a vendor's interface as
well. Each names an extractor of genai-prices and what that one misses; the vendor's own total decides, where members
can be read in two ways, which reading is right. Vendors' words are data; this module knows how to apply them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from importlib import resources
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import UsageExtractor

Json = Any
Usage = Mapping[str, Json]

MAX_UNITS = 10**12
"""The most units of one meter that a usage record can carry (usage/1)."""

_INDEXED = re.compile(r"(.+)\[(\w+)\]")
_NUMERAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")
_DATA: Mapping[str, Json] = json.loads(resources.files(__package__).joinpath("dialects.json").read_text("utf-8"))


class Unreadable(Exception):
    """A usage object that gives no exact meters: `reason` is the name of the refusal (docs/reference/meter.md)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Law:
    """One way in which a vendor's total is made up: the terms that add to it, and what then changes in our meters."""

    terms: tuple[str, ...]
    more: Mapping[str, str]
    less: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One shape of usage object; the members are explained in docs/reference/meter.md."""

    name: str
    family: str
    has: tuple[str, ...]
    without: tuple[str, ...]
    extractor: tuple[str, str] | None
    wholes: Mapping[str, str]
    total: str | None
    laws: tuple[Law, ...]
    also: Mapping[str, tuple[str, ...]]
    adds: Mapping[str, str]
    same: Mapping[str, str]
    read: tuple[str, ...]
    passes: str | None
    running: bool
    """Whether a later object of a stream replaces an earlier one even when its input has changed."""
    merged: bool
    """Whether a later object keeps the members of earlier ones that it doesn't have itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one usage object says: `values` by genai-prices' names (totals include subsets), not yet in our tree."""

    dialect: Dialect
    values: dict[str, int]
    flags: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    checked: bool = False
    """Whether the vendor's own total was there and agrees."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where usage objects lie in a document, in the order of precedence."""

    paths: tuple[tuple[str, ...], ...]
    bare: tuple[str, ...]

    IDS = tuple(tuple(path.split(".")) for path in _DATA["ids"])
    MODELS = tuple(tuple(path.split(".")) for path in _DATA["models"])

    def find(self, document: Usage) -> Iterator[tuple[str, Usage]]:
        """Every usage object with its place; the members of one that lies bare in the document, as place ``*``."""
        for path in self.paths:
            found = _at(document, path)
            if isinstance(found, Mapping) and found:
                yield ".".join(path), found
        bare = {name: document[name] for name in self.bare if document.get(name) is not None}
        if bare:
            yield "*", bare


def _at(document: Json, path: Sequence[str]) -> Json:
    for step in path:
        if isinstance(document, list) and step.isdecimal():
            document = document[int(step)] if int(step) < len(document) else None
        else:
            document = document.get(step) if isinstance(document, Mapping) else None
    return document


def embeds(document: Usage) -> bool:
    """Whether an answer is an embedding, by its members: then it has no output."""
    return any(_at(document, path.split(".")) is not None for path in _DATA["embeddings"])


def _dialect(data: Mapping[str, Json]) -> Dialect:
    extractor = data.get("extractor")
    return Dialect(
        name=data["name"],
        family=data.get("family", data["name"]),
        has=tuple(data["has"]),
        without=tuple(data.get("without", ())),
        extractor=None if extractor is None else (extractor[0], extractor[1]),
        wholes=data.get("wholes", {}),
        total=data.get("total"),
        laws=tuple(Law(tuple(law["sum"]), law.get("more", {}), law.get("less", {})) for law in data.get("laws", ())),
        also={meter: tuple(paths) for meter, paths in data.get("also", {}).items()},
        adds=data.get("adds", {}),
        same=data.get("same", {}),
        read=tuple(data.get("read", ())),
        passes=data.get("passes"),
        running=data.get("running", False),
        merged=data.get("merged", False),
    )


DIALECTS = tuple(_dialect(data) for data in _DATA["dialects"])
PLACES = Places(tuple(tuple(path.split(".")) for path in _DATA["places"] if path != "*"), tuple(_DATA["bare"]))
TREE: Mapping[str, str] = _DATA["tree"]
"""Each part's whole. Parts of one whole stand in the order in which they are kept when they are too many."""
ANSWERS: Mapping[str, frozenset[str]] = {name: frozenset(types) for name, types in _DATA["answers"].items()}
EMBEDDINGS = "embeddings"
"""The kind of an exchange that `embeds`."""
KINDS: Mapping[str, frozenset[str]] = {name: frozenset(kinds) for name, kinds in _DATA["kinds"].items()}
UNCHARGED_PLACES = frozenset(_DATA["uncharged_places"])
PARTS: tuple[str, ...] = tuple(_DATA["parts"])
HEADERS: Mapping[str, str] = _DATA["headers"]
_ENTRIES: Mapping[str, Sequence[str]] = _DATA["entries"]
"""What the entries of a list are told apart by, and what their counts are called."""
_IGNORED: tuple[str, ...] = tuple(_DATA["ignored"])
_NAMES: Mapping[str, str] = _DATA["modalities"]


def recognise(usage: Usage) -> Dialect | None:
    """The dialect of a usage object, by its members; None when it is of none that we know."""
    for dialect in DIALECTS:
        if any(_present(usage, path) for path in dialect.has) and not any(
            _present(usage, each) for each in dialect.without
        ):
            return dialect
    return None


def read_usage(usage: Usage, *, without_output: bool = False) -> Reading:
    """What one usage object says. Raises Unreadable with the reason when it says nothing exact."""
    dialect = recognise(usage)
    if not counted(usage):
        raise Unreadable("no_counts")
    if dialect is None:
        raise Unreadable("unknown_shape")
    usage = _modalities(plain(usage))
    _require_shape(usage, dialect)
    usage = _aliased(usage, dialect)
    values = _extracted(usage, dialect)
    for meter, paths in dialect.also.items():
        found = next((value for path in paths if (value := _number(usage, path)) is not None), None)
        if found is not None:
            values[meter] = found if meter not in values or meter not in dialect.wholes else values[meter]
    for meter, path in dialect.adds.items():
        if (found := _sum(usage, path)) is not None:
            values[meter] = values.get(meter, 0) + found
    flags = _complete(usage, dialect, values, without_output=without_output)
    checked = _check_total(usage, dialect, values, derived="derived_from_total" in flags)
    if not values:
        raise Unreadable("no_counts")
    return Reading(dialect, values, flags, tuple(_unread(usage, dialect)), checked)


def counted(usage: Usage) -> bool:
    """Whether a usage object has any count above zero."""
    return any(_numbers(plain(usage)))


def plain(usage: Usage) -> Usage:
    """A usage object of a known shape with its numerals as numbers: some servers send counts as strings."""
    if recognise(usage) is None:
        return usage

    def read(value: Json) -> Json:
        if isinstance(value, Mapping):
            return {name: read(each) for name, each in value.items()}
        if isinstance(value, list):
            return [read(each) for each in value]
        return Decimal(value) if isinstance(value, str) and _NUMERAL.fullmatch(value) else value

    found = read(usage)
    assert isinstance(found, Mapping)
    return found


def whole_input(usage: Usage) -> int | None:
    """The input that a usage object states as a whole, which tells one answer of a stream from the next."""
    dialect = recognise(usage)
    path = dialect.wholes.get("input_tokens") if dialect else None
    return _alternative(usage, path) if path else None


def whole_output(usage: Usage) -> int | None:
    """The output that a usage object states as a whole."""
    dialect = recognise(usage)
    path = dialect.wholes.get("output_tokens") if dialect else None
    return _alternative(usage, path) if path else None


def exact(value: Json) -> int:
    """A count as an integer. Raises Unreadable ``not_whole``, ``negative_count`` or ``count_too_large``."""
    number = Decimal(str(value))
    if number.is_nan():
        raise Unreadable("not_whole")
    if number < 0:
        raise Unreadable("negative_count")
    if number > MAX_UNITS:
        raise Unreadable("count_too_large")
    if number != number.to_integral_value():
        raise Unreadable("not_whole")
    return int(number)


def milliseconds(value: Json) -> int:
    """Seconds as whole milliseconds, a half to even."""
    number = Decimal(str(value))
    if not abs(number) <= MAX_UNITS:
        raise Unreadable("count_too_large")
    return exact((number * 1000).to_integral_value(ROUND_HALF_EVEN))


@cache
def _extractor(provider: str, flavor: str) -> UsageExtractor:
    """genai-prices' extractor with nothing required: what is absent is ours to judge, not an exception."""
    found = next(each for each in get_snapshot().providers if each.id == provider)
    chosen = next(each for each in found.extractors or () if each.api_flavor == flavor)
    mappings = [replace(mapping, required=False) for mapping in chosen.mappings]
    return UsageExtractor(root="usage", mappings=mappings, api_flavor=flavor, model_path="model")


def _require_shape(usage: Usage, dialect: Dialect) -> None:
    """Members that we read are what we take them for. Raises Unreadable ``not_whole`` or ``unknown_shape``."""
    for path in _known(dialect):
        parent, _, _ = path.rpartition(".")
        if parent and not isinstance(_value(usage, parent), Mapping | None):
            raise Unreadable("unknown_shape")
    if dialect.extractor is None:
        return
    for mapping in _extractor(*dialect.extractor).mappings:
        steps = [mapping.path] if isinstance(mapping.path, str) else mapping.path
        found = _value(usage, str(steps[0]))
        if all(isinstance(step, str) for step in steps):
            _number(usage, ".".join(map(str, steps)))
        elif not isinstance(found, list | None):
            raise Unreadable("unknown_shape")


def _extracted(usage: Usage, dialect: Dialect) -> dict[str, int]:
    if dialect.extractor is None:
        return {}
    extractor = _extractor(*dialect.extractor)
    for number in _numbers(usage):
        if number < 0:
            raise Unreadable("negative_count")
    try:
        _, found = extractor.extract({"usage": usage})
    except (ValueError, TypeError, ArithmeticError):
        return {}
    # What was reported, as it was reported: asking for an attribute would infer what is missing.
    return {meter: _converted(meter, value) for meter, value in vars(found).items() if not meter.startswith("_")}


def _converted(meter: str, value: Json) -> int:
    return milliseconds(value) if meter.endswith("_seconds") else exact(value)


def _complete(usage: Usage, dialect: Dialect, values: dict[str, int], *, without_output: bool) -> tuple[str, ...]:
    """Fill in the whole that is absent from the vendor's total; absent is not zero."""
    missing = [meter for meter, path in dialect.wholes.items() if not path or _alternative(usage, path) is None]
    if without_output and "output_tokens" in missing:
        missing.remove("output_tokens")
        values.pop("output_tokens", None)
    if not missing:
        return ()
    total = _number(usage, dialect.total) if dialect.total else None
    if total is None:
        raise Unreadable("meter_absent")
    if len(missing) > 1:
        raise Unreadable("split_unknown")
    (meter,) = missing
    rest = total - sum(_number(usage, term) or 0 for term in (dialect.laws[0].terms if dialect.laws else ()))
    if rest < 0:
        raise Unreadable("total_mismatch")
    values[meter] = values.get(meter, 0) + rest
    # Nothing left is what the total proves; something left is a count that only the total states.
    return ("derived_from_total",) if rest and dialect.laws else ()


def _check_total(usage: Usage, dialect: Dialect, values: dict[str, int], *, derived: bool) -> bool:
    """Find the law that the vendor's total follows, and apply it. Raises Unreadable ``total_mismatch``."""
    total = _number(usage, dialect.total) if dialect.total else None
    if total is None:
        return False
    if derived or not dialect.laws:
        return True
    for law in dialect.laws:
        if sum(_number(usage, term) or 0 for term in law.terms) == total:
            for meter, path in law.more.items():
                values[meter] = values.get(meter, 0) + (_sum(usage, path) or 0)
            for meter, path in law.less.items():
                values[meter] = values.get(meter, 0) - (_sum(usage, path) or 0)
                if values[meter] < 0:
                    raise Unreadable("total_mismatch")
            return True
    raise Unreadable("total_mismatch")


def _aliased(usage: Usage, dialect: Dialect) -> Usage:
    """The object with each member under the name that the extractor reads. Raises Unreadable ``sources_disagree``.

    A sum stands in for a member that is absent, and says nothing against one that is there.
    """
    if not dialect.same:
        return usage
    copy = {name: dict(value) if isinstance(value, Mapping) else value for name, value in usage.items()}
    for target, aliases in dialect.same.items():
        given = {value for path in aliases.split("|") if (value := _sum(usage, path)) is not None}
        there = _number(usage, target)
        if there is not None and any(value != there for value in given if value) and "+" not in aliases:
            raise Unreadable("sources_disagree")
        if there is None and given:
            if len(given) > 1:
                raise Unreadable("sources_disagree")
            *parents, last = target.split(".")
            place: dict[str, Json] = copy
            for parent in parents:
                if not isinstance(place.get(parent), dict):
                    place[parent] = {}
                place = place[parent]
            place[last] = given.pop()
    return copy


def _modalities(usage: Usage) -> Usage:
    """Lists by modality or by lifetime with one entry for each: numbers of an enumeration get their names, and entries
    of the same name are one."""
    return {name: _as_one(value) if isinstance(value, list) else value for name, value in usage.items()}


def _as_one(entries: list[Json]) -> list[Json]:
    found: dict[tuple[str, str, str], dict[str, Json]] = {}
    for entry in entries:
        key = next((name for name in _ENTRIES if isinstance(entry, Mapping) and entry.get(name) is not None), None)
        if key is None:
            return entries
        name = str(entry[key])
        name = _NAMES.get(name, name) if key == "modality" else name
        count = next((each for each in _ENTRIES[key] if each in entry), None)
        if count is None and len(entry) > 1:
            raise Unreadable("unknown_shape")
        if count is not None:  # where it is left out, it is zero
            place = found.setdefault((key, name, count), {key: name, count: 0})
            place[count] += _number(entry, count) or 0
    return [*found.values()]


def _present(usage: Usage, path: str) -> bool:
    return _value(usage, path) is not None


def _value(usage: Usage, path: str) -> Json:
    found: Json = usage
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _number(usage: Usage, path: str) -> int | None:
    """The count at a path; ``list[NAME]`` adds up the entries of that modality."""
    indexed = _INDEXED.fullmatch(path)
    if indexed:
        entries = _value(usage, indexed.group(1))
        counts = [
            exact(next(value for name, value in entry.items() if name != "modality"))
            for entry in entries or ()
            if isinstance(entry, Mapping) and entry.get("modality") == indexed.group(2)
        ]
        return sum(counts) if counts else None
    found = _value(usage, path)
    if found is None or found == {}:
        return None
    if isinstance(found, Mapping):
        raise Unreadable("unknown_shape")
    if isinstance(found, str) and _NUMERAL.fullmatch(found):
        found = Decimal(found)
    if not isinstance(found, int | float | Decimal) or isinstance(found, bool):
        raise Unreadable("not_whole")
    return milliseconds(found) if path.endswith("seconds") else exact(found)


def _alternative(usage: Usage, path: str) -> int | None:
    return next((value for each in path.split("|") if (value := _number(usage, each)) is not None), None)


def _sum(usage: Usage, path: str) -> int | None:
    found = [value for each in path.split("+") if (value := _number(usage, each)) is not None]
    return sum(found) if found else None


def _numbers(usage: Json) -> Iterator[int | float | Decimal]:
    if isinstance(usage, Mapping):
        for value in usage.values():
            yield from _numbers(value)
    elif isinstance(usage, Sequence) and not isinstance(usage, str | bytes):
        for value in usage:
            yield from _numbers(value)
    elif isinstance(usage, int | float | Decimal) and not isinstance(usage, bool):
        yield usage


def _unread(usage: Usage, dialect: Dialect) -> Iterator[str]:
    """Paths of counts above zero that nothing reads: what a vendor has added since."""
    known = _known(dialect)
    for path, number in _leaves(usage, ""):
        if number and not any(path == each or path.startswith(f"{each}.") for each in known):
            yield path


@cache
def _known_of(name: str) -> frozenset[str]:
    dialect = next(each for each in DIALECTS if each.name == name)
    paths = {*_IGNORED, *dialect.read, *dialect.adds.values(), *dialect.same, *dialect.wholes.values()}
    paths |= {path for alternatives in dialect.also.values() for path in alternatives} | set(dialect.same.values())
    paths |= {term for law in dialect.laws for term in (*law.terms, *law.more.values(), *law.less.values())}
    paths |= {dialect.total or ""}
    split = {each for path in paths for each in re.split(r"[|+]", _INDEXED.sub(r"\1", path)) if each}
    if dialect.extractor:
        for mapping in _extractor(*dialect.extractor).mappings:
            steps = [mapping.path] if isinstance(mapping.path, str) else mapping.path
            named = [step for step in steps if isinstance(step, str)]
            split.add(".".join(named) if len(named) == len(steps) else named[0])
    return frozenset(split)


def _known(dialect: Dialect) -> frozenset[str]:
    return _known_of(dialect.name)


def _leaves(usage: Json, path: str) -> Iterator[tuple[str, Json]]:
    if isinstance(usage, Mapping):
        for name, value in usage.items():
            yield from _leaves(value, f"{path}.{name}" if path else str(name))
    elif isinstance(usage, list):
        for value in usage:
            yield from _leaves(value, path)
    elif isinstance(usage, int | float | Decimal) and not isinstance(usage, bool):
        yield path, usage
