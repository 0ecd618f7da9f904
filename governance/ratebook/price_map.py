"""A LiteLLM price map: one JSON object of ``model id: fields``, prices in USD for one unit, tiers in the fields' names.

Ids carry their vendor before a slash where the same name is sold by several. What a field means is in `FIELDS`; numbers
of a field that is not there and looks like a price are listed as skipped. Money is read from the text of the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from governance.ratebook.catalogue import Catalogue, Dated, Listing, Price, Skip, Source, Variant, amount, is_name
from governance.ratebook.meters import MILLION
from governance.ratebook.vendors import NAMES

FIELDS = MappingProxyType(
    {
        "input_cost_per_token": "input_tokens",
        "output_cost_per_token": "output_tokens",
        "cache_read_input_token_cost": "cache_read_tokens",
        "cache_creation_input_token_cost": "cache_write_tokens",
        "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
        "output_cost_per_reasoning_token": "output_reasoning_tokens",
        "input_cost_per_audio_token": "input_audio_tokens",
        "output_cost_per_audio_token": "output_audio_tokens",
        "input_cost_per_image_token": "input_image_tokens",
        "output_cost_per_image_token": "output_image_tokens",
        "input_cost_per_request": "requests",
    }
)
"""Field: meter."""
TIERS = MappingProxyType({"_batches": "batch", "_flex": "flex", "_priority": "priority"})
"""Ending of a field: service tier."""
_ABOVE = re.compile(r"_above_([1-9][0-9]{0,6})k_tokens")
_MODES = frozenset({"chat", "completion", "responses", None})

Found = dict[tuple[str, str], dict[int, Fraction]]
"""USD per million units by (tier, meter) and threshold."""


def is_price_map(value: object) -> bool:
    """Whether decoded JSON looks like a price map."""
    return isinstance(value, dict) and any(
        isinstance(each, dict) and "litellm_provider" in each for each in list(value.values())[:20]
    )


def from_price_map(source: Source, value: Mapping[str, object]) -> Catalogue:
    """The catalogue in a decoded price map. Numbers must have been decoded as their text."""
    skipped: list[Skip] = []
    listings = []
    for key, fields in value.items():
        if key == "sample_spec" or not isinstance(fields, dict):
            continue
        listing = _listing(source, key, fields, skipped)
        if listing is not None:
            listings.append(listing)
    return Catalogue(source, tuple(listings), tuple(skipped), {})


def _listing(source: Source, key: str, fields: Mapping[str, object], skipped: list[Skip]) -> Listing | None:
    named = str(fields.get("litellm_provider", "")).split("-")[0] if fields.get("litellm_provider") else ""
    vendor = NAMES.get(str(fields.get("litellm_provider")), NAMES.get(named, named))
    model = key.partition("/")[2] if key.partition("/")[0] == fields.get("litellm_provider") else key
    if not is_name(vendor) or not is_name(model):
        skipped.append(Skip(vendor[:128], model[:128], "model", "has no vendor and id that a usage record can carry"))
        return None
    if fields.get("mode") not in _MODES:
        skipped.append(Skip(vendor, model, "model", f"is of mode {fields['mode']}: not a text model"))
        return None
    found = _prices(vendor, model, fields, skipped)
    standard = _dated(found, "standard")
    if not standard.prices:
        skipped.append(Skip(vendor, model, "model", "has no prices"))
        return None
    tiers = sorted({tier for tier, _ in found} - {"standard"})
    variants = tuple(Variant(tier, _dated(found, tier)) for tier in tiers)
    return Listing(source, vendor, model, {"equals": model}, (standard,), variants)


def _prices(vendor: str, model: str, fields: Mapping[str, object], skipped: list[Skip]) -> Found:
    found: Found = {}
    for field, value in fields.items():
        if "cost" not in field or value is None:
            continue
        name, tier, above = field, "standard", 0
        for ending, other in TIERS.items():
            if name.endswith(ending):
                name, tier = name.removesuffix(ending), other
        step = _ABOVE.search(name)
        if step is not None:
            name, above = name.replace(step.group(), ""), int(step.group(1)) * 1000
        meter, price = FIELDS.get(name), amount(value)
        if meter is None:
            skipped.append(Skip(vendor, model, f"price {field[:64]}", "is for a meter that is not in the registry"))
        elif price is None:
            skipped.append(Skip(vendor, model, f"price {field}", "is not an amount of zero or more"))
        else:
            found.setdefault((tier, meter), {})[above] = price * MILLION
    return found


def _dated(found: Found, tier: str) -> Dated:
    prices = {}
    for (name, meter), steps in found.items():
        base = steps.get(0)
        if name == tier and base is not None:
            prices[meter] = Price(base, tuple(sorted((above, price) for above, price in steps.items() if above)))
    return Dated(prices)
