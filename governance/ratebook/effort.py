"""Rates that effort has a say in: the blend and the compute-based method, over models that the market has priced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from governance.ratebook import methods
from governance.ratebook.catalogue import Catalogue
from governance.ratebook.fit import fit
from governance.ratebook.market import median
from governance.ratebook.methods import Architecture, Weight, architecture_of
from governance.ratebook.vendors import RESELLER_PREFIX
from settlement.core.errors import Malformed
from settlement.core.tiers import MAX_RATE

Method = Literal["market", "blend", "flop"]

_SHOWN = Decimal("0.000001")


def one_name_each(catalogue: Catalogue) -> Catalogue:
    """The catalogue with every host's listing of an open-weight model under the one name of that model.

    Hosts give the same weights many ids, so that by the catalogue's ids few models have several hosts. A gateway's
    listing of what a host runs is that host's own. The ids that stood there remain as aliases.
    """
    listings = []
    for listing in catalogue.listings:
        found = architecture_of(listing.model)
        if found is not None:
            rule = {"or": [{"equals": listing.model}, listing.match]}
            vendor = listing.vendor.removeprefix(f"{RESELLER_PREFIX}_").removesuffix("-ai")
            listing = replace(listing, vendor=vendor, model=found[0], match=rule)  # noqa: PLW2901 - the same listing
        listings.append(listing)
    return replace(catalogue, listings=tuple(listings))


def by_effort(models: dict[str, Any], usd_per_cu: Fraction, method: Method) -> None:
    """Give the open-weight models of a document, priced by the market, their rates by another method; in place.

    Models without open weights stay as they are: nobody but their maker knows their effort. Raises Malformed
    ``basket_too_small`` when fewer than three open-weight models have three hosts or more.
    """
    open_models = {name: found for name in models if (found := architecture_of(name)) is not None}
    if method == "flop":
        for name, (_, architecture) in open_models.items():
            models[name] = _by_flop(models[name], architecture)
        return
    hosts = {name: len(models[name]["derivation"]["hosts"]) for name in open_models}
    points = [(open_models[name][1], _usd(models[name])) for name in sorted(open_models)]
    basket = [open_models[name][1] for name in sorted(open_models) if hosts[name] >= methods.LEAST_BASKET]
    scale = methods.hedonic_scale(basket)
    figures = fit(points).document() if len(points) > methods.LEAST_BASKET else None
    for name, (_, architecture) in open_models.items():
        alpha = methods.alpha_of(architecture, hosts[name])
        weight = methods.blend(architecture, _usd(models[name]), usd_per_cu, alpha, scale)
        models[name] = _blended(models[name], architecture, weight, figures)


def _blended(
    model: Mapping[str, Any], architecture: Architecture, weight: Weight, figures: dict[str, object] | None
) -> dict[str, Any]:
    tiers = {
        tier: {**terms, "bands": [_scaled(band, weight.factor) for band in terms["bands"]]}
        for tier, terms in model["tiers"].items()
    }
    shown = {name: str(getattr(weight, name).quantize(_SHOWN)) for name in ("flop", "hedonic", "market", "weight")}
    derivation = {
        "method": "blend",
        "alpha": str(weight.alpha),
        "parameters": _parameters(architecture),
        "exponents": {"active": str(methods.ACTIVE_EXPONENT), "total": str(methods.TOTAL_EXPONENT)},
        "cu_per_1000_requests": {name: str(Decimal(value) * 1000) for name, value in shown.items()},
        "factor": str(Decimal(weight.factor.numerator * 10**6 // weight.factor.denominator).scaleb(-6)),
        "hosts": model["derivation"]["hosts"],
    }
    return {**model, "tiers": tiers, "derivation": derivation | ({} if figures is None else {"fit": figures})}


def _by_flop(model: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Rates by effort alone, for the meters that the market prices and effort knows; there are no bands and tiers."""
    priced = model["tiers"]["standard"]["bands"][0]["rates"]
    rates = {meter: rate for meter, rate in methods.flop_rates(architecture).items() if meter in priced}
    bands = [{"above_input_tokens": 0, "rates": rates}]
    derivation = {"method": "flop", "parameters": _parameters(architecture), "position": methods.POSITION}
    return {**model, "tiers": {"standard": {"bands": bands}}, "derivation": derivation}


def _parameters(architecture: Architecture) -> dict[str, object]:
    return {
        "active_billions": str(architecture.active),
        "total_billions": str(architecture.total),
        "attention": architecture.attention,
    }


def _scaled(band: Mapping[str, Any], factor: Fraction) -> dict[str, Any]:
    """The band with every rate multiplied by the factor and rounded half to even."""
    rates = {meter: round(rate * factor) for meter, rate in band["rates"].items()}
    if max(rates.values()) > MAX_RATE:
        raise Malformed("rate_table_malformed", "rate table: a blended rate is out of range")
    return {**band, "rates": rates}


def _usd(model: Mapping[str, Any]) -> Fraction:
    """The median posted USD of the reference request, over the model's hosts."""
    posted = []
    for host in model["derivation"]["hosts"]:
        usd = {meter: Fraction(price) for meter, price in host["usd_per_million"].items()}
        cached = usd.get("cache_read_tokens", usd["input_tokens"])
        posted.append(methods.usd_of_request(usd["input_tokens"], cached, usd["output_tokens"]))
    return median(posted)
