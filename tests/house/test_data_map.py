"""Whoever adds a table says what it keeps, about whom, why, and how long: in settlement/core/data_map.json."""

from __future__ import annotations

from collections import Counter

from settlement.core import datamap
from settlement.storage.tables import metadata


def test_every_table_is_in_the_data_map_once() -> None:
    """A table that nobody thought about is how personal data comes to be kept for ever."""
    assert Counter(datamap.tables()) == Counter(metadata.tables.keys())
