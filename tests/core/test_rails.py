"""Which rail pays: the first rule that is broken decides, and the fallback is taken only when it can be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from settlement.core.rails import ChainRule, Condition, Rail, RailRules, choose, unusable

NOW = datetime(2026, 11, 25, tzinfo=UTC)
RULES = RailRules()
STALE, STUCK = RULES.stale, RULES.stuck
WELL = Condition(tip_at=NOW)
FIRST, SECOND = Rail("xrpl", "RLUSD:r", 100, 100, WELL), Rail("stellar", "USDC:G", 1_000, 1_000, WELL)
SICK = replace(FIRST, condition=replace(WELL, closed="fork"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"closed": "fork"}, "closed by the operator: fork"),
        ({"tip_at": None}, "not opened"),
        ({"tip_at": NOW - STALE - timedelta(seconds=1)}, "no ledger is known since"),
        ({"frozen": ("r1",)}, "1 of its accounts may not sign"),
        ({"waiting_since": NOW - STUCK - timedelta(seconds=1)}, "a payout waits since"),
    ],
)
def test_each_trouble_is_named(change: dict[str, object], said: str) -> None:
    # keywords or a stand-in of any type
    found = unusable(replace(FIRST, condition=replace(WELL, **change)), NOW, RULES)  # type: ignore[arg-type]
    assert found is not None
    assert said in found


def test_limits_themselves_are_still_well() -> None:
    edge = Condition(tip_at=NOW - STALE, waiting_since=NOW - STUCK)
    assert unusable(replace(FIRST, condition=edge), NOW, RULES) is None


def test_a_rail_pays_no_more_than_is_free_on_it() -> None:
    assert unusable(replace(FIRST, free=100), NOW, RULES) is None
    assert "99 units" in str(unusable(replace(FIRST, free=99), NOW, RULES))
    assert "too little" in str(unusable(replace(FIRST, due=0), NOW, RULES))


def test_the_first_is_taken_while_it_can_be_used() -> None:
    assert choose(FIRST, SECOND, NOW, RULES).rail == FIRST
    assert choose(FIRST, None, NOW, RULES).rail == FIRST


def test_the_fallback_is_taken_only_when_it_can_be_used_and_the_reason_names_both() -> None:
    taken = choose(SICK, SECOND, NOW, RULES)
    assert taken.rail == SECOND
    assert taken.reason == "xrpl: closed by the operator: fork; stellar can be used"
    poor = choose(SICK, replace(SECOND, free=0), NOW, RULES)
    assert poor.rail == SICK
    assert "stellar: 0 units" in poor.reason
    assert choose(SICK, None, NOW, RULES).reason.endswith("there is no fallback")


def test_each_chain_has_its_own_minimum_and_none_is_below_the_policys() -> None:
    rules = RailRules(chains=(ChainRule("xrpl", 5_000, 0, 0), ChainRule("stellar", 10, 100, 900)))
    assert [rules.least(chain, 1_000) for chain in ("xrpl", "stellar", "other")] == [5_000, 1_000, 1_000]
    assert rules.of("stellar").float_most == 900


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ChainRule("xrpl", -1, 0, 0),
        lambda: ChainRule("xrpl", 0, 10, 9),
        lambda: RailRules(stale=timedelta(0)),
        lambda: RailRules(chains=(ChainRule("xrpl", 1, 0, 0), ChainRule("xrpl", 2, 0, 0))),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"does not hold|one rule"):
        wrong()


def test_times_are_the_policys() -> None:
    patient = RailRules(stale=timedelta(days=1))
    old = replace(FIRST, condition=Condition(tip_at=NOW - timedelta(hours=23)))
    assert unusable(old, NOW, patient) is None
    assert unusable(old, NOW, RULES) is not None
