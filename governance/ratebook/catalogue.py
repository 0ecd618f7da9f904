"""Reading price catalogues: the genai-prices data of the installed package or of a file, price maps, and CSV files.

Catalogues come from outside and change shape. What can be understood is kept with the exact decimal text it was
written in, as a fraction of USD per million units; everything else is listed in ``skipped`` with the reason. A file
that can't be read at all raises Malformed ``prices_unreadable``.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

from governance.ratebook.meters import CSV_FIELDS, CSV_LONG_FIELDS, CSV_LONG_THRESHOLD, MILLION, PRICE_KEYS
from governance.ratebook.vendors import NAMES
from settlement.core.errors import Malformed

MAX_BYTES = 64 * 1024 * 1024
"""The most that a catalogue may be, after decompression."""
MAX_PLACES = 24
"""The most decimal places of a posted price; more is noise, or an attack on the arithmetic."""
_COLUMNS = {
    "vendor": ("vendor", "provider"),
    "model": ("model",),
    "meter": ("meter", "field"),
    "price": ("usd_per_million",),
}
_NAME = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where prices came from: a name, the version if it has one, and the digest of the bytes that were read."""

    id: str
    version: str | None
    sha256: str
    read_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """Something in a catalogue that is not used, and why."""

    vendor: str
    model: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million units; ``steps`` are (start, price): above ``start`` input tokens that price holds for all."""

    base: Fraction
    steps: tuple[tuple[int, Fraction], ...] = ()

    def above(self, input_tokens: int) -> Fraction:
        """The price of a request with one input token more than that."""
        price = self.base
        for start, step in self.steps:
            if start <= input_tokens:
                price = step
        return price


@dataclass(frozen=True, slots=True)
class Dated:
    """Prices by meter that hold from a day on, or between two UTC times of every day, or without condition."""

    prices: Mapping[str, Price]
    start_date: date | None = None
    hours: tuple[time, time] | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """Prices that replace some of the standard ones in a service tier."""

    tier: str
    dated: Dated


@dataclass(frozen=True, slots=True)
class Listing:
    """One model at one vendor. ``match`` is the catalogue's own rule for ids, as it stands there."""

    source: Source
    vendor: str
    model: str
    match: object
    candidates: tuple[Dated, ...]
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that was understood of one source, and what was not. ``owners``: a vendor's rule for the ids it makes."""

    source: Source
    listings: tuple[Listing, ...]
    skipped: tuple[Skip, ...]
    owners: Mapping[str, object]


def read_prices(path: Path | None = None, *, read_at: datetime | None = None) -> Catalogue:
    """The catalogue in a file, or that of the installed genai-prices package.

    A file is genai-prices JSON, a LiteLLM price map or CSV; each may be gzipped.
    """
    if path is None:
        return _installed(read_at)
    data = _bytes(path)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.name.removesuffix(".gz").rpartition(".")[0])[:100] or "file"
    is_json = data.lstrip()[:1] in (b"[", b"{")
    if not is_json:
        return _from_csv(Source(name, None, _sha256(data), read_at), data)
    try:
        value = json.loads(data, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as reason:
        raise Malformed("prices_unreadable", f"{path.name} is not JSON: {reason}") from None
    from governance.ratebook.price_map import from_price_map, is_price_map

    if is_price_map(value):
        return from_price_map(Source("litellm", None, _sha256(data), read_at), value)
    return from_providers(Source("genai-prices", None, _sha256(data), read_at), value)


def from_providers(source: Source, value: object) -> Catalogue:
    """The catalogue in decoded genai-prices JSON: a list of providers, or an object that holds one."""
    skipped: list[Skip] = []
    if isinstance(value, dict):
        value = value.get("providers", value.get("data"))
    if not isinstance(value, list):
        raise Malformed("prices_unreadable", "price data is a list of providers, each with a list of models")
    listings = []
    owners: dict[str, object] = {}
    for provider in value:
        vendor = provider.get("id") if isinstance(provider, dict) else None
        if not isinstance(vendor, str) or not _NAME.fullmatch(vendor):
            skipped.append(Skip("", "", "provider", "has no usable id"))
            continue
        if provider.get("model_match") is not None:
            owners[vendor] = provider["model_match"]
        for model in _models(provider.get("models")):
            listing = _listing(source, vendor, model, skipped)
            if listing is not None:
                listings.append(listing)
    return Catalogue(source, tuple(listings), tuple(skipped), owners)


def _installed(read_at: datetime | None) -> Catalogue:
    from genai_prices import data

    source = Source(
        "genai-prices", metadata.version("genai-prices"), _sha256(Path(data.__file__).read_bytes()), read_at
    )
    return from_providers(source, _plain(data.providers))


def _plain(value: Any) -> Any:
    """The package's data classes in the shape of its JSON file."""
    if type(value).__name__ == "ModelPrice":
        return {name: _plain(price) for name, price in vars(value).items() if price is not None}
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.name not in ("extractors", "_registry")]
        return {
            name.rstrip("_"): _plain(getattr(value, name)) for name in names if getattr(value, name, None) is not None
        }
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value.isoformat() if isinstance(value, date | time) else value


def _models(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for name, model in value.items():
            yield {"id": name, **model} if isinstance(model, dict) else model
    elif isinstance(value, list):
        yield from value


def _listing(source: Source, vendor: str, model: object, skipped: list[Skip]) -> Listing | None:
    name = model.get("id") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(name, str) or not _NAME.fullmatch(name):
        skipped.append(Skip(vendor, str(name)[:128], "model", "has no id that a usage record can carry"))
        return None

    def skip(what: str, reason: str) -> None:
        skipped.append(Skip(vendor, name, what, reason))

    raw = model.get("prices")
    entries = raw if isinstance(raw, list) else [{"prices": raw}]
    candidates = tuple(dated for entry in entries if (dated := _dated(entry, skip)) is not None)
    if not candidates:
        skip("model", "has no prices")
        return None
    variants = []
    for entry in model.get("price_variants") or ():
        tier = _tier(entry)
        if tier is None:
            skip("price variant", f"is chosen by {_when(entry)}, which is not a service tier")
        elif tier and (dated := _dated(entry, skip)) is not None and dated.prices:
            variants.append(Variant(tier, dated))
    return Listing(source, vendor, name, model.get("match"), candidates, tuple(variants))


def _when(entry: object) -> object:
    return entry.get("when") if isinstance(entry, dict) else None


def _tier(entry: object) -> str | None:
    """The service tier that a variant is for; "" for the standard one, None when it is not about service tiers."""
    when = _when(entry)
    if not isinstance(when, dict) or len(when) != 1:
        return None
    ((key, value),) = when.items()
    if key not in ("service_tier", "processing", "speed") or not isinstance(value, str):
        return None
    if value in ("default", "standard", "auto"):
        return ""
    return value if re.fullmatch(r"[a-z][a-z0-9_]{0,63}", value) else None


def _dated(entry: object, skip: Any) -> Dated | None:
    raw = entry.get("prices") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(raw, dict):
        skip("prices", "are not an object of prices")
        return None
    prices = {}
    for key, value in raw.items():
        if value is None:
            continue
        if key not in PRICE_KEYS:
            skip(f"price {key}", "is for a meter that is not in the registry")
            continue
        meter, per = PRICE_KEYS[key]
        price = _price(value, Fraction(MILLION, per))
        if price is None:
            skip(f"price {key}", "is not an amount of zero or more, or a base with steps that ascend")
        else:
            prices[meter] = price
    constraint = entry.get("constraint")
    if constraint is None:
        return Dated(prices)
    try:
        if set(constraint) == {"start_date"}:
            return Dated(prices, start_date=date.fromisoformat(constraint["start_date"]))
        if set(constraint) == {"start_time", "end_time"}:
            return Dated(prices, hours=(_clock(constraint["start_time"]), _clock(constraint["end_time"])))
    except (TypeError, ValueError):
        pass
    skip("prices", "hold under a condition that is not known: neither a start date nor hours of the day")
    return None


def _clock(text: str) -> time:
    """A UTC time of day; other offsets are not something the sources use, so they are refused."""
    clock = time.fromisoformat(text)
    if clock.utcoffset():
        raise ValueError("not UTC")
    return clock.replace(tzinfo=None)


def _price(value: object, scale: Fraction) -> Price | None:
    if not isinstance(value, dict):
        base = amount(value)
        return None if base is None else Price(base * scale)
    base = amount(value.get("base"))
    tiers = value.get("tiers")
    if base is None or not isinstance(tiers, list):
        return None
    steps: list[tuple[int, Fraction]] = []
    for tier in tiers:
        start = tier.get("start") if isinstance(tier, dict) else None
        price = amount(tier.get("price")) if isinstance(tier, dict) else None
        if type(start) is not int or not 0 <= start < 2**53 or price is None:
            return None
        steps.append((start, price * scale))
    return Price(base * scale, tuple(sorted(steps, key=lambda step: step[0])))


def amount(value: object) -> Fraction | None:
    """An amount of zero or more from its text, exactly; None for anything else, and for more digits than money has.

    Absurdly long digits are no price, and would cost time to compute with.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    found = value if isinstance(value, Decimal) else _decimal(str(value))
    if found is None or not found.is_finite() or found < 0:
        return None
    exponent = found.as_tuple().exponent
    return Fraction(found) if isinstance(exponent, int) and exponent >= -MAX_PLACES and found.adjusted() <= 12 else None


def is_name(text: str) -> bool:
    """Whether a usage record can carry this as an id."""
    return _NAME.fullmatch(text) is not None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text) if len(text) <= 40 else None
    except InvalidOperation:
        return None


def _from_csv(source: Source, data: bytes) -> Catalogue:
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip().lower() for name in next(rows, [])]
        table = list(rows)
    except (UnicodeDecodeError, csv.Error) as reason:
        raise Malformed("prices_unreadable", f"{source.id} is not CSV: {reason}") from None
    place = {}
    for wanted, names in _COLUMNS.items():
        found = [header.index(name) for name in names if name in header]
        if not found:
            raise Malformed("prices_unreadable", f"{source.id} has no column {' or '.join(names)}")
        place[wanted] = found[0]
    skipped: list[Skip] = []
    rows_of: dict[tuple[str, str], dict[str, Fraction]] = {}
    for row in table:
        if row:
            _csv_row(row, place, rows_of, skipped)
    listings = (_csv_listing(source, vendor, model, prices, skipped) for (vendor, model), prices in rows_of.items())
    return Catalogue(source, tuple(listings), tuple(skipped), {})


def _csv_row(
    row: Sequence[str], place: Mapping[str, int], into: dict[tuple[str, str], dict[str, Fraction]], skipped: list[Skip]
) -> None:
    if len(row) <= max(place.values()):
        skipped.append(Skip("", "", "row", "has too few columns"))
        return
    vendor, model, meter, text = (row[place[name]].strip() for name in ("vendor", "model", "meter", "price"))
    vendor, price = NAMES.get(vendor, vendor), amount(text)
    if not _NAME.fullmatch(vendor) or not _NAME.fullmatch(model):
        skipped.append(
            Skip(vendor[:128], model[:128], "row", "has no vendor and model id that a usage record can carry")
        )
    elif meter not in CSV_FIELDS and meter not in CSV_LONG_FIELDS and meter != CSV_LONG_THRESHOLD:
        skipped.append(Skip(vendor, model, f"price {meter[:64]}", "is for a meter that is not in the registry"))
    elif price is None:
        skipped.append(Skip(vendor, model, f"price {meter}", "is not an amount of zero or more"))
    elif meter in into.setdefault((vendor, model), {}):
        skipped.append(Skip(vendor, model, f"price {meter}", "is given twice; the first one is used"))
    else:
        into[vendor, model][meter] = price


def _csv_listing(
    source: Source, vendor: str, model: str, given: Mapping[str, Fraction], skipped: list[Skip]
) -> Listing:
    flat = {CSV_FIELDS[field]: price for field, price in given.items() if field in CSV_FIELDS}
    above = {CSV_LONG_FIELDS[field]: price for field, price in given.items() if field in CSV_LONG_FIELDS}
    threshold = given.get(CSV_LONG_THRESHOLD)
    if above and (threshold is None or threshold.denominator != 1):
        skipped.append(Skip(vendor, model, "long-context prices", "come without a threshold in whole tokens"))
        above = {}
    alone = sorted(above.keys() - flat.keys())
    reason = "has no price below the threshold"
    skipped.extend(Skip(vendor, model, f"long-context price of {meter}", reason) for meter in alone)
    prices = {
        meter: Price(price, ((int(threshold), above[meter]),) if threshold is not None and meter in above else ())
        for meter, price in flat.items()
    }
    return Listing(source, vendor, model, {"equals": model}, (Dated(prices),), ())


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as reason:
        raise Malformed("prices_unreadable", f"{path.name} can't be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise Malformed("prices_unreadable", f"{path.name} is larger than {MAX_BYTES} bytes")
    return data


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
