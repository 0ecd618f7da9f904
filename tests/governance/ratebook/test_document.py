from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from governance.ratebook import market
from governance.ratebook.catalogue import Catalogue, Source, from_providers, read_prices
from governance.ratebook.document import build
from governance.ratebook.meters import METERS
from settlement.core import rates, rating
from settlement.core.errors import Malformed
from tests.shared import shared

AT = datetime(2026, 11, 22, tzinfo=UTC)
SOURCE = Source("list", None, "sha256:" + "0" * 64)
SCHEMA = Path(__file__).parents[3] / "docs/reference/schemas/rates-1.json"


def catalogue(**vendors: dict[str, Any]) -> Catalogue:
    """Vendors given as model: (input, output) or a whole model."""
    providers = []
    for vendor, models in vendors.items():
        entries = []
        for name, given in models.items():
            prices = {"input_mtok": given[0], "output_mtok": given[1]} if isinstance(given, tuple) else None
            entries.append({"id": name, **({"prices": prices} if prices else given)})
        providers.append({"id": vendor.replace("_", "-"), "models": entries})
    return from_providers(SOURCE, providers)


def built(prices: Catalogue, **options: Any) -> tuple[dict[str, Any], Any]:
    settings: dict[str, Any] = {"version": 1, "parent": None, "effective_from": AT, "as_of": AT}
    data, report = build(prices, **(settings | options))
    value: dict[str, Any] = json.loads(data)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(value)
    return value, report


def first(value: dict[str, Any], model: str, tier: str = "standard") -> dict[str, int]:
    rated: dict[str, int] = value["models"][model]["tiers"][tier]["bands"][0]["rates"]
    return rated


def test_gpt_5_at_the_base_value() -> None:
    value, report = built(catalogue(openai={"gpt-5": ("1.25", 10)}))
    assert first(value, "gpt-5") == {"input_tokens": 277777778, "output_tokens": 2222222222}
    assert value["models"]["gpt-5"]["derivation"] == {
        "method": "market",
        "hosts": [
            {"source": "list", "vendor": "openai", "usd_per_million": {"input_tokens": "1.25", "output_tokens": "10"}}
        ],
    }
    assert (report.priced, report.models) == (1, {"openai": 1})


def test_the_median_over_hosts_without_resellers_and_strangers() -> None:
    prices = catalogue(
        groq={"open": (9, 9)}, together={"open": (3, 3)}, openrouter={"open": ("0.1", 3)}, stranger={"open": (50, 50)}
    )
    value, report = built(prices, usd_per_cu="1")
    assert first(value, "open") == {"input_tokens": 6_000_000, "output_tokens": 6_000_000}
    assert {skip.vendor for skip in report.skipped} == {"openrouter", "stranger"}
    (flag,) = [flag for flag in report.disagreements if flag.meter == "input_tokens"]
    assert (flag.low_vendor, flag.low_usd, flag.high_vendor, flag.high_usd) == ("openrouter", "0.1", "stranger", "50")
    assert "tenfold disagreements: 2" in report.text()


def test_vendors_that_nobody_classified_price_what_nobody_else_lists() -> None:
    value, report = built(catalogue(alpha={"new": (1, 1)}, beta={"new": (2, 2)}, gamma={"new": (7, 7)}), usd_per_cu="1")
    assert first(value, "new")["input_tokens"] == 2_000_000
    assert len(report.notes) == 3


def test_bands_are_the_union_of_the_hosts_steps() -> None:
    def stepped(start: int, base: int, above: int) -> dict[str, Any]:
        price = {"base": base, "tiers": [{"start": start, "price": above}]}
        return {"prices": {"input_mtok": price, "output_mtok": 1}}

    prices = catalogue(groq={"m": stepped(10, 1, 3)}, together={"m": stepped(20, 5, 9)})
    value, _ = built(prices, usd_per_cu="1")
    bands = value["models"]["m"]["tiers"]["standard"]["bands"]
    assert [(band["above_input_tokens"], band["rates"]["input_tokens"]) for band in bands] == [
        (0, 3_000_000),
        (10, 4_000_000),
        (20, 6_000_000),
    ]


def test_neighbouring_bands_with_equal_rates_are_one() -> None:
    same = {"base": 2, "tiers": [{"start": 10, "price": "2.0"}, {"start": 20, "price": 3}]}
    value, _ = built(catalogue(groq={"m": {"prices": {"input_mtok": same, "output_mtok": 1}}}))
    assert [band["above_input_tokens"] for band in value["models"]["m"]["tiers"]["standard"]["bands"]] == [0, 20]


def test_a_tier_keeps_the_standard_price_of_what_it_does_not_name() -> None:
    batch = {"when": {"processing": "batch"}, "prices": {"input_mtok": 1}}
    early = {"when": {"service_tier": "flex"}, "constraint": {"start_date": "2027-01-01"}, "prices": {"input_mtok": 1}}
    model = {"prices": {"input_mtok": 2, "output_mtok": 4}, "price_variants": [batch, early]}
    value, _ = built(catalogue(openai={"m": model}), usd_per_cu="1")
    assert set(value["models"]["m"]["tiers"]) == {"standard", "batch"}
    assert first(value, "m", "batch") == {"input_tokens": 1_000_000, "output_tokens": 4_000_000}


def test_what_is_left_out_and_why() -> None:
    prices = catalogue(
        openai={
            "ok": (1, 1),
            "a/b": (1, 1),
            "free": (0, 0),
            "embedding": {"prices": {"input_mtok": 1}},
            "dear": (10**9, 1),
            "pages": {
                "prices": {
                    "input_mtok": 1,
                    "output_mtok": 1,
                    "input_annotated_document_kpages": 1,
                    "requests_kcount": "9000000000",
                }
            },
        }
    )
    value, report = built(prices)
    assert set(value["models"]) == {"ok", "pages"}
    assert set(first(value, "pages")) == {"input_tokens", "output_tokens"}
    assert {(skip.model, skip.what) for skip in report.skipped} == {
        ("a/b", "model"),
        ("free", "model"),
        ("embedding", "model"),
        ("dear", "model"),
        ("pages", "price input_annotated_document_pages"),
        ("pages", "rate requests"),
    }


def test_nothing_to_price_is_no_table() -> None:
    with pytest.raises(Malformed, match="/models"):
        built(catalogue(openai={"free": (0, 0)}))
    for wrong in ("0", "-1", "1e-3", ""):
        with pytest.raises(Malformed, match="amount_malformed"):
            built(catalogue(openai={"m": (1, 1)}), usd_per_cu=wrong)


def test_aliases_are_ids_named_in_full_or_known_to_be_in_use() -> None:
    def model(**rule: Any) -> dict[str, Any]:
        return {"match": rule, "prices": {"input_mtok": 1, "output_mtok": 1}}

    names = [{"equals": "m"}, {"equals": "m-1"}, {"equals": "both"}, {"equals": "x/m"}]
    providers = [
        {"id": "cohere", "model_match": {"starts_with": "z"}, "models": [{"id": "z", **model(starts_with="m")}]},
        {
            "id": "openai",
            "model_match": {"starts_with": "m"},
            "models": [{"id": "m", **model(**{"or": names})}, {"id": "n", **model(**{"or": [{"equals": "both"}]})},
                       {"id": "k", **model(starts_with="m-2")}],
        },
    ]  # fmt: skip
    value, report = built(from_providers(SOURCE, providers), known_ids=("m-1", "m-2026-01-01", "m-3", "other", "n"))
    assert value["aliases"] == {"m-1": "m", "m-2026-01-01": "k"}
    assert [(skip.model, skip.what) for skip in report.skipped] == [("both", "alias")]


def test_the_first_of_two_catalogues_goes_before_the_second() -> None:
    later = from_providers(Source("later", "2", SOURCE.sha256, AT), [
        {"id": "openai", "models": [{"id": name, "prices": {"input_mtok": 2, "output_mtok": 2}} for name in ("m", "n")]}
    ])  # fmt: skip
    data, report = build(
        [catalogue(openai={"m": (1, 1)}), later], version=1, parent=None, effective_from=AT, as_of=AT, usd_per_cu="1"
    )
    value = json.loads(data)
    assert (first(value, "m")["input_tokens"], first(value, "n")["input_tokens"]) == (1_000_000, 2_000_000)
    assert value["sources"][1] == {
        "id": "later",
        "version": "2",
        "sha256": SOURCE.sha256,
        "read_at": "2026-11-22T00:00:00Z",
    }
    assert [(skip.model, skip.reason) for skip in report.skipped] == [("m", "is listed before, by list")]


def test_a_next_version_names_its_parent() -> None:
    value, _ = built(catalogue(openai={"m": (1, 1)}), version=2, parent=SOURCE.sha256)
    assert (value["version"], value["parent"]) == (2, SOURCE.sha256)
    with pytest.raises(Malformed, match="/parent"):
        built(catalogue(openai={"m": (1, 1)}), version=2)


def recomputed(value: dict[str, Any], model: str, tier: str, above: int) -> dict[str, int]:
    """The rates of a band from nothing but the derivation in the same document."""
    hosts: list[dict[str, Fraction]] = []
    for host in value["models"][model]["derivation"]["hosts"]:
        posted = [{"tier": "standard", "above_input_tokens": 0, "usd_per_million": host["usd_per_million"]}]
        posted += host.get("further", [])
        fitting = [entry for entry in posted if entry["tier"] == tier and entry["above_input_tokens"] <= above]
        if fitting:
            prices = max(fitting, key=lambda entry: entry["above_input_tokens"])["usd_per_million"]
            hosts.append({meter: Fraction(price) for meter, price in prices.items()})
    found = {}
    for meter in METERS:
        own = [next((host[name] for name in market.lineage(meter) if name in host), None) for host in hosts]
        if any(meter in host for host in hosts):
            middle = market.median([price for price in own if price is not None])
            found[meter] = market.rate_of(middle, Fraction(value["base"]["usd_per_cu"]))
    return found


def check(value: dict[str, Any], report: Any) -> None:
    large = {"openai", "anthropic", "google", "mistral", "deepseek", "x-ai", "cohere"}
    assert large <= report.models.keys()
    assert first(value, "gpt-5")["input_tokens"] == 277777778
    assert first(value, "gpt-5")["output_tokens"] == 2222222222
    assert first(value, "gpt-5")["cache_read_tokens"] == 27777778
    sonnet = first(value, "claude-sonnet-4-5")
    assert [sonnet[f"{name}_tokens"] for name in ("input", "cache_read", "output", "cache_write")] == [
        666666667,
        66666667,
        3333333333,
        833333333,
    ]
    deepseek = first(value, "deepseek-chat")
    assert (deepseek["input_tokens"], deepseek["output_tokens"]) == (60_000_000, 244_444_444)
    assert value["aliases"]["gpt-5-2025-08-07"] == "gpt-5"
    assert value["aliases"]["claude-sonnet-4-5-20250929"] == "claude-sonnet-4-5"
    for model, entry in value["models"].items():
        for tier, bands in entry["tiers"].items():
            for band in bands["bands"]:
                assert recomputed(value, model, tier, band["above_input_tokens"]) == band["rates"], (model, tier)


def test_the_installed_catalogue_builds_and_every_rate_follows_from_its_derivation() -> None:
    value, report = built(read_prices())
    check(value, report)
    assert {"standard", "batch", "flex", "priority"} <= set(value["models"]["gpt-5"]["tiers"])


@pytest.mark.shared
def test_the_shared_catalogue_builds_and_charges_the_worked_example() -> None:
    prices = read_prices(shared("prices/genai_prices_data.json.gz"))
    value, report = built(prices)
    check(value, report)
    assert report.priced > 250
    data, _ = build(prices, version=1, parent=None, effective_from=AT, as_of=AT)
    charge = rating.rate(
        rates.parse(data), "gpt-5", "standard", "completed", {"input_tokens": 1155, "output_tokens": 211}, AT
    )
    assert isinstance(charge, rating.Charge)
    assert charge.pico == 789_722_222_432


def test_building_twice_gives_the_same_bytes() -> None:
    prices = read_prices()
    options: dict[str, Any] = {"version": 1, "parent": None, "effective_from": AT, "as_of": AT}
    assert build(prices, **options)[0] == build(prices, **options)[0]
