"""What may stop new holds, read in one statement: it is asked in every transaction of a hot path (decision 14)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from settlement.core.errors import NotFound
from settlement.core.policy import Policy
from settlement.storage.database import Connection, raw_cursor
from settlement.storage.governance import known_policy

_STANDING = """
SELECT (SELECT document FROM policy WHERE effective_from <= %(at)s ORDER BY effective_from DESC LIMIT 1),
       (SELECT max(effective_from) FROM rate_table WHERE effective_from <= %(at)s),
       p.holds, p.until, p.reason
FROM (VALUES (1)) AS always LEFT JOIN (SELECT * FROM emergency_pause ORDER BY version DESC LIMIT 1) p ON true
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The policy in force, since when the rate table in force has been, and until when and why no holds are given."""

    policy: Policy
    rates_since: datetime | None
    until: datetime | None
    reason: str


async def standing_at(connection: Connection, at: datetime) -> Standing:
    """What stands at a time. Raises NotFound ``policy_not_in_force``."""
    async with raw_cursor(connection) as cursor:
        await cursor.execute(_STANDING, {"at": at})
        document, since, holds, until, reason = await cursor.fetchone() or (None,) * 5
    if document is None:
        raise NotFound("policy_not_in_force", f"nothing was in force at {at.isoformat()}")
    stopped = holds and until is not None and at < until
    return Standing(known_policy(bytes(document)), since, until if stopped else None, reason or "")
