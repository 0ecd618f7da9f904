"""What surcharges are measured by, and the entries of the journal that notice and charge them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text

from settlement.core.surcharges import Day
from settlement.storage.database import Connection

_USED = text("""
SELECT p.no, p.id, count(*) AS holds,
       count(*) FILTER (WHERE h.state IN ('released', 'expired') AND h.uses = 0) AS unused
FROM hold h JOIN party p ON p.no = h.consumer_no
WHERE h.created_at >= :since AND h.created_at < :until GROUP BY p.no ORDER BY p.no
""")

_ENTRIES = """
SELECT seq, kind, subject, at, payload FROM journal_entry
WHERE kind IN ('surcharge', 'surcharge_noticed') AND subject LIKE :subjects
"""
_OF_CONSUMER = text(f"{_ENTRIES} ORDER BY seq")
_BETWEEN = text(f"{_ENTRIES} AND seq BETWEEN :first AND :last ORDER BY seq")


@dataclass(frozen=True, slots=True)
class StoredSurcharge:
    """An entry about a consumer's day: a notice, or a charge of `amount` microCU."""

    seq: int
    kind: str
    subject: str
    at: datetime
    facts: Mapping[str, Any]
    amount: int


async def used(connection: Connection, begins: datetime) -> list[tuple[int, str, Day]]:
    """Every consumer's day, with its number and id."""
    values = {"since": begins, "until": begins + timedelta(days=1)}
    rows = await connection.execute(_USED, values)
    return [(row.no, row.id, Day(begins, row.holds, row.unused)) for row in rows]


async def of_consumer(connection: Connection, consumer: str) -> list[StoredSurcharge]:
    """Every notice and charge of a consumer, oldest first."""
    return [_stored(row) for row in await connection.execute(_OF_CONSUMER, {"subjects": f"{consumer}/%"})]


async def between(connection: Connection, consumer: str, first: int, last: int) -> list[StoredSurcharge]:
    """Those between two journal numbers."""
    values = {"subjects": f"{consumer}/%", "first": first, "last": last}
    return [_stored(row) for row in await connection.execute(_BETWEEN, values)]


def _stored(row: Row[Any]) -> StoredSurcharge:
    payload = json.loads(row.payload)
    amount = sum(int(amount) for account, _, amount in payload["postings"] if account == "fees/CU")
    return StoredSurcharge(row.seq, row.kind, row.subject, row.at, payload["facts"], amount)
