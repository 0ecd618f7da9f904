"""Ids that upstreams return: full ids, each of which the first table rates."""

from __future__ import annotations

import json

from governance.ratebook.known_ids import KNOWN_IDS
from settlement.core import rates
from tests.world import first_rates


def test_every_known_id_is_a_full_id_that_a_table_may_hold() -> None:
    assert [name for name in KNOWN_IDS if not rates.MODEL_ID.fullmatch(name)] == []
    assert [name for name in KNOWN_IDS if name != name.lower() or "*" in name] == []


def test_nearly_every_known_id_is_rated_by_its_own_name() -> None:
    """One that no rule of the catalogue covers is left out, never guessed; then it isn't worth its place here."""
    table = rates.parse(first_rates())
    unrated = sorted(name for name in KNOWN_IDS if table.resolve(name) is None)
    assert len(unrated) * 5 < len(KNOWN_IDS), unrated
    document = json.loads(first_rates())
    assert document["aliases"].get("claude-sonnet-4-5-20250929") or "claude-sonnet-4-5-20250929" in document["models"]
    assert table.resolve("gpt-5-nano-2025-08-08") is None, "a date that nobody has seen is another id"
