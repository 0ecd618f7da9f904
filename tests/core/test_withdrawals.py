"""The rules of withdrawals are ordered, or they are none."""

from __future__ import annotations

from typing import Any

import pytest

from settlement.core import sections
from settlement.core.withdrawals import WithdrawalRules


def test_the_defaults_hold_and_come_back_from_the_document() -> None:
    rules = WithdrawalRules()
    assert sections.read(WithdrawalRules, sections.members(rules)) == rules
    assert rules.fee < rules.minimum


@pytest.mark.parametrize(
    "change",
    [{"fee": -1}, {"fee": 222_222_222}, {"minimum": 0, "fee": 0}, {"daily_limit": 1}, {"daily_total": 1}],
)
def test_rules_that_contradict_each_other_are_refused(change: Any) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        WithdrawalRules(**change)
