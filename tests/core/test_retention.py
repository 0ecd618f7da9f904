"""The section `retention` refuses what would lose evidence."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core.errors import Malformed
from settlement.core.retention import SHORTEST, RetentionRules

DAY = timedelta(days=1)


def test_rows_stay_as_long_as_a_record_may_come_twice() -> None:
    assert RetentionRules(keep_rows=SHORTEST).keep_rows == timedelta(days=37)
    with pytest.raises(ValueError, match="37 days"):
        RetentionRules(keep_rows=SHORTEST - timedelta(seconds=1))


@pytest.mark.parametrize(
    "wrong",
    [(90 * DAY, DAY, 89 * DAY), (90 * DAY, 3654 * DAY, 3653 * DAY), (90 * DAY, -DAY, 3653 * DAY)],
)
def test_evidence_stays_longest(wrong: tuple[timedelta, timedelta, timedelta]) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        RetentionRules(*wrong)


def test_a_data_map_is_named_by_its_digest() -> None:
    with pytest.raises(Malformed, match="digest_malformed"):
        RetentionRules(data_map="the new one")
