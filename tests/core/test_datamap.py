"""The data map is one document with one digest, and a policy can name it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from settlement.core import canonical, datamap
from settlement.core.policy import Policy
from settlement.core.retention import RetentionRules


def test_it_is_canonical_and_every_entry_says_all_of_it() -> None:
    found = json.loads(datamap.document())
    assert canonical.encode(found) == datamap.document()
    assert canonical.digest(datamap.document()) == datamap.digest()
    assert found["type"] == "data-map/1"
    for entry in found["entries"]:
        assert entry.keys() == {"about", "data", "kept", "tables", "what", "why"}
        assert entry["tables"] == sorted(entry["tables"])
        assert all(entry.values())


def test_a_policy_that_names_it_reads_back() -> None:
    policy = Policy(1, datetime(2026, 1, 1, tzinfo=UTC), retention=RetentionRules(data_map=datamap.digest()))
    assert Policy.parse(policy.document()).retention.data_map == datamap.digest()
