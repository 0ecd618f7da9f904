"""The table of outcomes: on small exchanges, and on the recorded ones when they are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from settlement.meter.exchanges import Exchange, UsageEvent, read_exchanges
from settlement.meter.normaliser import FLAGS, REFUSALS
from settlement.meter.outcomes import lines, tabulate
from tests.shared import shared

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "meter.md"


def one(vendor: str, usage: dict[str, int], status: int = 200) -> Exchange:
    return Exchange(vendor, status=status, usage=(UsageEvent(0, None, "usage", usage),))


def test_rows_count_every_exchange_once() -> None:
    rows = tabulate(
        [
            one("b", {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
            one("a", {"prompt_tokens": 1, "total_tokens": 5}),
            one("a", {}, 500),
            one("a", {"tokens": 7}),
        ]
    )
    assert list(rows) == ["a", "b", "all"]
    assert rows["a"].document() == {
        "exchanges": 3,
        "exact": 0,
        "flagged": 1,
        "refused": 2,
        "checked": 1,
        "names": {"derived_from_total": 1, "error_answer": 1, "unknown_shape": 1},
        "unread": {},
    }
    assert lines(rows)[-1] == "| all | 4 | 1 | 2 | 1 | 2 | derived_from_total 1, error_answer 1, unknown_shape 1 |"


@pytest.mark.shared
def test_all_recorded_exchanges_end_as_the_page_says() -> None:
    data = shared("usage/interactions.jsonl.gz").read_bytes()
    rows = tabulate(read_exchanges(data))
    assert rows["all"].exchanges == 2705
    assert rows["all"].exact + rows["all"].flagged + rows["all"].refused == 2705
    shown = re.search(r"(\| vendor \|.*?\n)\n", PAGE.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    assert shown.group(1).splitlines() == lines(rows)


def test_every_refusal_and_flag_is_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    for name, meaning in {**REFUSALS, **FLAGS}.items():
        assert f"| `{name}` | {meaning}" in text
