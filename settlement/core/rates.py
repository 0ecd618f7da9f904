"""The rate table: what one unit of each meter of each model costs, parsed from a signed ``rates/1`` document.

A rate is a whole number of microCU per 1,000,000 units of a meter, so units x rate is a whole number of picoCU. Meters
form a strict inclusion tree: a meter's units contain the units of all meters below it, and meters side by side under
one parent never count the same unit twice. See docs/reference/rates.md. Standard library only: the offline verifier
parses tables with this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from settlement.core import canonical, times
from settlement.core.errors import Malformed, Problem

T = TypeVar("T")

TYPE = "rates/1"
MAX_RATE = 10**13
"""The largest rate that a table may hold: 10 CU a unit. Larger figures are slips, not prices."""
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
PER_REQUEST = "requests"
"""The meter that is implied: one unit a record, never reported."""
CONTEXT_METER = "input_tokens"
"""The meter whose total selects the context band of a record."""

MODEL_ID = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
"""Ids of models, aliases, vendors and sources: what a usage record can carry."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})(\.[0-9]{1,30})?")


@dataclass(frozen=True, slots=True)
class Meter:
    """One countable thing. ``parent`` is the meter whose units contain these, or None."""

    name: str
    parent: str | None
    unit: str


@dataclass(frozen=True, slots=True)
class Band:
    """The rates of a record whose total input tokens are above ``above_input_tokens`` (the first band: any total).

    ``rates`` holds a meter's own rate only; a meter without one costs what its parent costs.
    """

    above_input_tokens: int
    rates: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Model:
    """The rates of one model by service tier; the bands of a tier ascend from 0 and price the same meters."""

    name: str
    tiers: Mapping[str, tuple[Band, ...]]


@dataclass(frozen=True, slots=True)
class RateTable:
    """A parsed table. ``meters`` are in an order in which every parent comes before its children."""

    version: int
    digest: str
    parent: str | None
    effective_from: datetime
    meters: Mapping[str, Meter]
    models: Mapping[str, Model]
    aliases: Mapping[str, str]

    def resolve(self, model: str) -> str | None:
        """The model's name in this table, by exact name or exact alias; never by prefix or pattern."""
        return model if model in self.models else self.aliases.get(model)


def parse(document: bytes) -> RateTable:
    """The table that these canonical bytes describe.

    Raises Malformed ``rate_table_malformed``, naming the first offending place by its JSON pointer, for bytes that are
    not canonical JSON, unknown or missing fields, an inclusion tree with gaps or cycles, rates out of range, bands that
    do not ascend from 0, a meter priced without its root, or an alias of a model that is not there.
    """
    root = _object(_read(document), "", _REQUIRED)
    if root["type"] != TYPE:
        _refuse("/type", f"must be {TYPE}")
    version = _whole(root["version"], "/version", low=1)
    parent = root["parent"]
    if parent is not None:
        _text(parent, "/parent", _DIGEST)
    if (parent is None) != (version == 1):
        _refuse("/parent", "only version 1 has no parent")
    base = _object(root["base"], "/base", ("usd_per_cu",))
    if not re.search("[1-9]", _text(base["usd_per_cu"], "/base/usd_per_cu", _DECIMAL)):
        _refuse("/base/usd_per_cu", "must be above zero")
    _sources(root["sources"])
    meters = _meters(root["meters"])
    models = _each(root["models"], "/models", MODEL_ID, lambda name, value, at: _model(name, value, at, meters))
    aliases = _each(
        root["aliases"], "/aliases", MODEL_ID, lambda _name, value, at: _text(value, at, MODEL_ID), empty=True
    )
    for alias, target in aliases.items():
        if alias in models:
            _refuse(_at("/aliases", alias), "is itself a model of this table")
        if target not in models:
            _refuse(_at("/aliases", alias), "names a model that is not in this table")
    return RateTable(
        version=version,
        digest=canonical.digest(document),
        parent=parent,
        effective_from=_time(root["effective_from"], "/effective_from"),
        meters=meters,
        models=models,
        aliases=aliases,
    )


_REQUIRED = ("aliases", "base", "effective_from", "meters", "models", "parent", "sources", "type", "version")


def _read(document: bytes) -> object:
    if len(document) > MAX_DOCUMENT_BYTES:
        _refuse("", f"is larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        value = json.loads(document.decode("ascii"))
        same = canonical.encode(value) == document
    except (ValueError, RecursionError, Malformed) as reason:
        _refuse("", f"is not canonical JSON ({type(reason).__name__})")
    if not same:
        _refuse("", "is not in canonical form: sort keys, no white space, no repeated keys")
    return value


def _sources(value: object) -> None:
    for index, item in enumerate(_list(value, "/sources")):
        at = f"/sources/{index}"
        source = _object(item, at, ("id", "sha256"), ("version", "read_at"))
        _text(source["id"], f"{at}/id", MODEL_ID)
        _text(source["sha256"], f"{at}/sha256", _DIGEST)
        if "version" in source:
            _text(source["version"], f"{at}/version", MODEL_ID)
        if "read_at" in source:
            _time(source["read_at"], f"{at}/read_at")


def _meters(value: object) -> Mapping[str, Meter]:
    def one(name: str, item: object, at: str) -> Meter:
        fields = _object(item, at, ("parent", "unit"))
        parent = None if fields["parent"] is None else _text(fields["parent"], f"{at}/parent", _NAME)
        return Meter(name, parent, _text(fields["unit"], f"{at}/unit", _NAME))

    found = _each(value, "/meters", _NAME, one)
    ordered: dict[str, Meter] = {}
    waiting = dict(found)
    while waiting:
        ready = [meter for meter in waiting.values() if meter.parent is None or meter.parent in ordered]
        if not ready:
            _refuse(_at("/meters", next(iter(waiting))), "has a parent that is not a meter, or is its own ancestor")
        for meter in ready:
            ordered[meter.name] = waiting.pop(meter.name)
    if any(PER_REQUEST in (meter.name, meter.parent) and meter.parent is not None for meter in ordered.values()):
        _refuse(f"/meters/{PER_REQUEST}", "is implied by every record and stands alone in the tree")
    return MappingProxyType(ordered)


def _model(name: str, value: object, at: str, meters: Mapping[str, Meter]) -> Model:
    fields = _object(value, at, ("derivation", "tiers"))
    _derivation(fields["derivation"], f"{at}/derivation")
    tiers = _each(fields["tiers"], f"{at}/tiers", _NAME, lambda _tier, item, place: _bands(item, place, meters))
    return Model(name, tiers)


def _bands(value: object, at: str, meters: Mapping[str, Meter]) -> tuple[Band, ...]:
    bands: list[Band] = []
    for index, item in enumerate(_list(_object(value, at, ("bands",))["bands"], f"{at}/bands")):
        place = f"{at}/bands/{index}"
        fields = _object(item, place, ("above_input_tokens", "rates"))
        above = _whole(fields["above_input_tokens"], f"{place}/above_input_tokens")
        if (above <= bands[-1].above_input_tokens) if bands else above != 0:
            _refuse(f"{place}/above_input_tokens", "must start at 0 and ascend")
        rates = _each(fields["rates"], f"{place}/rates", _NAME, lambda _name, rate, spot: _whole(rate, spot, MAX_RATE))
        for meter in rates:
            _priced_from_its_root(meter, rates, meters, f"{place}/rates/{meter}")
        if bands and rates.keys() != bands[0].rates.keys():
            _refuse(f"{place}/rates", "must price the same meters as the first band")
        bands.append(Band(above, rates))
    if len(bands) > 1 and (CONTEXT_METER not in meters or meters[CONTEXT_METER].parent is not None):
        _refuse(f"{at}/bands", f"needs {CONTEXT_METER} as a meter without a parent")
    return tuple(bands)


def _priced_from_its_root(meter: str, rates: Mapping[str, int], meters: Mapping[str, Meter], at: str) -> None:
    if meter not in meters:
        _refuse(at, "is not a meter of this table")
    root = meters[meter]
    while root.parent is not None:
        root = meters[root.parent]
    if root.name not in rates:
        _refuse(at, f"is priced although {root.name}, which contains it, is not")


def _derivation(value: object, at: str) -> None:
    """Checks how a model's rates came about. Methods other than the market bring inputs of their own."""
    if not isinstance(value, dict) or "method" not in value:
        _refuse(at, "must be an object with a method")
    if _text(value["method"], f"{at}/method", _NAME) != "market":
        return
    for index, item in enumerate(_list(_object(value, at, ("hosts", "method"))["hosts"], f"{at}/hosts")):
        place = f"{at}/hosts/{index}"
        host = _object(item, place, ("source", "usd_per_million", "vendor"), ("further",))
        _text(host["source"], f"{place}/source", MODEL_ID)
        _text(host["vendor"], f"{place}/vendor", MODEL_ID)
        _prices(host["usd_per_million"], f"{place}/usd_per_million")
        for number, more in enumerate(_list(host["further"], f"{place}/further") if "further" in host else ()):
            spot = f"{place}/further/{number}"
            fields = _object(more, spot, ("above_input_tokens", "tier", "usd_per_million"))
            _whole(fields["above_input_tokens"], f"{spot}/above_input_tokens")
            _text(fields["tier"], f"{spot}/tier", _NAME)
            _prices(fields["usd_per_million"], f"{spot}/usd_per_million")


def _prices(value: object, at: str) -> None:
    _each(value, at, _NAME, lambda _name, price, place: _text(price, place, _DECIMAL))


def _refuse(pointer: str, what: str) -> NoReturn:
    detail = f"rate table: {pointer or 'the document'} {what}"
    raise Malformed("rate_table_malformed", detail, (Problem(pointer, "rate_table_malformed", what),))


def _at(pointer: str, key: str) -> str:
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"


def _object(value: object, at: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(at, "must be an object")
    for name in required:
        if name not in value:
            _refuse(_at(at, name), "is missing")
    for name in value:
        if name not in required and name not in optional:
            _refuse(_at(at, name), "is not a field of this document")
    return value


def _each(
    value: object, at: str, names: re.Pattern[str], read: Callable[[str, object, str], T], *, empty: bool = False
) -> Mapping[str, T]:
    if not isinstance(value, dict) or not (value or empty):
        _refuse(at, "must be an object" if empty else "must be an object that is not empty")
    for name in value:
        if not names.fullmatch(name):
            _refuse(_at(at, name), "is not a name that is allowed here")
    return MappingProxyType({name: read(name, item, _at(at, name)) for name, item in value.items()})


def _list(value: object, at: str) -> list[object]:
    if not isinstance(value, list) or not value:
        _refuse(at, "must be a list that is not empty")
    return value


def _whole(value: object, at: str, high: int = 2**53 - 1, *, low: int = 0) -> int:
    if type(value) is not int or not low <= value <= high:
        _refuse(at, f"must be a whole number from {low} to {high}")
    return value


def _text(value: object, at: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        _refuse(at, f"must be text of the form {pattern.pattern}")
    return value


def _time(value: object, at: str) -> datetime:
    text = _text(value, at, _TIME)
    try:
        return times.parse(text)
    except Malformed:
        _refuse(at, "is no such date or time of day")
