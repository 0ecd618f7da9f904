"""The rate table: what one unit of each meter of each model costs, parsed from a signed ``rates/1`` document.

A rate is a whole number of microCU per 1,000,000 units of a meter, so units x rate is a whole number of picoCU. Meters
form a strict inclusion tree: a meter's units contain the units of all meters below it, and meters side by side under
one parent never count the same unit twice. See docs/reference/rates.md. Standard library only: the offline verifier
parses tables with this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from settlement.core import canonical
from settlement.core.fields import DECIMAL, DIGEST, NAME, below
from settlement.core.tiers import PER_REQUEST, READ, Meter, Tier, read_tier

TYPE = "rates/1"
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
TEXT_CLASS = re.compile("english|code|cjk|other")
"""Classes of the public corpus on which tokenisers are compared (ECONOMICS 5.5)."""
BOUND = re.compile(
    "context_tokens|max_output_tokens|max_output_tokens_per_second|max_bytes_per_token|max_reasoning_percent"
)
"""What a request to a model and honest usage of it keep to. None of them changes a charge."""

MODEL_ID = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
"""Ids of models, aliases, vendors and sources: what a usage record can carry."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its service tiers, and what is known of its tokens, for whoever checks reported counts.

    `tokens_per_kilobyte` are tokens per 1,000 bytes of UTF-8 by class of text, as decimal text; `bounds` are limits
    that honest usage keeps.
    """

    name: str
    tiers: Mapping[str, Tier]
    tokens_per_kilobyte: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prices:
    """One band of a tier as records are held to it: the parent of each meter that a record may name, and what a unit of
    each meter costs that has a price, its own or its parent's, in the table's order; `requests` among the latter."""

    parents: Mapping[str, str | None]
    rates: Mapping[str, int]


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
    prices: dict[tuple[str, str, int], Prices] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What rating has worked out so far, by model, tier and threshold of the band."""

    def resolve(self, model: str) -> str | None:
        """The model's name in this table, by exact name or exact alias; never by prefix or pattern."""
        return model if model in self.models else self.aliases.get(model)


@lru_cache(maxsize=8)
def parse(document: bytes) -> RateTable:
    """The table that these canonical bytes describe; the same bytes are read once, for tables are large.

    Raises Malformed ``rate_table_malformed``, naming the first offending place by its JSON pointer, for bytes that are
    not canonical JSON, unknown or missing fields, an inclusion tree with gaps or cycles, rates out of range, bands that
    do not ascend from 0, a meter priced without its root, or an alias of a model that is not there.
    """
    root = READ.members(READ.document(document, MAX_DOCUMENT_BYTES), "", _REQUIRED)
    if root["type"] != TYPE:
        READ.refuse("/type", f"must be {TYPE}")
    version = READ.whole(root["version"], "/version", low=1)
    parent = root["parent"]
    if parent is not None:
        READ.text(parent, "/parent", DIGEST)
    if (parent is None) != (version == 1):
        READ.refuse("/parent", "only version 1 has no parent")
    base = READ.members(root["base"], "/base", ("usd_per_cu",))
    if not re.search("[1-9]", READ.text(base["usd_per_cu"], "/base/usd_per_cu", DECIMAL)):
        READ.refuse("/base/usd_per_cu", "must be above zero")
    _sources(root["sources"])
    meters = _meters(root["meters"])
    models = READ.each(root["models"], "/models", MODEL_ID, lambda name, value, at: _model(name, value, at, meters))
    aliases = READ.each(
        root["aliases"], "/aliases", MODEL_ID, lambda _name, value, at: READ.text(value, at, MODEL_ID), empty=True
    )
    for alias, target in aliases.items():
        if alias in models:
            READ.refuse(below("/aliases", alias), "is itself a model of this table")
        if target not in models:
            READ.refuse(below("/aliases", alias), "names a model that is not in this table")
    return RateTable(
        version=version,
        digest=canonical.digest(document),
        parent=parent,
        effective_from=READ.time(root["effective_from"], "/effective_from"),
        meters=meters,
        models=models,
        aliases=aliases,
    )


_REQUIRED = ("aliases", "base", "effective_from", "meters", "models", "parent", "sources", "type", "version")


def _sources(value: object) -> None:
    for index, item in enumerate(READ.items(value, "/sources")):
        at = f"/sources/{index}"
        source = READ.members(item, at, ("id", "sha256"), ("version", "read_at"))
        READ.text(source["id"], f"{at}/id", MODEL_ID)
        READ.text(source["sha256"], f"{at}/sha256", DIGEST)
        if "version" in source:
            READ.text(source["version"], f"{at}/version", MODEL_ID)
        if "read_at" in source:
            READ.time(source["read_at"], f"{at}/read_at")


def _meters(value: object) -> Mapping[str, Meter]:
    def one(name: str, item: object, at: str) -> Meter:
        fields = READ.members(item, at, ("parent", "unit"))
        parent = None if fields["parent"] is None else READ.text(fields["parent"], f"{at}/parent", NAME)
        return Meter(name, parent, READ.text(fields["unit"], f"{at}/unit", NAME))

    found = READ.each(value, "/meters", NAME, one)
    ordered: dict[str, Meter] = {}
    waiting = dict(found)
    while waiting:
        ready = [meter for meter in waiting.values() if meter.parent is None or meter.parent in ordered]
        if not ready:
            READ.refuse(
                below("/meters", next(iter(waiting))), "has a parent that is not a meter, or is its own ancestor"
            )
        for meter in ready:
            ordered[meter.name] = waiting.pop(meter.name)
    if any(PER_REQUEST in (meter.name, meter.parent) and meter.parent is not None for meter in ordered.values()):
        READ.refuse(f"/meters/{PER_REQUEST}", "is implied by every record and stands alone in the tree")
    return MappingProxyType(ordered)


def _model(name: str, value: object, at: str, meters: Mapping[str, Meter]) -> Model:
    fields = READ.members(value, at, ("derivation", "tiers"), ("bounds", "tokens_per_kilobyte"))
    _derivation(fields["derivation"], f"{at}/derivation")
    tiers = READ.each(fields["tiers"], f"{at}/tiers", NAME, lambda _tier, item, place: read_tier(item, place, meters))
    tokens, bounds = fields.get("tokens_per_kilobyte", {}), fields.get("bounds", {})
    return Model(
        name,
        tiers,
        READ.each(tokens, f"{at}/tokens_per_kilobyte", TEXT_CLASS, _decimal, empty="tokens_per_kilobyte" not in fields),
        READ.each(bounds, f"{at}/bounds", BOUND, _bound, empty="bounds" not in fields),
    )


def _derivation(value: object, at: str) -> None:
    """Checks how a model's rates came about. Methods other than the market bring inputs of their own."""
    if not isinstance(value, dict) or "method" not in value:
        READ.refuse(at, "must be an object with a method")
    if READ.text(value["method"], f"{at}/method", NAME) != "market":
        return
    for index, item in enumerate(READ.items(READ.members(value, at, ("hosts", "method"))["hosts"], f"{at}/hosts")):
        place = f"{at}/hosts/{index}"
        host = READ.members(item, place, ("source", "usd_per_million", "vendor"), ("further",))
        READ.text(host["source"], f"{place}/source", MODEL_ID)
        READ.text(host["vendor"], f"{place}/vendor", MODEL_ID)
        _prices(host["usd_per_million"], f"{place}/usd_per_million")
        for number, more in enumerate(READ.items(host["further"], f"{place}/further") if "further" in host else ()):
            spot = f"{place}/further/{number}"
            fields = READ.members(more, spot, ("above_input_tokens", "tier", "usd_per_million"))
            READ.whole(fields["above_input_tokens"], f"{spot}/above_input_tokens")
            READ.text(fields["tier"], f"{spot}/tier", NAME)
            _prices(fields["usd_per_million"], f"{spot}/usd_per_million")


def _prices(value: object, at: str) -> None:
    READ.each(value, at, NAME, _decimal)


def _decimal(_name: str, value: object, at: str) -> str:
    return READ.text(value, at, DECIMAL)


def _bound(_name: str, value: object, at: str) -> int:
    return READ.whole(value, at, low=1)
