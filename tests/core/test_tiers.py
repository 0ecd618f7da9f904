"""A tier's terms as they are read; what is refused is in test_rates.py, what they cost in test_rating.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from settlement.core.tiers import Band, Hours, Meter, Tier, read_tier

METERS = {"input_tokens": Meter("input_tokens", None, "token"), "output_tokens": Meter("output_tokens", None, "token")}
FIRST: dict[str, Any] = {"above_input_tokens": 0, "rates": {"input_tokens": 1, "output_tokens": 4}}


def test_terms_that_are_not_given_change_nothing() -> None:
    assert read_tier({"bands": [FIRST]}, "", METERS) == Tier((Band(0, FIRST["rates"]),))
    assert Tier(()).multiplier_at(datetime(2026, 1, 1, tzinfo=UTC)) == 10_000


def test_all_terms_are_read() -> None:
    above = {"above_input_tokens": 9, "rates": {"input_tokens": 2}}
    night = {"from": "22:00", "until": "00:00", "multiplier": "0.75"}
    value = {"bands": [FIRST, above], "context": "excess", "minimum": 5, "hours": [night]}
    bands = (Band(0, FIRST["rates"]), Band(9, {"input_tokens": 2}))
    assert read_tier(value, "", METERS) == Tier(bands, True, 5, (Hours(22 * 60, 0, 7_500),))


@pytest.mark.parametrize(
    ("hours", "spans"),
    [
        (Hours(60, 120, 1), ((60, 120),)),
        (Hours(1320, 60, 1), ((1320, 1440), (0, 60))),
        (Hours(1320, 0, 1), ((1320, 1440),)),
    ],
)
def test_a_part_of_the_day_with_midnight_is_two_spans(hours: Hours, spans: tuple[tuple[int, int], ...]) -> None:
    assert hours.spans() == spans
