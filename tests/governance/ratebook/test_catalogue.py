from __future__ import annotations

import gzip
import hashlib
import json
from datetime import date, time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from governance.ratebook.catalogue import Catalogue, Dated, Price, Variant, read_prices
from settlement.core.errors import Malformed
from tests.shared import shared


def read(tmp_path: Path, value: object, name: str = "prices.json") -> Catalogue:
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return read_prices(path)


def one(tmp_path: Path, model: dict[str, Any]) -> Catalogue:
    return read(tmp_path, [{"id": "maker", "models": [{"id": "m", **model}]}])


def test_numbers_are_read_from_their_text_and_never_through_a_float(tmp_path: Path) -> None:
    text = '[{"id":"v","models":[{"id":"m","prices":{"input_mtok":0.1,"output_mtok":"3e-05","requests_kcount":5}}]}]'
    (listing,) = read(tmp_path, text).listings
    assert listing.candidates[0].prices == {
        "input_tokens": Price(Fraction(1, 10)),
        "output_tokens": Price(Fraction(3, 100000)),
        "requests": Price(Fraction(5000)),
    }


def test_steps_dates_hours_and_tiers(tmp_path: Path) -> None:
    stepped = {"base": 1, "tiers": [{"start": 272000, "price": "4.5"}, {"start": 128000, "price": 2}]}
    model = {
        "match": {"equals": "m"},
        "prices": [
            {"prices": {"input_mtok": stepped}},
            {"constraint": {"start_date": "2026-01-31"}, "prices": {"input_mtok": 3}},
            {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00+00:00"}, "prices": {"input_mtok": 4}},
        ],
        "price_variants": [
            {"when": {"service_tier": "default"}, "prices": {}},
            {"when": {"processing": "batch"}, "prices": {"input_mtok": 2}},
        ],
    }
    found = one(tmp_path, model)
    (listing,) = found.listings
    steps = ((128000, Fraction(2)), (272000, Fraction(9, 2)))
    assert listing.candidates == (
        Dated({"input_tokens": Price(Fraction(1), steps)}),
        Dated({"input_tokens": Price(Fraction(3))}, start_date=date(2026, 1, 31)),
        Dated({"input_tokens": Price(Fraction(4))}, hours=(time(0, 30), time(16, 30))),
    )
    assert listing.variants == (Variant("batch", Dated({"input_tokens": Price(Fraction(2))})),)
    assert found.skipped == ()


BAD_AMOUNTS: tuple[object, ...] = (-1, "-0.1", "NaN", "Infinity", "x", "", True, [], {}, {"base": 1}, "1e999")
ODD: list[tuple[dict[str, Any], str]] = [
    ({}, "has no prices"),
    ({"prices": []}, "has no prices"),
    ({"prices": "free"}, "are not an object"),
    ({"prices": {"audio_hours": 1}}, "not in the registry"),
    *(({"prices": {"input_mtok": value}}, "is not an amount") for value in (*BAD_AMOUNTS, "1e-999999", "1" * 50)),
    ({"prices": {"input_mtok": {"base": 1, "tiers": [{"start": -1, "price": 1}]}}}, "is not an amount"),
    ({"prices": {"input_mtok": {"base": 1, "tiers": [{"start": 1.5, "price": 1}]}}}, "is not an amount"),
    ({"prices": [{"constraint": {"moon": "full"}, "prices": {}}]}, "condition that is not known"),
    ({"prices": [{"constraint": {"start_date": "soon"}, "prices": {}}]}, "condition that is not known"),
    (
        {"prices": [{"constraint": {"start_time": "00:00:00+02:00", "end_time": "01:00:00Z"}, "prices": {}}]},
        "condition that is not known",
    ),
    ({"prices": {}, "price_variants": [{"when": {"region": "eu"}, "prices": {}}]}, "not a service tier"),
    ({"prices": {}, "price_variants": [7]}, "not a service tier"),
]


@pytest.mark.parametrize(("model", "reason"), ODD)
def test_what_is_not_understood_is_listed_with_its_reason(tmp_path: Path, model: dict[str, Any], reason: str) -> None:
    found = one(tmp_path, model)
    assert any(reason in skip.reason and skip.model == "m" for skip in found.skipped), found.skipped
    assert all(dated.prices == {} for listing in found.listings for dated in listing.candidates)


def test_unknown_fields_and_other_shapes_are_taken(tmp_path: Path) -> None:
    wrapped = {
        "format": 9,
        "providers": [{"id": "v", "new": 1, "models": {"m": {"prices": {"input_mtok": 1}, "x": 2}}}],
    }
    (listing,) = read(tmp_path, wrapped).listings
    assert (listing.vendor, listing.model) == ("v", "m")
    found = read(tmp_path, [7, {"id": 8}, {"id": "w", "models": [9, {"id": "a b", "prices": {}}]}, {"id": "x"}])
    assert found.listings == ()
    assert len(found.skipped) == 4


def test_the_source_is_known_by_the_digest_of_what_was_read(tmp_path: Path) -> None:
    data = b'[{"id":"v","models":[]}]'
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(data))
    source = read_prices(tmp_path / "p.json.gz").source
    assert (source.id, source.sha256) == ("genai-prices", "sha256:" + hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("data", [b"[", b'{"a":1}', b"\x1f\x8b\x08", b"\xff\xfe", b"", b"a,b\n1,2\n", b"[" * 99999])
def test_unreadable_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(Malformed, match="prices_unreadable"):
        read_prices(tmp_path / "p")
    with pytest.raises(Malformed, match="prices_unreadable"):
        read_prices(tmp_path / "absent")


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.gz").write_bytes(gzip.compress(b"[" + b" " * (64 * 1024 * 1024)))
    with pytest.raises(Malformed, match="is larger than"):
        read_prices(tmp_path / "p.gz")


def test_a_csv_file(tmp_path: Path) -> None:
    text = """Provider,model,field,usd_per_million
v,m,input_tokens,0.1
v,m,output_mtok,2e-01
v,m,text_tokens.long_context.input_per_million,0.2
v,m,text_tokens.long_context_threshold,200000
v,m,text_tokens.long_context.cache_read_input_per_million,0.3
v,m,input_tokens,9
v,m,moons,9
v,m,web_searches,-1
v,n,text_tokens.long_context.input_per_million,1
short
v,two words,input_tokens,1
"""
    found = read(tmp_path, text, "list-2026.csv")
    assert found.source.id == "list-2026"
    first, second = found.listings
    assert first.candidates[0].prices == {
        "input_tokens": Price(Fraction(1, 10), ((200000, Fraction(1, 5)),)),
        "output_tokens": Price(Fraction(1, 5)),
    }
    assert second.candidates[0].prices == {}
    assert len(found.skipped) == 7


def test_the_installed_package_reads_without_a_surprise() -> None:
    found = read_prices()
    assert found.source.version is not None
    assert len(found.listings) > 1000
    reasons = {skip.reason.split(" by ")[0] for skip in found.skipped}
    assert reasons <= {
        "is for a meter that is not in the registry",
        "has no id that a usage record can carry",
        "is chosen",
    }


@pytest.mark.shared
def test_the_shared_files_read_without_a_surprise() -> None:
    found = read_prices(shared("prices/genai_prices_data.json.gz"))
    assert len(found.listings) == 1199
    assert found.skipped == ()
    assert len(read_prices(shared("prices/ruby_llm_models_pricing_2026-08.csv.gz")).listings) > 500
