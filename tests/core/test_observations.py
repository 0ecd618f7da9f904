"""Observations come from outside; fixings are written so that they read back as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from settlement.core import observations
from settlement.core.errors import Malformed
from settlement.core.value import Observation, next_fixing
from tests.core.test_value import PRICES, RULES, begun

AT = datetime(2026, 11, 22, tzinfo=UTC)


def body(**changes: Any) -> bytes:
    document = {"type": "observation/1", "source": "venue-a", "at": "2026-11-22T00:00:00Z", "usd": {"XRP": "2.88"}}
    return json.dumps(document | changes).encode()


def test_an_observation_is_read() -> None:
    found = observations.parse(body(usd={"XRP": "2.88", "GPU": "2.6"}))
    assert (found.source, found.at) == ("venue-a", AT)
    assert found.each()[0] == Observation("venue-a", "XRP", AT, Fraction("2.88"))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"type": "x"}, "/type"),
        ({"source": "a b"}, "/source"),
        ({"at": "now"}, "/at"),
        ({"usd": {}}, "/usd"),
        ({"usd": {"xrp": "1"}}, "/usd/xrp"),
        ({"usd": {"XRP": "0"}}, "/usd/XRP"),
        ({"usd": {"XRP": "-1"}}, "/usd/XRP"),
        ({"usd": {"XRP": "1e3"}}, "/usd/XRP"),
        ({"usd": {"XRP": 1}}, "/usd/XRP"),
        ({"more": 1}, "/more"),
        ({"feed": "prices.csv"}, "/feed"),
    ],
)
def test_a_broken_observation_is_refused_at_its_place(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(Malformed) as refusal:
        observations.parse(body(**changes))
    assert (refusal.value.code, refusal.value.problems[0].pointer) == ("observation_malformed", place)


def test_a_fixing_reads_back_as_it_was_and_goes_on_alike() -> None:
    made = next_fixing(begun(), PRICES | {"XRP": Fraction("3.1")}, AT + timedelta(days=1), RULES)
    read = observations.read_fixing(observations.fixing_document(made, "sha256:" + "0" * 64, []))
    assert read == made
    prices, later = PRICES | {"TOK": Fraction("0.99")}, AT + timedelta(days=2)
    assert next_fixing(read, prices, later, RULES) == next_fixing(made, prices, later, RULES)
