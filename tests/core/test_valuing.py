"""The index in a policy."""

from __future__ import annotations

from fractions import Fraction

import pytest

from settlement.core import sections
from settlement.core.observations import Oracle
from settlement.core.valuing import IndexPolicy


def test_it_stands_in_a_policy_as_it_was() -> None:
    rules = IndexPolicy(Fraction(1, 100), (Oracle("a", "x"), Oracle("b", "y")))
    assert sections.read(IndexPolicy, sections.members(rules)) == rules


def test_other_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        IndexPolicy(begins_at=Fraction(0))
    with pytest.raises(ValueError, match="named once"):
        IndexPolicy(oracles=(Oracle("a", "x"), Oracle("a", "y")))
