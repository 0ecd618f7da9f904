"""Building a ``rates/1`` document from price catalogues, with the derivation of every rate.

By the market method a rate is the median posted price. By the blend the prices of open-weight models are moved towards
their effort, by one factor for all meters of a model; by the compute-based method effort alone makes their rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from governance.ratebook import market, vendors
from governance.ratebook.catalogue import Catalogue, Listing, Price, Skip, Source
from governance.ratebook.effort import Method, by_effort, one_name_each
from governance.ratebook.holding import gone, hold_back
from governance.ratebook.known_ids import KNOWN_IDS
from governance.ratebook.match import equal_ids, matches
from governance.ratebook.meters import METERS
from governance.ratebook.report import Contradiction, Disagreement, Report, usd_text
from settlement.core import canonical, rates, times
from settlement.core.errors import Malformed
from settlement.core.tiers import MAX_RATE
from settlement.core.units import parse_decimal

Tiers = Mapping[str, Mapping[str, Price]]
_TEXT = ("input_tokens", "output_tokens")
_TENFOLD = 10
DISAGREEMENT_PERCENT = 5
"""What two sources may differ by without being reported."""


@dataclass(slots=True)
class _Host:
    """A listing whose prices can be used, and those prices at the chosen day by service tier."""

    listing: Listing
    tiers: Tiers


@dataclass(slots=True)
class _Findings:
    skipped: list[Skip] = field(default_factory=list)
    notes: list[Skip] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)

    def skip(self, listing: Listing, what: str, reason: str) -> None:
        self.skipped.append(Skip(listing.vendor, listing.model, what, reason))

    def note(self, listing: Listing, what: str, reason: str) -> None:
        self.notes.append(Skip(listing.vendor, listing.model, what, reason))


def build(
    prices: Catalogue | Sequence[Catalogue],
    *,
    version: int,
    parent: str | None,
    effective_from: datetime,
    as_of: datetime,
    usd_per_cu: str = "0.0045",
    known_ids: Iterable[str] = KNOWN_IDS,
    method: Method = "market",
    previous: bytes | None = None,
    accepted: Collection[str] = (),
) -> tuple[bytes, Report]:
    """The canonical bytes of a rate table, unsigned, and the report on how it came about.

    ``as_of`` chooses among dated prices; ``effective_from`` is when the table begins to hold. Of several catalogues an
    earlier one goes before a later one that lists the same model of the same vendor. ``known_ids`` are ids that are
    known to be in use: each that the catalogue's own rules assign to a model of the table becomes an explicit alias.
    A model of the table `previous` whose rate would move tenfold keeps what it had, until a person names it in
    `accepted`: most such moves are slips of a catalogue.

    Raises Malformed ``rate_table_malformed`` when the outcome is no valid table (for one, when no model is left), and
    ``amount_malformed`` for a ``usd_per_cu`` that is not decimal text.
    """
    catalogues = [prices] if isinstance(prices, Catalogue) else list(prices)
    base = Fraction(parse_decimal(usd_per_cu, 18), 10**18)
    if not base:
        raise Malformed("amount_malformed", "the value of a CU is above zero")
    findings = _Findings([skip for catalogue in catalogues for skip in catalogue.skipped])
    if method != "market":
        catalogues = [one_name_each(each) for each in catalogues]
    listings = _once(catalogues, as_of, findings)
    groups, everyone = _groups(listings, as_of, findings)
    models = {name: document for name, hosts in groups.items() if (document := _model(hosts, base, findings))}
    if method != "market":
        by_effort(models, base, method)
    held = [] if previous is None else hold_back(models, previous, accepted)
    counts = Counter(host.listing.vendor for name in models for host in groups[name])
    aliases = _aliases(groups, models, findings)
    aliases |= _known_aliases(catalogues, listings, known_ids, {*models, *aliases}, models)
    data = canonical.encode(
        {
            "type": rates.TYPE,
            "version": version,
            "parent": parent,
            "effective_from": times.text(effective_from),
            "base": {"usd_per_cu": usd_per_cu},
            "sources": [_source(catalogue.source) for catalogue in catalogues],
            "meters": {name: {"parent": above, "unit": unit} for name, (above, unit) in METERS.items()},
            "models": models,
            "aliases": aliases,
        }
    )
    rates.parse(data)
    report = Report(
        models=dict(counts),
        priced=len(models),
        aliases=len(aliases),
        skipped=tuple(findings.skipped),
        notes=tuple(findings.notes),
        disagreements=tuple(_disagreements(everyone)),
        contradictions=tuple(findings.contradictions),
        held=tuple(held),
        gone=tuple(gone(previous, {*models, *aliases})),
    )
    return data, report


def _once(catalogues: Sequence[Catalogue], as_of: datetime, findings: _Findings) -> list[Listing]:
    """Every vendor's model once: within a catalogue as within several, the first one counts.

    One catalogue is no oracle: where another one differs by more than 5 %, both prices are reported.
    """
    seen: dict[tuple[str, str], Listing] = {}
    for catalogue in catalogues:
        for listing in catalogue.listings:
            first = seen.setdefault((listing.vendor, listing.model), listing)
            if first is not listing:
                findings.skip(listing, "model", f"is listed before, by {first.source.id}")
                if first.source != listing.source:
                    findings.contradictions += _contradictions(first, listing, as_of)
    return list(seen.values())


def _contradictions(first: Listing, other: Listing, as_of: datetime) -> Iterator[Contradiction]:
    """Main prices that two sources state otherwise."""
    one, two = (market.tiers_of(each, as_of)[market.STANDARD] for each in (first, other))
    for meter in _TEXT:
        if meter in one and meter in two:
            low, high = sorted((one[meter].base, two[meter].base))
            if (high - low) * 100 > high * DISAGREEMENT_PERCENT:
                prices = (usd_text(one[meter].base), usd_text(two[meter].base))
                said = (first.source.id, prices[0], other.source.id, prices[1])
                yield Contradiction(first.vendor, first.model, meter, *said)


def _groups(
    listings: Iterable[Listing], as_of: datetime, findings: _Findings
) -> tuple[dict[str, list[_Host]], dict[str, list[_Host]]]:
    """The hosts that count for each model id, and every usable listing of it, for comparison."""
    everyone: dict[str, list[_Host]] = {}
    for listing in listings:
        tiers = _usable(listing, as_of, findings)
        if tiers:
            everyone.setdefault(listing.model, []).append(_Host(listing, tiers))
    groups: dict[str, list[_Host]] = {}
    for model, hosts in everyone.items():
        ranks = [rank for host in hosts if (rank := vendors.rank(host.listing.vendor)) is not None]
        for host in hosts:
            rank = vendors.rank(host.listing.vendor)
            if rank is None:
                findings.skip(host.listing, "model", "is a reseller's, which is compared and not counted")
            elif rank > min(ranks):
                findings.skip(
                    host.listing, "model", "is of a vendor that is not classified; classified hosts list it too"
                )
            else:
                groups.setdefault(model, []).append(host)
                if rank:
                    findings.note(
                        host.listing, "vendor", "is not classified as host or reseller; nobody else lists this model"
                    )
                if market.has_hours(host.listing):
                    findings.note(
                        host.listing, "price", "depends on the time of day; the longest part of the day is taken"
                    )
    return groups, everyone


def _usable(listing: Listing, as_of: datetime, findings: _Findings) -> Tiers | None:
    if "/" in listing.model:
        findings.skip(listing, "model", "has an id with a vendor's prefix")
        return None
    tiers: dict[str, dict[str, Price]] = {}
    for tier, prices in market.tiers_of(listing, as_of).items():
        tiers[tier] = {meter: price for meter, price in prices.items() if list(market.lineage(meter))[-1] in prices}
        for meter in sorted(prices.keys() - tiers[tier].keys()):
            findings.skip(listing, f"price {meter}", "has no price for the meter that contains it")
    standard = tiers[market.STANDARD]
    if not all(meter in standard for meter in _TEXT):
        findings.skip(listing, "model", "has no price for both input and output tokens: not a text model")
        return None
    if not any(standard[meter].base or standard[meter].steps for meter in _TEXT):
        findings.skip(listing, "model", "is free: a price of zero is an offer, not a measure of effort")
        return None
    return tiers


def _model(hosts: Sequence[_Host], base: Fraction, findings: _Findings) -> dict[str, Any] | None:
    """A model of the document: bands by tier and the derivation; None when its main rates are out of range."""
    tiers = {}
    for tier in sorted({tier for host in hosts for tier in host.tiers}):
        bands = _bands(
            [host.tiers[tier] for host in hosts if tier in host.tiers], base, tier, hosts[0].listing, findings
        )
        if bands is not None:
            tiers[tier] = {"bands": bands}
    if market.STANDARD not in tiers:
        findings.skip(hosts[0].listing, "model", "has a main rate out of range")
        return None
    derived = [_derived(host) for host in sorted(hosts, key=lambda host: host.listing.vendor)]
    return {"tiers": tiers, "derivation": {"method": "market", "hosts": derived}}


def _bands(
    hosts: Sequence[Mapping[str, Price]], base: Fraction, tier: str, listing: Listing, findings: _Findings
) -> list[dict[str, Any]] | None:
    computed = []
    for above in market.thresholds(hosts):
        medians = market.median_prices(hosts, above)
        computed.append((above, {meter: market.rate_of(price, base) for meter, price in medians.items()}))
    too_large = {meter for _, band in computed for meter, rate in band.items() if rate > MAX_RATE}
    if too_large & set(_TEXT):
        return None
    for meter in sorted(too_large):
        findings.skip(
            listing, f"rate {meter}", f"is above {MAX_RATE} in tier {tier}; it and what it contains is left out"
        )
    bands: list[dict[str, Any]] = []
    for above, every in computed:
        kept = {meter: rate for meter, rate in every.items() if too_large.isdisjoint(market.lineage(meter))}
        if not bands or bands[-1]["rates"] != kept:
            bands.append({"above_input_tokens": above, "rates": kept})
    return bands


def _derived(host: _Host) -> dict[str, Any]:
    """The prices that one host brought to the median, by tier and prompt length, in USD per million units."""
    entry: dict[str, Any] = {"source": host.listing.source.id, "vendor": host.listing.vendor}
    further = []
    for tier in sorted(host.tiers, key=lambda name: (name != market.STANDARD, name)):
        prices = host.tiers[tier]
        for above in market.thresholds([prices]):
            usd = {meter: usd_text(price.above(above)) for meter, price in prices.items()}
            if "usd_per_million" in entry:
                further.append({"tier": tier, "above_input_tokens": above, "usd_per_million": usd})
            else:
                entry["usd_per_million"] = usd
    return {**entry, "further": further} if further else entry


def _aliases(
    groups: Mapping[str, Sequence[_Host]],
    models: Mapping[str, object],
    findings: _Findings,
) -> dict[str, str]:
    """The ids that the hosts' rules name in full. An id that two models of the table claim is nobody's."""
    claims: dict[str, set[str]] = {}
    for name in models:
        for host in groups[name]:
            for alias in equal_ids(host.listing.match):
                if alias not in models and "/" not in alias and _fits(alias):
                    claims.setdefault(alias, set()).add(name)
    for alias, names in claims.items():
        if len(names) > 1:
            findings.skipped.append(Skip("", alias, "alias", "is claimed by several models"))
    return {alias: names.pop() for alias, names in claims.items() if len(names) == 1}


def _known_aliases(
    catalogues: Sequence[Catalogue],
    listings: Sequence[Listing],
    known_ids: Iterable[str],
    taken: set[str],
    models: Mapping[str, object],
) -> dict[str, str]:
    """The known ids that a maker's own rules assign to a model of the table: the first rule that covers one decides."""
    owners = {vendor: rule for catalogue in catalogues for vendor, rule in catalogue.owners.items()}
    by_vendor: dict[str, list[Listing]] = {}
    for listing in listings:
        if listing.vendor in owners and vendors.rank(listing.vendor) is not None:
            by_vendor.setdefault(listing.vendor, []).append(listing)
    aliases: dict[str, str] = {}
    for model in known_ids:
        if model in taken or not _fits(model):
            continue
        for vendor, theirs in by_vendor.items():
            if matches(owners[vendor], model):
                target = next((listing.model for listing in theirs if matches(listing.match, model)), None)
                if target is not None and target in models:
                    aliases[model] = target
                    break
    return aliases


def _fits(model: str) -> bool:
    return rates.MODEL_ID.fullmatch(model) is not None


def _disagreements(everyone: Mapping[str, Sequence[_Host]]) -> Iterable[Disagreement]:
    for model, hosts in sorted(everyone.items()):
        for meter in _TEXT:
            posted = sorted((host.tiers[market.STANDARD][meter].base, host.listing.vendor) for host in hosts)
            (low, cheap), (high, dear) = posted[0], posted[-1]
            if high and high >= low * _TENFOLD:
                yield Disagreement(model, meter, cheap, usd_text(low), dear, usd_text(high))


def _source(source: Source) -> dict[str, str]:
    entry = {"id": source.id, "sha256": source.sha256}
    if source.version is not None:
        entry["version"] = source.version
    if source.read_at is not None:
        entry["read_at"] = times.text(source.read_at.replace(microsecond=0))
    return entry
