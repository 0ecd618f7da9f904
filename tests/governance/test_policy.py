"""What a change of the rates demands: additions little, changes notice, large steps more signatures."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from governance import policy, proposals
from governance.policy import Change, Demand
from settlement.core import canonical, rates
from settlement.core.governing import GovernanceRules
from settlement.core.policy import Policy
from tests.world import START, first_rates

RULES = GovernanceRules()
NOTICE, SHORT, LOCK = RULES.notice, RULES.notice_addition, RULES.time_lock


def table(change: Callable[[dict[str, Any]], object] | None = None) -> bytes:
    """A small table of two models, changed."""
    found = json.loads(first_rates())
    found["models"] = {name: found["models"][name] for name in ("gpt-5", "gpt-5-mini")}
    found["aliases"] = {"five": "gpt-5"}
    if change is not None:
        change(found)
        found |= {"version": 2, "parent": canonical.digest(table())}
    return canonical.encode(found)


def rates_of(found: dict[str, Any], model: str = "gpt-5") -> dict[str, int]:
    first: dict[str, int] = found["models"][model]["tiers"]["standard"]["bands"][0]["rates"]
    return first


def scaled(numerator: int, denominator: int) -> Callable[[dict[str, Any]], object]:
    def change(found: dict[str, Any]) -> None:
        was = rates_of(found)["output_tokens"]
        rates_of(found)["output_tokens"] = was * numerator // denominator

    return change


def demanded(change: Callable[[dict[str, Any]], object], *, correction: bool = False) -> Demand:
    body = proposals.make("rates", table(change), proposal_id="prp_" + "0" * 26, statement="x", correction=correction)
    before, after = rates.parse(table()), rates.parse(table(change))
    return policy.for_rates(proposals.parse(body), before, after, RULES)


def addition(found: dict[str, Any]) -> None:
    found["models"]["new"] = found["models"]["gpt-5"]
    found["aliases"]["also"] = "new"


def another_target(found: dict[str, Any]) -> None:
    found["aliases"]["five"] = "gpt-5-mini"


def another_parent(found: dict[str, Any]) -> None:
    found["meters"]["cache_read_tokens"]["unit"] = "tokens"


def hours(found: dict[str, Any]) -> None:
    found["models"]["gpt-5"]["tiers"]["standard"]["hours"] = [{"from": "00:00", "until": "01:00", "multiplier": "0.5"}]


def from_nothing(found: dict[str, Any]) -> None:
    rates_of(found)["requests"] = 1


def another_band(found: dict[str, Any]) -> None:
    bands = found["models"]["gpt-5"]["tiers"]["standard"]["bands"]
    more = {name: 2 * rate for name, rate in bands[0]["rates"].items()}
    bands.append({"above_input_tokens": 100_000, "rates": more})


CASES: dict[str, tuple[Callable[[dict[str, Any]], object], str, timedelta]] = {
    "nothing": (lambda found: None, "ordinary", SHORT),
    "a new model and a name for it": (addition, "ordinary", SHORT),
    "a tier more": (
        lambda found: found["models"]["gpt-5"]["tiers"].update(slow=found["models"]["gpt-5"]["tiers"]["standard"]),
        "ordinary",
        SHORT,
    ),
    "one microCU": (scaled(2_222_222_223, 2_222_222_222), "ordinary", NOTICE),
    "exactly one step up": (scaled(6, 5), "ordinary", NOTICE),
    "more than a step up": (scaled(1_200_000_001, 1_000_000_000), "higher", NOTICE),
    "a step down": (scaled(4, 5), "higher", NOTICE),  # 2,222,222,222 x 4 / 5 is rounded down: a little more than a step
    "to nothing": (scaled(0, 1), "higher", NOTICE),
    "tenfold": (scaled(10, 1), "higher", NOTICE),
    "from nothing": (from_nothing, "higher", NOTICE),
    "a model less": (lambda found: found["models"].pop("gpt-5-mini"), "higher", NOTICE),
    "a name less": (lambda found: found["aliases"].pop("five"), "higher", NOTICE),
    "a name of another model": (another_target, "higher", NOTICE),
    "a rate less": (lambda found: rates_of(found).pop("cache_read_tokens"), "higher", NOTICE),
    "a meter of another unit": (another_parent, "higher", NOTICE),
    "other hours": (hours, "higher", NOTICE),
    "a dear band for long requests": (another_band, "higher", NOTICE),
}


@pytest.mark.parametrize(("change", "threshold", "notice"), CASES.values(), ids=CASES.keys())
def test_what_a_change_of_rates_demands(
    change: Callable[[dict[str, Any]], object], threshold: str, notice: timedelta
) -> None:
    assert demanded(change) == Demand(threshold, notice, LOCK)  # type: ignore[arg-type]


def test_a_marked_correction_has_a_short_notice_and_the_same_threshold() -> None:
    assert demanded(scaled(10, 1), correction=True) == Demand("higher", RULES.notice_correction, LOCK)


def test_the_step_is_a_fraction_of_the_old_rate() -> None:
    rules = GovernanceRules(step=Fraction(1, 3))
    assert not Change("x", 3, 4).is_beyond(rules)
    assert Change("x", 3, 5).is_beyond(rules)
    assert Change("x", 0, 1).is_beyond(rules)
    assert Change("x", 5, None).is_beyond(rules)


def test_a_policy_that_changes_the_rules_of_governing_needs_more() -> None:
    before = Policy(1, START)
    assert policy.for_policy(before, Policy(2, START, minimum_payout=1)).threshold == "ordinary"
    looser = Policy(2, START, governance=GovernanceRules(step=Fraction(1)))
    assert policy.for_policy(before, looser) == Demand("higher", NOTICE, LOCK)
