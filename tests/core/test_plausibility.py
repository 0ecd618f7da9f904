"""What the service notices: never an honest record, always one far beyond what was granted, asked for or possible."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.plausibility import NOTICES, SLACK, SPEED, Known, noticed

HOLD = Known(allowed=1_000, granted=512, milliseconds=2_000)
PAGE = Path(__file__).parents[2] / "docs/reference/meter.md"


@pytest.mark.parametrize(
    ("output", "more", "found"),
    [
        (512, {}, []),
        (512 + SLACK, {}, []),
        (513 + SLACK, {}, ["output_above_grant"]),
        (1_001 + SLACK, {}, ["output_above_limit", "output_above_grant"]),
        (2 * SPEED + SLACK + 1, {}, ["output_above_limit", "output_above_grant", "output_above_speed"]),
        (400, {"bounds": {"max_output_tokens_per_second": 100}}, ["output_above_speed"]),
        (400, {"bounds": {"max_output_tokens": 300}}, ["output_above_limit"]),
        (400, {"reasoning": 401}, ["reasoning_above_bound"]),
        (400, {"reasoning": 201, "bounds": {"max_reasoning_percent": 50}}, ["reasoning_above_bound"]),
        (400, {"reasoning": 200, "bounds": {"max_reasoning_percent": 50}}, []),
    ],
)
def test_what_is_noticed(output: int, more: dict[str, object], found: list[str]) -> None:
    meters = {"output_tokens": output, "output_reasoning_tokens": more.get("reasoning", 0)}
    # keywords or a stand-in of any type
    assert noticed(meters, more.get("bounds", {}), HOLD) == found  # type: ignore[arg-type]


def test_without_a_hold_only_what_the_model_gives_is_known() -> None:
    assert noticed({"output_tokens": 10**9}, {}, None) == []
    assert noticed({"output_tokens": 317}, {"max_output_tokens": 300}, None) == ["output_above_limit"]
    assert noticed({}, {}, Known(None, 0, 0)) == []


@given(st.integers(1, 10**6), st.integers(1, SPEED))
def test_honest_counts_are_never_noticed(milliseconds: int, speed: int) -> None:
    output = speed * milliseconds // 1000
    assert noticed({"output_tokens": output}, {}, Known(output, output, milliseconds)) == []


def test_every_notice_is_on_the_page() -> None:
    section = PAGE.read_text("utf-8").split("### What the service notices")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", section, re.MULTILINE)
    assert dict(rows) == NOTICES
