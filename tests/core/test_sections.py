"""Sections of a policy: what is written is read again; what is not exactly a section is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import canonical, sections
from settlement.core.policy import SECTIONS, Policy
from settlement.core.sections import Micro


@dataclass(frozen=True, slots=True)
class Step:
    above: Micro
    factor: Fraction


@dataclass(frozen=True, slots=True)
class Rules:
    count: int
    on: bool
    name: str
    most: Micro
    after: timedelta
    share: Fraction
    names: tuple[str, ...]
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count is below zero")


FRACTIONS = st.fractions(0, 10, max_denominator=10**6)
STEPS = st.lists(st.builds(Step, st.integers(0, 2**63), FRACTIONS), max_size=3).map(tuple)
RULES = st.builds(
    Rules,
    st.integers(0, 2**50),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    st.integers(0, 2**63),
    st.integers(0, 10**9).map(lambda seconds: timedelta(seconds=seconds)),
    FRACTIONS,
    st.lists(st.sampled_from(["a", "b"]), max_size=3).map(tuple),
    STEPS,
)
MADE = Rules(1, True, "x", 10, timedelta(hours=1), Fraction(1, 5), ("a",), (Step(2, Fraction(3, 4)),))


@given(RULES)
def test_a_section_round_trips(rules: Rules) -> None:
    written = sections.members(rules)
    canonical.encode(written)
    assert sections.read(Rules, written) == rules


def test_how_a_section_is_written() -> None:
    assert sections.members(MADE) == {
        "count": 1,
        "on": True,
        "name": "x",
        "most": "10",
        "after_seconds": 3600,
        "share": "1/5",
        "names": ["a"],
        "steps": [{"above": "2", "factor": "3/4"}],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"count": True},
        {"count": "1"},
        {"count": 1.0},
        {"count": -1},
        {"on": 1},
        {"most": 10},
        {"most": "010"},
        {"most": "+1"},
        {"after_seconds": "3600"},
        {"share": "2/10"},
        {"share": "0.2"},
        {"share": "1/0"},
        {"names": "a"},
        {"names": [1]},
        {"steps": [{"above": "2"}]},
        {"steps": [{"above": "2", "factor": "3/4", "more": 1}]},
        {"more": 1},
    ],
)
def test_what_is_not_exactly_a_section_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        sections.read(Rules, sections.members(MADE) | change)
    for missing in sections.members(MADE):
        with pytest.raises(ValueError, match="exactly the members"):
            sections.read(Rules, {k: v for k, v in sections.members(MADE).items() if k != missing})
    with pytest.raises(ValueError, match="not an object"):
        sections.read(Rules, [])


def test_every_section_of_the_policy_is_a_field_of_it_with_defaults() -> None:
    held = {field.name for field in fields(Policy)}
    for name, kind in SECTIONS.items():
        assert name in held
        assert sections.read(kind, sections.members(kind())) == kind()
