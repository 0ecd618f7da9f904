"""Offers: what parses, what is asked of which model and tier at which time, and the policy's band."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from settlement.core import canonical, offers
from settlement.core.errors import Malformed
from settlement.core.multipliers import Multiplier
from settlement.core.offers import Offers
from settlement.core.pricing import PricingRules

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "schemas" / "offer-1.json"
AT = datetime(2026, 11, 22, 11, tzinfo=UTC)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "type": "offer/1",
        "provider": "prv_01m817qpk8frptpnnzkfvbezgj",
        "version": 1,
        "parent": None,
        "effective_from": "2026-11-22T11:00:00Z",
        "usual": "1.2",
        "asks": [
            {"model": "gpt-5", "multiplier": "0.95"},
            {"model": "gpt-5", "tier": "batch", "multiplier": "0.5"},
            {"model": "other", "tier": "batch", "multiplier": "4"},
        ],
    } | changes


def parsed(**changes: Any) -> offers.Offer:
    return offers.parse(json.dumps(document(**changes)).encode())


def test_the_nearest_ask_counts() -> None:
    offer = parsed()
    assert offer.effective_from == AT
    asked = {key: offer.ask(*key) for key in [("gpt-5", "batch"), ("gpt-5", "standard"), ("other", "standard")]}
    assert asked == {("gpt-5", "batch"): 5_000, ("gpt-5", "standard"): 9_500, ("other", "standard"): 12_000}
    assert offer.models() == {"gpt-5", "other"}


def test_an_offer_holds_from_its_own_time_until_the_next() -> None:
    first = parsed()
    second = parsed(version=2, parent=first.digest, effective_from="2026-11-23T00:00:00Z", usual="1", asks=[])
    both = Offers([second, first])
    second_ago = timedelta(microseconds=1)
    assert both.multipliers("gpt-5", "standard", AT - second_ago) == ()
    assert both.multipliers("gpt-5", "standard", AT) == (Multiplier("ask", 9_500),)
    assert both.at(second.effective_from - second_ago) == first
    assert both.multipliers("gpt-5", "standard", second.effective_from) == ()
    assert Offers().at(AT) is None


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"type": "offer/2"}, "/type"),
        ({"version": 0}, "/version"),
        ({"version": 2}, "/parent"),
        ({"parent": "sha256:" + "0" * 64}, "/parent"),
        ({"provider": ""}, "/provider"),
        ({"effective_from": "2026-11-22T11:00:00.5Z"}, "/effective_from"),
        ({"usual": "0"}, "/usual"),
        ({"usual": "1.0"}, "/usual"),
        ({"usual": 1}, "/usual"),
        ({"asks": {}}, "/asks"),
        ({"asks": [{"model": "m"}]}, "/asks/0/multiplier"),
        ({"asks": [{"model": "a b", "multiplier": "1"}]}, "/asks/0/model"),
        ({"asks": [{"model": "m", "tier": "Batch", "multiplier": "1"}]}, "/asks/0/tier"),
        ({"asks": [{"model": "m", "multiplier": "1"}, {"model": "m", "multiplier": "2"}]}, "/asks/1"),
        ({"more": 1}, "/more"),
    ],
)
def test_a_broken_offer_is_refused_at_its_place(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parsed(**changes)
    assert (refusal.value.code, refusal.value.problems[0].pointer) == ("offer_malformed", place)


def test_json_that_reads_two_ways_is_refused() -> None:
    with pytest.raises(Malformed, match="json_duplicate_key"):
        offers.parse(b'{"usual":"1","usual":"4"}')


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"usual": "0.2499"}, "usual"),
        ({"usual": "4.0001"}, "usual"),
        ({"asks": [{"model": "m", "tier": "t", "multiplier": "5"}]}, "m t"),
    ],
)
def test_an_ask_outside_of_the_band_is_named(changes: dict[str, Any], name: str) -> None:
    wrong = offers.outside(parsed(**changes), PricingRules())
    assert wrong is not None
    assert f"the ask of {name} is" in wrong
    assert offers.outside(parsed(**changes), PricingRules(Fraction(1, 100), Fraction(5))) is None


@pytest.mark.parametrize("usual", ["0.25", "1", "4"])
def test_the_ends_of_the_band_are_allowed(usual: str) -> None:
    assert offers.outside(parsed(usual=usual), PricingRules()) is None


def test_the_schema_takes_what_parses() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(document())
    assert not validator.is_valid(document(usual=1))
    assert parsed().digest == canonical.digest(json.dumps(document()).encode())
