"""Columns say of whole reports what the scalar functions say of each value: for good, odd and broken ones alike."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import columns, times
from settlement.core.errors import Malformed
from settlement.core.ids import micros

WIDTHS = (0, 3, 6)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds


def written(at: datetime, places: int) -> str:
    whole = times.text(at.replace(microsecond=0)).removesuffix("Z")
    return f"{whole}.{at.microsecond:06d}"[: 20 + places] + "Z" if places else f"{whole}Z"


@st.composite
def odd_times(draw: st.DrawFn) -> str:
    """A time, perhaps with one character changed, lost or added."""
    text = written(draw(MOMENTS), draw(st.sampled_from((0, 1, 3, 6))))
    place = draw(st.integers(0, len(text) - 1))
    return draw(
        st.sampled_from(
            [
                text,
                text,
                text,
                text[:place] + draw(st.sampled_from("0123456789:-TZ./é")) + text[place + 1 :],
                text[:place] + text[place + 1 :],
                text[:place] + "0" + text[place:],
            ]
        )
    )


@given(st.lists(MOMENTS, min_size=1, max_size=20), st.sampled_from(WIDTHS))
def test_times_of_one_width(moments: list[datetime], places: int) -> None:
    values = [written(at, places) for at in moments]
    assert columns.time_column(values).tolist() == [micros(times.parse(value)) for value in values]


@given(st.lists(odd_times(), min_size=1, max_size=8))
def test_odd_times_are_read_or_refused_as_one_by_one(values: list[str]) -> None:
    expected: list[int] = []
    wrong: list[int] = []
    for line, value in enumerate(values):
        try:
            expected.append(micros(times.parse(value)))
        except Malformed:
            wrong.append(line)
    if wrong:
        with pytest.raises(Malformed) as caught:
            columns.time_column(values)
        assert [problem.pointer for problem in caught.value.problems] == [f"/records/{line}/at" for line in wrong]
    else:
        assert columns.time_column(values).tolist() == expected


@pytest.mark.parametrize("width", [20, 24, 27])
@pytest.mark.parametrize(
    "value",
    [
        "2026-02-29T00:00:00",
        "2100-02-29T00:00:00",
        "2026-04-31T00:00:00",
        "2026-00-01T00:00:00",
        "2026-01-00T00:00:00",
        "0000-01-01T00:00:00",
        "2026-01-01T24:00:00",
        "2026-01-01T00:60:00",
        "2026-01-01T00:00:60",
        "2026-01-01 00:00:00",
    ],
)
def test_times_that_do_not_exist(value: str, width: int) -> None:
    fraction = {20: "", 24: ".000", 27: ".000000"}[width]
    with pytest.raises(Malformed):
        columns.time_column([f"2026-01-01T00:00:00{fraction}Z", f"{value}{fraction}Z"])


def test_leap_days_and_the_ends_of_time() -> None:
    values = ["2000-02-29T00:00:00Z", "2024-02-29T23:59:59Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
    assert columns.time_column(values).tolist() == [micros(times.parse(value)) for value in values]


@st.composite
def uuids(draw: st.DrawFn) -> str:
    """A UUIDv7, as text."""
    number = draw(st.integers(0, 2**128 - 1)) & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(UUID(int=number))


@given(st.lists(uuids(), min_size=1, max_size=30))
def test_ids(values: list[str]) -> None:
    packed, milliseconds = columns.uuid7_column(values)
    assert [bytes(row) for row in packed] == [UUID(value).bytes for value in values]
    assert milliseconds.tolist() == [UUID(value).int >> 80 for value in values]


@given(st.lists(uuids(), min_size=1, max_size=6), st.data())
def test_broken_ids_are_pointed_at(values: list[str], data: st.DataObject) -> None:
    """One character is changed: either it is a UUIDv7 still, in lower case, or its line is named."""
    line, place = data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(0, 35))
    text = values[line]
    values[line] = text[:place] + data.draw(st.sampled_from("0189afAFgz- é\x00")) + text[place + 1 :]
    try:
        sound = str(UUID(values[line])) == values[line] and UUID(values[line]).version == 7
    except ValueError:
        sound = False
    if sound:
        assert bytes(columns.uuid7_column(values)[0][line]) == UUID(values[line]).bytes
    else:
        with pytest.raises(Malformed) as caught:
            columns.uuid7_column(values)
        assert [problem.pointer for problem in caught.value.problems] == [f"/records/{line}/id"]


@pytest.mark.parametrize(
    "value", ["", "0", "{018f6b1e-0000-7000-8000-000000000000}", "018f6b1e000070008000000000000000"]
)
def test_ids_of_another_length(value: str) -> None:
    """Also when two wrong lengths add up to two right ones."""
    good = "018f6b1e-0000-7000-8000-000000000000"
    for values in ([good, value], [good[:-1], good + "0"]):
        with pytest.raises(Malformed, match="UUIDv7"):
            columns.uuid7_column(values)


def test_problems_are_capped() -> None:
    with pytest.raises(Malformed) as caught:
        columns.uuid7_column(["x"] * 10_000)
    assert len(caught.value.problems) == 20
    with pytest.raises(Malformed) as caught:
        columns.time_column(["x"] * 10_000)
    assert len(caught.value.problems) == 20
