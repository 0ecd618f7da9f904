"""The rules of holds: what a policy can say, what it refuses, and what a model's limits make of a request."""

from __future__ import annotations

from datetime import timedelta

import pytest

from settlement.core import hold_rules, holds, sections
from settlement.core.hold_rules import HoldRules
from settlement.core.holds import Ask, Terms
from tests.core.test_holds import NOW

TERMS = Terms("m", 0, 10**6, has_output=True)


def test_adaptive_slices_are_alike_four_times_and_then_double() -> None:
    assert [HoldRules().slice_after(grants) for grants in range(10)] == [
        *(256, 256, 256, 256, 512),
        *(1_024, 2_048, 4_096, 4_096, 4_096),
    ]
    assert HoldRules().slice_after(10**9) == 4_096
    small = HoldRules(first_slice=20, smallest_slice=10, largest_slice=50, steady_grants=1)
    assert [small.slice_after(grants) for grants in range(4)] == [20, 40, 50, 50]


def test_a_hold_follows_the_rules_that_it_is_given() -> None:
    rules = HoldRules(first_slice=20, smallest_slice=15, largest_slice=50, steady_grants=1, usual=timedelta(seconds=60))
    grant = holds.first_grant(TERMS, Ask(), 10**9, rules)
    assert grant is not None
    assert grant.output_tokens == 20
    made = holds.opened(Ask(), TERMS, grant, NOW, rules)
    assert made.expires_at - NOW == timedelta(seconds=60)
    assert holds.opened(Ask(expires_in=10), TERMS, grant, NOW, rules).expires_at - NOW == timedelta(seconds=10)
    assert holds.next_grant(made, TERMS, None, 10**9, rules).output_tokens == 60
    assert holds.first_grant(TERMS, Ask(), 14, rules) is None, "less than the smallest slice is no slice"
    assert holds.first_grant(TERMS, Ask(), 15, rules) is not None


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"output_tokens": 14}, "/output_tokens"),
        ({"output_tokens": 51}, "/output_tokens"),
        ({"output_tokens": 11, "max_output_tokens": 12}, "/output_tokens"),
        ({"requests": 6}, "/requests"),
        ({"expires_in": 29}, "/expires_in"),
        ({"expires_in": 121}, "/expires_in"),
        ({"output_tokens": 15}, None),
        ({"output_tokens": 0}, None),
        ({"output_tokens": 12, "max_output_tokens": 12}, None),
        ({"output_tokens": 50, "requests": 5, "expires_in": 120}, None),
        ({"expires_in": 30}, None),
    ],
)
def test_what_is_outside_is_named(asked: dict[str, int], pointer: str | None) -> None:
    rules = HoldRules(
        first_slice=20,
        smallest_slice=15,
        largest_slice=50,
        most_requests=5,
        shortest=timedelta(seconds=30),
        usual=timedelta(seconds=60),
        longest=timedelta(seconds=120),
    )
    given: dict[str, int | None] = {"output_tokens": None, "max_output_tokens": None, "expires_in": None}
    # keywords or a stand-in of any type
    found = rules.outside(**{**given, "requests": 1, **asked})  # type: ignore[arg-type]
    assert (found and found[0]) == pointer


@pytest.mark.parametrize(
    "wrong",
    [
        {"smallest_slice": 9},
        {"smallest_slice": 300},
        {"first_slice": 5_000},
        {"largest_slice": 4_097},
        {"largest_slice": 255},
        {"steady_grants": -1},
        {"most_requests": 0},
        {"most_requests": 1_001},
        {"shortest": timedelta(seconds=9)},
        {"usual": timedelta(seconds=5)},
        {"longest": timedelta(minutes=4)},
        {"longest": timedelta(hours=2)},
    ],
)
def test_rules_that_are_none(wrong: dict[str, int | timedelta]) -> None:
    with pytest.raises(ValueError, match=r"does not hold|to 1000"):
        HoldRules(**wrong)  # type: ignore[arg-type]  # keywords or a stand-in of any type


def test_the_section_says_seconds() -> None:
    written = sections.members(HoldRules())
    assert (written["usual_seconds"], written["longest_seconds"], written["first_slice"]) == (300, 3600, 256)
    assert sections.read(HoldRules, written) == HoldRules()


def test_a_models_limits() -> None:
    bounds = {"context_tokens": 1_000, "max_output_tokens": 100}
    assert [hold_rules.most_output(bounds, asked) for asked in (None, 99, 101)] == [100, 99, 100]
    assert [hold_rules.most_output({}, asked) for asked in (None, 99)] == [None, 99]
    assert [hold_rules.too_long(bounds, size) for size in (1_000, 1_001)] == [None, 1_000]
    assert hold_rules.too_long({}, 10**9) is None


def test_the_dearest_kind_may_be_a_part_of_a_part() -> None:
    subsets = ((0, (1, 2)), (2, (3,)), (4, (5,)))
    assert hold_rules.dearest_kind(subsets, (10, -5, 20, 7, 100, 100), 0) == 37
    assert hold_rules.dearest_kind(subsets, (10, -5, -2, 1, 100, 100), 0) == 10
