"""What may stop new holds, as columns of the statement with which every transaction of a hot path begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from settlement.core.errors import NotFound
from settlement.core.policy import Policy
from settlement.storage.governance import known_policy

COLUMNS = """
(SELECT document FROM policy WHERE effective_from <= %(now)s ORDER BY effective_from DESC LIMIT 1),
(SELECT max(effective_from) FROM rate_table WHERE effective_from <= %(now)s), p.holds, p.until, p.reason
"""
SOURCE = "(VALUES (1)) AS always LEFT JOIN (SELECT * FROM emergency_pause ORDER BY version DESC LIMIT 1) p ON true"


@dataclass(frozen=True, slots=True)
class Standing:
    """The policy in force, since when the rate table in force has been, and until when and why no holds are given."""

    policy: Policy
    rates_since: datetime | None
    until: datetime | None
    reason: str


def standing(columns: Sequence[Any], now: datetime) -> Standing:
    """What `COLUMNS` of `SOURCE` say stands now. Raises NotFound ``policy_not_in_force``."""
    document, since, holds, until, reason = columns
    if document is None:
        raise NotFound("policy_not_in_force", f"nothing was in force at {now.isoformat()}")
    stopped = holds and until is not None and now < until
    return Standing(known_policy(bytes(document)), since, until if stopped else None, reason or "")
