"""RFC 3339 in UTC: exact both ways, one spelling of UTC, and no times that do not exist."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import times
from settlement.core.errors import Malformed


@given(st.datetimes(timezones=st.just(UTC)))
def test_round_trip(at: datetime) -> None:
    assert times.parse(times.text(at)) == at
    assert times.text(at).endswith("Z")


@given(st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1)), st.integers(-840, 840))  # noqa: DTZ001 - hypothesis wants naive bounds
def test_other_zones_are_written_in_utc(local: datetime, minutes: int) -> None:
    at = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert times.parse(times.text(at)) == at


def test_fraction_is_left_out_when_zero_and_may_be_short() -> None:
    assert times.text(datetime(2026, 11, 22, tzinfo=UTC)) == "2026-11-22T00:00:00Z"
    assert times.parse("2026-11-22T00:00:00.5Z") == datetime(2026, 11, 22, 0, 0, 0, 500_000, UTC)
    assert times.parse("2024-02-29T23:59:59.000001Z").microsecond == 1


@pytest.mark.parametrize(
    "value",
    [
        "",
        "2026-11-22",
        "2026-11-22T00:00:00",
        "2026-11-22T00:00:00+00:00",
        "2026-11-22t00:00:00Z",
        "2026-11-22T00:00:00z",
        "2026-11-22 00:00:00Z",
        "2026-11-22T00:00:00.Z",
        "2026-11-22T00:00:00.1234567Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T00:00:60Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-11-22T00:00:00Z\n",
        "٢٠٢٦-11-22T00:00:00Z",
        "+2026-11-22T00:00:00Z",
        "2026-11-22T00:00:00,5Z",
    ],
)
def test_what_is_no_time(value: str) -> None:
    with pytest.raises(Malformed) as caught:
        times.parse(value)
    assert caught.value.code == "time_malformed"
