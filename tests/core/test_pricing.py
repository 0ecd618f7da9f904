"""The section of the policy: sane bands only."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from settlement.core import sections
from settlement.core.pricing import PricingRules


def test_it_stands_in_a_policy_as_it_was() -> None:
    rules = PricingRules(Fraction(1, 2), Fraction(3), timedelta(hours=1))
    assert sections.read(PricingRules, sections.members(rules)) == rules
    assert sections.members(PricingRules()) == {"lowest_ask": "1/4", "highest_ask": "4", "offer_notice_seconds": 600}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lowest_ask": Fraction(0)},
        {"lowest_ask": Fraction(2)},
        {"highest_ask": Fraction(1, 2)},
        {"highest_ask": Fraction(101)},
        {"offer_notice": timedelta(minutes=5)},
    ],
)
def test_other_rules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PricingRules(**wrong)
