"""Rate tables: what parses, and everything that must not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from settlement.core import canonical, rates, tiers
from settlement.core.errors import Malformed

DIGEST = "sha256:" + "ab" * 32


def document() -> dict[str, Any]:
    """A small valid table, for tests to break."""
    rated = {"input_tokens": 277777778, "cache_read_tokens": 27777778, "output_tokens": 2222222222}
    long = {"input_tokens": 555555556, "cache_read_tokens": 55555556, "output_tokens": 3333333333}
    host = {
        "source": "catalogue",
        "vendor": "maker",
        "usd_per_million": {"input_tokens": "1.25", "cache_read_tokens": "0.125", "output_tokens": "10"},
        "further": [{"tier": "standard", "above_input_tokens": 272000, "usd_per_million": {"input_tokens": "2.5"}}],
    }
    return {
        "type": "rates/1",
        "version": 2,
        "parent": DIGEST,
        "effective_from": "2026-11-22T00:00:00Z",
        "base": {"usd_per_cu": "0.0045"},
        "sources": [{"id": "catalogue", "version": "1", "sha256": DIGEST, "read_at": "2026-11-20T00:00:00Z"}],
        "meters": {
            "input_tokens": {"parent": None, "unit": "token"},
            "cache_read_tokens": {"parent": "input_tokens", "unit": "token"},
            "cache_audio_read_tokens": {"parent": "cache_read_tokens", "unit": "token"},
            "output_tokens": {"parent": None, "unit": "token"},
            "output_reasoning_tokens": {"parent": "output_tokens", "unit": "token"},
            "web_searches": {"parent": None, "unit": "search"},
            "requests": {"parent": None, "unit": "request"},
        },
        "models": {
            "gpt-5": {
                "tiers": {
                    "standard": {
                        "bands": [
                            {"above_input_tokens": 0, "rates": rated},
                            {"above_input_tokens": 272000, "rates": long},
                        ]
                    }
                },
                "derivation": {"method": "market", "hosts": [host]},
            }
        },
        "aliases": {"gpt-5-2025-08-07": "gpt-5"},
    }


def test_a_table_is_parsed() -> None:
    data = canonical.encode(document())
    table = rates.parse(data)
    assert (table.version, table.parent, table.digest) == (2, DIGEST, canonical.digest(data))
    assert table.effective_from == datetime(2026, 11, 22, tzinfo=UTC)
    assert table.meters["cache_read_tokens"] == tiers.Meter("cache_read_tokens", "input_tokens", "token")
    bands = table.models["gpt-5"].tiers["standard"].bands
    assert [band.above_input_tokens for band in bands] == [0, 272000]
    assert bands[1].rates["output_tokens"] == 3333333333


def test_parents_come_before_their_children() -> None:
    table = rates.parse(canonical.encode(document()))
    order = list(table.meters)
    for meter in table.meters.values():
        assert meter.parent is None or order.index(meter.parent) < order.index(meter.name)


def test_models_are_found_by_exact_name_or_alias_only() -> None:
    table = rates.parse(canonical.encode(document()))
    assert table.resolve("gpt-5") == "gpt-5"
    assert table.resolve("gpt-5-2025-08-07") == "gpt-5"
    for other in ("gpt-5-2025-08-08", "GPT-5", "gpt-5 ", "gpt", ""):
        assert table.resolve(other) is None


def test_a_first_table_has_no_parent() -> None:
    value = document() | {"version": 1, "parent": None}
    assert rates.parse(canonical.encode(value)).parent is None


def test_other_methods_bring_inputs_of_their_own() -> None:
    value = document()
    value["models"]["gpt-5"]["derivation"] = {"method": "blend", "alpha": "0.5", "fit": {"n": 29}}
    rates.parse(canonical.encode(value))


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(target: Any) -> None:
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(target: Any) -> None:
        for step in path[:-1]:
            target = target[step]
        del target[path[-1]]

    return change


def hours(since: str, until: str, multiplier: str = "0.5") -> dict[str, str]:
    return {"from": since, "until": until, "multiplier": multiplier}


MODEL = ("models", "gpt-5")
TIER = (*MODEL, "tiers", "standard")
BANDS = (*TIER, "bands")
HOST = (*MODEL, "derivation", "hosts", 0)

HOSTILE = [
    *((drop(name), f"/{name}") for name in document()),
    (put("surprise", value=1), "/surprise"),
    (put("type", value="rates/2"), "/type"),
    (put("version", value=0), "/version"),
    (put("version", value=True), "/version"),
    (put("version", value="2"), "/version"),
    (put("version", value=1), "/parent"),
    (put("parent", value=None), "/parent"),
    (put("parent", value="sha256:" + "AB" * 32), "/parent"),
    (put("effective_from", value="2026-11-22T00:00:00+01:00"), "/effective_from"),
    (put("effective_from", value="2026-02-30T00:00:00Z"), "/effective_from"),
    (put("base", "usd_per_cu", value="0.0"), "/base/usd_per_cu"),
    (put("base", "usd_per_cu", value="-1"), "/base/usd_per_cu"),
    (put("base", "more", value="1"), "/base/more"),
    (put("sources", value=[]), "/sources"),
    (put("sources", 0, "sha256", value="x"), "/sources/0/sha256"),
    (put("sources", 0, "url", value="x"), "/sources/0/url"),
    (put("meters", value={}), "/meters"),
    (put("meters", "input_tokens", "parent", value="cache_read_tokens"), "/meters/cache_audio_read_tokens"),
    (put("meters", "input_tokens", "parent", value="input_tokens"), "/meters/cache_audio_read_tokens"),
    (put("meters", "output_tokens", "parent", value="nothing"), "/meters/output_reasoning_tokens"),
    (put("meters", "requests", "parent", value="output_tokens"), "/meters/requests"),
    (put("meters", "web_searches", "parent", value="requests"), "/meters/requests"),
    (put("meters", "Bad Name", value={"parent": None, "unit": "token"}), "/meters/Bad Name"),
    (put("meters", "web_searches", "scale", value=1), "/meters/web_searches/scale"),
    (put("models", value={}), "/models"),
    (put("models", "a b", value={}), "/models/a b"),
    (put(*MODEL, "tiers", value={}), "/models/gpt-5/tiers"),
    (put(*MODEL, "note", value="x"), "/models/gpt-5/note"),
    (drop(*MODEL, "derivation"), "/models/gpt-5/derivation"),
    (put(*MODEL, "derivation", value={"method": "market"}), "/models/gpt-5/derivation/hosts"),
    (put(*HOST, "usd_per_million", "input_tokens", value="1e3"), "/usd_per_million/input_tokens"),
    (put(*HOST, "further", 0, "tier", value=""), "/further/0/tier"),
    (put(*BANDS, value=[]), "/bands"),
    (put(*BANDS, 0, "above_input_tokens", value=1), "/bands/0/above_input_tokens"),
    (put(*BANDS, 1, "above_input_tokens", value=0), "/bands/1/above_input_tokens"),
    (put(*BANDS, 0, "rates", value={}), "/bands/0/rates"),
    (put(*BANDS, 0, "rates", "input_tokens", value=-1), "/bands/0/rates/input_tokens"),
    (put(*BANDS, 0, "rates", "input_tokens", value=10**13 + 1), "/bands/0/rates/input_tokens"),
    (put(*BANDS, 0, "rates", "input_tokens", value="1"), "/bands/0/rates/input_tokens"),
    (put(*BANDS, 0, "rates", "input_tokens", value=False), "/bands/0/rates/input_tokens"),
    (put(*BANDS, 0, "rates", "output_pixels", value=1), "/bands/0/rates/output_pixels"),
    (drop(*BANDS, 0, "rates", "input_tokens"), "/bands/0/rates/cache_read_tokens"),  # type: ignore[arg-type]
    (put(*BANDS, 1, "rates", "web_searches", value=1), "/bands/1/rates"),
    (put(*TIER, "context", value="part"), "/standard/context"),
    (put(*TIER, "context", value="excess"), "/bands/1/rates"),
    (put(*TIER, "minimum", value=-1), "/standard/minimum"),
    (put(*TIER, "minimum", value="1"), "/standard/minimum"),
    (put(*TIER, "hours", value=[]), "/standard/hours"),
    (put(*TIER, "hours", value=[hours("8:00", "09:00")]), "/hours/0/from"),
    (put(*TIER, "hours", value=[hours("08:00", "24:00")]), "/hours/0/until"),
    (put(*TIER, "hours", value=[hours("08:00", "08:00")]), "/hours/0"),
    (put(*TIER, "hours", value=[hours("22:00", "02:00"), hours("01:59", "03:00")]), "/hours/1"),
    (put(*TIER, "hours", value=[hours("08:00", "09:00", "0")]), "/hours/0/multiplier"),
    (put(*TIER, "hours", value=[hours("08:00", "09:00", "100.0001")]), "/hours/0/multiplier"),
    (put(*TIER, "hours", value=[hours("08:00", "09:00", "0.50")]), "/hours/0/multiplier"),
    (put(*TIER, "hours", value=[hours("08:00", "09:00", "1/2")]), "/hours/0/multiplier"),
    (put(*TIER, "hours", value=[hours("08:00", "09:00") | {"zone": "UTC"}]), "/hours/0/zone"),
    (put(*MODEL, "tokens_per_kilobyte", value={}), "/tokens_per_kilobyte"),
    (put(*MODEL, "tokens_per_kilobyte", value={"german": "1"}), "/tokens_per_kilobyte/german"),
    (put(*MODEL, "tokens_per_kilobyte", value={"code": 230}), "/tokens_per_kilobyte/code"),
    (put(*MODEL, "bounds", value={"max_bytes_per_token": 0}), "/bounds/max_bytes_per_token"),
    (put(*MODEL, "bounds", value={"max_fun": 1}), "/bounds/max_fun"),
    (put("aliases", "gpt-5", value="gpt-5"), "/aliases/gpt-5"),
    (put("aliases", "gpt-6", value="gpt-6-large"), "/aliases/gpt-6"),
    (put("aliases", "a/b~c", value="gpt-5-2025-08-07"), "/aliases/a~1b~0c"),
]


@pytest.mark.parametrize(("change", "place"), HOSTILE, ids=[f"{i}{place}" for i, (_, place) in enumerate(HOSTILE)])
def test_a_broken_table_is_refused_at_its_place(change: Callable[[dict[str, Any]], None], place: str) -> None:
    value = document()
    change(value)
    with pytest.raises(Malformed) as refusal:
        rates.parse(canonical.encode(value))
    assert refusal.value.code == "rate_table_malformed"
    assert refusal.value.problems[0].pointer.endswith(place)


def test_the_largest_rate_is_allowed() -> None:
    value = document()
    put(*BANDS, 0, "rates", "input_tokens", value=tiers.MAX_RATE)(value)
    rates.parse(canonical.encode(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"NaN",
        b"[" * 100_000,
        b'{"version":' + b"1" * 10_000 + b"}",
        json.dumps(document()).encode(),
        json.dumps(document(), sort_keys=True, separators=(",", ":")).encode() + b"\n",
        canonical.encode(document()).replace(b'"version":2', b'"version":2.0'),
        canonical.encode(document()).replace(b'"version":2', b'"version":1,"version":2'),
        canonical.encode(document()).replace(b"rates/1", b"rates\\/1"),
    ],
)
def test_bytes_that_are_not_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="rate_table_malformed"):
        rates.parse(data)


def test_a_table_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match="is larger than"):
        rates.parse(b" " * (rates.MAX_DOCUMENT_BYTES + 1))
