"""Surcharges: what a day costs, and which days a notice covers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from settlement.core.surcharges import DAY, Day, Notice, SurchargeRules, needs_notice, noticed, subject

START = datetime(2026, 11, 22, tzinfo=UTC)
RULES = SurchargeRules(free=10, free_share=200_000, fee=1_000, most=50_000)


@pytest.mark.parametrize(
    ("holds", "unused", "due"),
    [(0, 0, 0), (10, 10, 0), (11, 11, 1_000), (50, 11, 1_000), (55, 11, 0), (59, 12, 1_000), (1_000, 260, 50_000)],
)
def test_a_day_costs_what_is_above_the_larger_of_number_and_share(holds: int, unused: int, due: int) -> None:
    assert RULES.due(Day(START, holds, unused)) == due
    assert SurchargeRules().due(Day(START, holds, unused)) == 0, "off at first"


def test_a_notice_covers_days_that_begin_after_its_time_and_lapses() -> None:
    late = noticed(START + timedelta(hours=26), RULES)
    assert late == Notice(START + 3 * DAY, START + 33 * DAY)
    assert noticed(START, RULES).since == START + DAY, "a day that begins exactly then"
    covered = [late.covers(START + days * DAY) for days in (2, 3, 32, 33)]
    assert covered == [False, True, True, False]
    assert [needs_notice(late, START + days * DAY) for days in (1, 3, 33)] == [False, False, True]
    assert needs_notice(None, START)
    assert Day(START, 1, 1).measured_at == START + timedelta(hours=26)
    assert subject("acc_a", START) == "acc_a/2026-11-22"


@pytest.mark.parametrize(
    "wrong",
    [
        {"free": -1},
        {"free_share": 1_000_001},
        {"fee": 2, "most": 1},
        {"notice": timedelta(minutes=59)},
        {"lapses": timedelta(hours=36)},
        {"lapses": timedelta(0)},
    ],
)
def test_rules_that_make_no_sense_are_no_rules(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"free is|notice is|whole days"):
        SurchargeRules(**wrong)
