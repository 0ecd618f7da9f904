"""Tables by the blend and by effort alone, on the installed prices: every rate follows from its derivation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import pytest

from governance.ratebook import effort, methods
from governance.ratebook.catalogue import read_prices
from governance.ratebook.document import build
from governance.ratebook.market import median
from settlement.core import rates
from settlement.core.errors import Malformed

AT = datetime(2026, 11, 22, tzinfo=UTC)


@cache
def models(method: effort.Method) -> dict[str, Any]:
    document, _ = build(read_prices(), version=1, parent=None, effective_from=AT, as_of=AT, method=method)
    rates.parse(document)
    found: dict[str, Any] = json.loads(document)["models"]
    return found


def test_closed_models_keep_the_market_and_open_ones_are_blended() -> None:
    blended = {name for name, each in models("blend").items() if each["derivation"]["method"] == "blend"}
    assert {"gpt-oss-120b", "llama-3.3-70b", "deepseek-v3"} <= blended <= set(methods.open_weights())
    assert models("blend")["gpt-5"] == models("market")["gpt-5"]


def test_every_blended_rate_follows_from_what_is_kept() -> None:
    for name, each in models("blend").items():
        kept = each["derivation"]
        if kept["method"] != "blend":
            continue
        hosts = [{meter: Fraction(usd) for meter, usd in host["usd_per_million"].items()} for host in kept["hosts"]]
        for meter in ("input_tokens", "output_tokens"):
            posted = median([host[meter] for host in hosts]) / Fraction("0.0045") * 10**6
            expected = round(round(posted) * Fraction(kept["factor"]))
            assert each["tiers"]["standard"]["bands"][0]["rates"][meter] == expected, name
        assert Decimal(kept["alpha"]) == methods.alpha_of(methods.open_weights()[name], len(hosts))
        weights = {key: Decimal(value) for key, value in kept["cu_per_1000_requests"].items()}
        blend = weights["hedonic"] ** Decimal(kept["alpha"]) * weights["market"] ** (1 - Decimal(kept["alpha"]))
        assert abs(blend / weights["weight"] - 1) < Decimal("0.001")


def test_the_fit_is_published_with_its_figures() -> None:
    (figures,) = {
        json.dumps(each["derivation"]["fit"]) for each in models("blend").values() if "fit" in each["derivation"]
    }
    found = json.loads(figures)
    assert found["models"] >= 20
    assert Decimal(found["r2"]) > max(Decimal(found["r2_active"]), Decimal(found["r2_total"]))


def test_by_effort_alone_prices_do_not_matter() -> None:
    each = models("flop")["llama-3.3-70b"]
    assert each["derivation"]["method"] == "flop"
    standard = each["tiers"]["standard"]["bands"][0]["rates"]
    assert standard == {
        meter: rate
        for meter, rate in methods.flop_rates(methods.open_weights()["llama-3.3-70b"]).items()
        if meter in standard
    }
    assert models("flop")["gpt-5"] == models("market")["gpt-5"]


def test_ids_of_hosts_become_aliases_of_the_one_name() -> None:
    document, _ = build(read_prices(), version=1, parent=None, effective_from=AT, as_of=AT, method="blend")
    table = rates.parse(document)
    assert table.resolve("llama-3.3-70b-versatile") == "llama-3.3-70b"
    assert table.resolve("deepseek-chat") == "deepseek-v3"


def test_without_a_basket_there_is_no_blend() -> None:
    few = {"gpt-5": models("market")["gpt-5"]}
    with pytest.raises(Malformed, match="basket_too_small"):
        effort.by_effort(few, Fraction("0.0045"), "blend")
