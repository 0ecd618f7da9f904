"""Feeds: the same prices as CSV and as JSON make the same observations; what is wrong is named by its row."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from settlement.core import canonical, feeds, observations
from settlement.core.errors import Malformed

CSV = b"""at,source,series,usd,note
2026-11-22T01:00:00Z,venue-a,XRP,2.89,later
2026-11-22T00:00:00Z,venue-a,XRP,2.88,first
2026-11-22T00:00:00Z,venue-a,XLM,0.368,
2026-11-22T00:00:00Z,venue-b,XLM,0.4,another's
"""
ROWS = [
    {"at": "2026-11-22T00:00:00Z", "series": "XRP", "usd": "2.88"},
    {"at": "2026-11-22T00:00:00Z", "series": "XLM", "usd": "0.368"},
    {"at": "2026-11-22T01:00:00Z", "series": "XRP", "usd": "2.89"},
]


def test_rows_of_a_source_and_time_are_one_observation_that_names_its_file() -> None:
    first, second = [json.loads(body) for body in feeds.read(CSV, "venue-a")]
    assert first == {
        "type": "observation/1",
        "source": "venue-a",
        "at": "2026-11-22T00:00:00Z",
        "usd": {"XRP": "2.88", "XLM": "0.368"},
        "feed": canonical.digest(CSV),
    }
    assert second["usd"] == {"XRP": "2.89"}
    assert [json.loads(body)["usd"] for body in feeds.read(CSV, "venue-b")] == [{"XLM": "0.4"}]
    assert len(feeds.read(CSV, "venue-a", datetime(2026, 11, 22, 1, tzinfo=UTC))) == 1


@pytest.mark.parametrize("document", [ROWS, {"source": "venue-a", "prices": ROWS}])
def test_json_says_the_same(document: object) -> None:
    made = feeds.read(json.dumps(document).encode(), "venue-a")
    assert [observations.parse(body).usd for body in made] == [
        observations.parse(body).usd for body in feeds.read(CSV, "venue-a")
    ]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"at,series\n2026-11-22T00:00:00Z,XRP\n", "line 2 has not the text members"),
        (b"at,series,usd\nnow,XRP,1\n", "line 2 has no time"),
        (b"at,series,usd\n2026-11-22T00:00:00Z,XRP,1\n2026-11-22T00:00:00Z,XRP,2\n", "line 3 says a second price"),
        (b"at,series,usd\n2026-11-22T00:00:00Z,XRP,-1\n", "/usd/XRP"),
        (b"at,series,usd\n", "the file has no price of venue-a"),
        (b"\xff", "the file is not UTF-8"),
        (b'{"prices": 5}', "neither a list"),
        (b'[{"at":"2026-11-22T00:00:00Z","series":"XRP","usd":1}]', "/0 has not the text members"),
        (b"[5]", "/0 has not the text members"),
    ],
)
def test_a_wrong_row_is_named(document: bytes, said: str) -> None:
    with pytest.raises(Malformed) as refusal:
        feeds.read(document, "venue-a")
    assert said in refusal.value.detail
