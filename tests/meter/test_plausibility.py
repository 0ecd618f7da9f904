"""Counts that can't be true are flagged; honest ones are not, however an honest server cuts its answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.meter.exchanges import read_exchanges
from settlement.meter.normaliser import normalise
from settlement.meter.plausibility import FLAGS, Observed, implausible
from tests.shared import shared

HONEST = Observed(text_bytes=4400, pieces=1000, estimate=1012, milliseconds=20_000, limit=2000)


def flags(output: int, reasoning: int = 0, bounds: dict[str, int] | None = None, **seen: Any) -> tuple[str, ...]:
    meters = {"input_tokens": 9, "output_tokens": output, "output_reasoning_tokens": reasoning}
    values = {name: getattr(HONEST, name) for name in HONEST.__slots__} | seen
    return implausible(meters, Observed(**values), bounds or {})


def test_an_honest_count_has_no_flag() -> None:
    assert flags(1000) == ()
    assert flags(1500, reasoning=500) == ()


@pytest.mark.parametrize(
    ("found", "flag"),
    [
        (flags(200_000, milliseconds=10**9, limit=None), "output_above_bytes"),
        (flags(4200, limit=None), "output_above_estimate"),
        (flags(40), "output_below_bytes"),
        (flags(2100), "output_above_limit"),
        (flags(1000, milliseconds=50), "output_above_speed"),
        (flags(1000, milliseconds=9000, bounds={"max_output_tokens_per_second": 100}), "output_above_speed"),
        (flags(1500, reasoning=900, bounds={"max_reasoning_percent": 50}), "reasoning_above_bound"),
        (flags(1000, text_bytes=0, estimate=0), "output_without_text"),
    ],
)
def test_each_lie_has_its_flag(found: tuple[str, ...], flag: str) -> None:
    assert flag in found
    assert set(found) <= FLAGS.keys()


def test_an_answer_without_text_by_its_nature_is_not_measured_by_text() -> None:
    assert flags(1000, text_bytes=0, has_text=False) == ()
    meters = {"output_tokens": 1000, "output_audio_tokens": 990}
    assert implausible(meters, Observed(0, 0, 0, 10_000)) == ()


@given(st.integers(1, 5000), st.integers(100, 60_000))
def test_two_hundred_times_too_much_is_always_found(tokens: int, milliseconds: int) -> None:
    honest = Observed(4 * tokens, tokens, tokens, milliseconds)
    assert implausible({"output_tokens": 200 * tokens}, honest)


@pytest.mark.shared
def test_recorded_answers_are_hardly_ever_flagged() -> None:
    """Real usage beside the size of real answers: what is flagged has reasoning that its usage does not state."""
    seen = flagged = 0
    for exchange in read_exchanges(shared("usage/interactions.jsonl.gz").read_bytes()):
        normal = normalise(exchange)
        chars = exchange.output_chars or 0
        if not normal.uses or chars < 40:
            continue
        observed = Observed(chars, exchange.events, -(-chars * 230 // 1000), 10**6)
        seen += 1
        flagged += bool(implausible(normal.meters, observed))
    assert seen > 1400
    assert flagged * 100 < seen * 12, (flagged, seen)
