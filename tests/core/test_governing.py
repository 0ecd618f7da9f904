"""The log's hash chain byte for byte, and rules that make no sense."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest

from settlement.core.governing import EMPTY, GovernanceRules, LogHead


def test_the_chain_is_what_the_reference_says() -> None:
    first = EMPTY.extended(b"{}")
    assert first == LogHead(1, sha256(b"CUG1" + bytes(7) + b"\x01" + bytes(32) + bytes(3) + b"\x02{}").digest())
    second = first.extended(b"{}")
    assert second.size == 2
    assert second.hash != first.hash
    assert EMPTY.extended(b"{} ").hash != first.hash


@pytest.mark.parametrize(
    "changed",
    [
        {"time_lock": timedelta(0)},
        {"time_lock": timedelta(days=3)},
        {"notice_addition": timedelta(hours=1)},
        {"notice_correction": timedelta(days=15)},
        {"step": Fraction(-1, 5)},
        {"step": Fraction(6, 5)},
        {"open_for": timedelta(0)},
        {"longest_pause": timedelta(0)},
        {"rates_valid": timedelta(0)},
    ],
)
def test_rules_that_would_switch_themselves_off_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"time-lock|notice|step|span"):
        GovernanceRules(**changed)
