"""What documents are made of: cursors, numbers, times, and models that take nothing else."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from pydantic import TypeAdapter, ValidationError

from settlement.api import shapes
from settlement.core.errors import Malformed, NotFound
from tests.world import World


def test_a_cursor_names_its_list_and_its_row() -> None:
    for kind, value in (("pay", "01kamk5q0r8w0y2a4c6e8g0j2m"), ("ern", "12")):
        assert shapes.cursor_value(kind, shapes.cursor_text(kind, value)) == value
    assert shapes.cursor_number("ern", shapes.cursor_text("ern", 12)) == 12
    assert shapes.cursor_value("pay", None) is None
    assert shapes.cursor_number("pay", None) is None


def encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "=", encoded("ern_1"), encoded("pay_"), encoded("pay_1\n"), encoded("pay_%"), encoded("pay_" + "1" * 41)],
)
def test_what_is_no_cursor_of_this_list(cursor: str) -> None:
    with pytest.raises(Malformed, match="cursor_malformed"):
        shapes.cursor_value("pay", cursor)


@pytest.mark.parametrize("value", ["0", "01", "1000000000", "a1"])
def test_what_is_no_number_behind_a_cursor(value: str) -> None:
    with pytest.raises(Malformed, match="cursor_malformed"):
        shapes.cursor_number("pay", encoded(f"pay_{value}"))


def test_numbers_of_windows() -> None:
    assert shapes.window_number("win_17") == 17
    for text in ("17", "win_", "win_0", "win_017", "win_-1", "win_1 ", "win_1\n", "win_1000000000", "WIN_1", "win_١"):
        with pytest.raises(NotFound, match="unknown_window"):
            shapes.window_number(text)


def test_documents_from_outside_have_exactly_their_members_and_types() -> None:
    good = {"chain": "simulated", "asset": "USD:x", "address": "a", "reference": 2**63 - 1}
    assert shapes.PayoutIn.model_validate(good).reference == 2**63 - 1
    bad = [
        {**good, "more": 1},
        {**good, "reference": "1"},
        {**good, "reference": 1.0},
        {**good, "reference": 2**63},
        {**good, "reference": True},
        {**good, "address": ""},
        {"chain": "simulated", "asset": "USD:x"},
    ]
    for document in bad:
        with pytest.raises(ValidationError):
            shapes.PayoutIn.model_validate(document)


def test_times_are_utc_text() -> None:
    adapter = TypeAdapter(shapes.Time)
    assert adapter.validate_python("2026-11-22T00:00:00.5Z").microsecond == 500_000
    for value in (1_700_000_000, "2026-11-22", "2026-11-22T00:00:00+00:00", "2026-11-22T00:00:00.1234567Z", None):
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


@pytest.mark.database
async def test_an_amount_is_shown_in_its_assets_own_scale(world: World) -> None:
    usd = next(asset for asset in world.chain.facts.assets if asset.code == "USD")
    assert shapes.chain_amount(world.context, "simulated", usd.text, 12_500_000) == "12.5"
    assert shapes.chain_amount(world.context, "gone", usd.text, 12_500_000) == "12500000", "its scale isn't known here"
