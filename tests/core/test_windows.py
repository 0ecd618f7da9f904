"""The length of windows in a policy."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core import sections
from settlement.core.windows import WindowRules


def test_it_stands_in_a_policy_in_seconds() -> None:
    rules = WindowRules(timedelta(hours=6))
    assert sections.members(rules) == {"span_seconds": 21_600}
    assert sections.read(WindowRules, sections.members(rules)) == rules


@pytest.mark.parametrize("seconds", [0, -1, 366 * 86_400 + 1])
def test_a_window_is_neither_empty_nor_endless(seconds: int) -> None:
    with pytest.raises(ValueError, match="366 days"):
        WindowRules(timedelta(seconds=seconds))
