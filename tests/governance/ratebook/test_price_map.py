"""A LiteLLM price map: fields by their names, tiers and thresholds in them, money from its text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from governance.ratebook import market
from governance.ratebook.catalogue import Catalogue, Price, read_prices
from governance.ratebook.document import build
from settlement.core import rates

AT = datetime(2026, 11, 22, tzinfo=UTC)
GPT: dict[str, Any] = {
    "litellm_provider": "openai",
    "mode": "chat",
    "input_cost_per_token": 1.25e-06,
    "output_cost_per_token": 1e-05,
    "cache_read_input_token_cost": 1.25e-07,
    "input_cost_per_token_above_272k_tokens": 2.5e-06,
    "output_cost_per_token_above_272k_tokens": 1.5e-05,
    "cache_read_input_token_cost_above_272k_tokens": 2.5e-07,
    "input_cost_per_token_batches": 6.25e-07,
    "output_cost_per_token_priority": 1.76e-05,
    "search_context_cost_per_query": {"low": 0.01},
    "max_tokens": 128000,
}


def catalogue(folder: Path, value: dict[str, Any]) -> Catalogue:
    path = folder / "map.json"
    path.write_text(json.dumps(value), "utf-8")
    return read_prices(path)


def test_every_price_is_understood_or_listed(tmp_path: Path) -> None:
    found = catalogue(tmp_path, {"sample_spec": {"litellm_provider": "x"}, "gpt-5": GPT})
    assert (found.source.id, found.source.sha256[:7]) == ("litellm", "sha256:")
    (listing,) = found.listings
    tiers = market.tiers_of(listing, AT)
    assert tiers["standard"]["input_tokens"] == Price(Fraction("1.25"), ((272_000, Fraction("2.5")),))
    assert tiers["standard"]["cache_read_tokens"].base == Fraction("0.125")
    assert tiers["batch"]["input_tokens"] == Price(Fraction("0.625"))
    assert tiers["batch"]["output_tokens"].base == 10
    assert tiers["priority"]["output_tokens"] == Price(Fraction("17.6"))
    assert [skip.what for skip in found.skipped] == ["price search_context_cost_per_query"]


def test_vendors_have_one_name_and_ids_lose_their_vendor(tmp_path: Path) -> None:
    value = {
        "vertex_ai/model-a": GPT | {"litellm_provider": "vertex_ai-language-models"},
        "fireworks_ai/model-b": GPT | {"litellm_provider": "fireworks_ai"},
        "bedrock/model-d": GPT | {"litellm_provider": "bedrock_converse"},
        "model c": GPT,
        "whisper": GPT | {"mode": "audio_transcription"},
        "empty": {"litellm_provider": "openai", "mode": "chat"},
    }
    found = catalogue(tmp_path, value)
    assert [(each.vendor, each.model) for each in found.listings] == [
        ("vertexai", "vertex_ai/model-a"),
        ("fireworks", "model-b"),
        ("aws", "bedrock/model-d"),
    ]
    reasons = {skip.model: skip.reason for skip in found.skipped if skip.what == "model"}
    assert set(reasons) == {"model c", "whisper", "empty"}


def test_a_table_is_built_from_a_map_alone(tmp_path: Path) -> None:
    found = catalogue(tmp_path, {"gpt-5": GPT})
    document, report = build(found, version=1, parent=None, effective_from=AT, as_of=AT)
    table = rates.parse(document)
    bands = table.models["gpt-5"].tiers["standard"].bands
    assert [(band.above_input_tokens, band.rates["input_tokens"]) for band in bands] == [
        (0, 277777778),
        (272_000, 555555556),
    ]
    assert report.models == {"openai": 1}


def test_sources_that_differ_by_more_than_five_percent_are_reported(tmp_path: Path) -> None:
    first = catalogue(tmp_path, {"gpt-5": GPT})
    for usd, told in ((1.31e-06, False), (1.32e-06, True)):
        second = catalogue(tmp_path, {"gpt-5": GPT | {"input_cost_per_token": usd}})
        _, report = build([first, second], version=1, parent=None, effective_from=AT, as_of=AT)
        assert [(each.vendor, each.meter, each.usd, each.other_usd) for each in report.contradictions] == (
            [("openai", "input_tokens", "1.25", "1.32")] if told else []
        )
        assert f"sources that differ by more than 5 %: {int(told)}" in report.text()
