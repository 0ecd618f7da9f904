"""The dialects' data is whole: every extractor exists, every name means something, and each shape is its own."""

from __future__ import annotations

import json
from dataclasses import fields
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import Usage

from settlement.meter.dialects import DIALECTS, Unreadable, exact, milliseconds, read_usage, recognise
from tests.meter.test_normaliser import CASES


def extract_usage(provider: str, flavor: str, answer: dict[str, Any]) -> Usage:
    """genai-prices' own reading."""
    found = next(each for each in get_snapshot().providers if each.id == provider)
    return found.extract_usage(answer, api_flavor=flavor)[1]


def test_the_file_has_no_member_that_nothing_reads() -> None:
    data = json.loads(resources.files("settlement.meter").joinpath("dialects.json").read_text())
    known = {field.name for field in fields(DIALECTS[0])}
    assert {member for dialect in data["dialects"] for member in dialect} <= known
    assert {member for dialect in data["dialects"] for law in dialect.get("laws", ()) for member in law} <= {
        "sum",
        "more",
        "less",
    }
    names = [dialect.name for dialect in DIALECTS]
    assert len(set(names)) == len(names)


def test_every_extractor_is_one_of_genai_prices() -> None:
    for dialect in DIALECTS:
        if dialect.extractor is not None:
            provider, flavor = dialect.extractor
            with pytest.raises(ValueError, match=r"usage|response|Missing|Expected"):
                extract_usage(provider, flavor, {})


@pytest.mark.parametrize(
    ("case", "provider", "flavor"),
    [
        ("chat", "openai", "chat"),
        ("responses", "openai", "responses"),
        ("input without its cache", "anthropic", "default"),
        ("reasoning beside the completion", "x-ai", "chat"),
        ("a total that includes the cache", "aws", "default"),
    ],
)
def test_where_genai_prices_reads_a_shape_whole_we_read_the_same(case: str, provider: str, flavor: str) -> None:
    usage, meters = CASES[case]
    theirs = extract_usage(provider, flavor, {"model": "m", "usage": usage})
    assert {name: value for name, value in vars(theirs).items() if value} == meters


@pytest.mark.parametrize("name", CASES)
def test_a_shape_is_recognised_by_its_members_alone(name: str) -> None:
    found = recognise(CASES[name][0])
    assert found is not None
    assert read_usage(CASES[name][0], without_output=name in ("seconds", "searches", "pages")).dialect is found


@pytest.mark.parametrize(("value", "count"), [(5, 5), (5.0, 5), (Decimal("7.000"), 7), (0, 0)])
def test_counts_are_whole(value: Any, count: int) -> None:
    assert exact(value) == count


@pytest.mark.parametrize("value", [1.5, -1, float("nan"), float("inf"), 10**12 + 1, Decimal("1e999999")])
def test_what_is_no_count_is_not_read(value: Any) -> None:
    with pytest.raises(Unreadable):
        exact(value)


def test_seconds_are_milliseconds_a_half_to_even() -> None:
    assert [milliseconds(Decimal(each)) for each in ("2.5503333333333336", "0.0005", "0.0015", "37")] == [
        *(2550, 0, 2, 37000)
    ]
