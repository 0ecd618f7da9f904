"""Signed reports backwards in time, a bounded batch at a time: for whoever rates past usage again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from settlement.storage.database import Connection, raw_cursor
from settlement.storage.usage import decompress

_BATCH = 16

_PAGE = """
SELECT journal_seq, received_at, refusals, body FROM usage_report
WHERE journal_seq < %(before)s AND accepted > 0 ORDER BY journal_seq DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class PastReport:
    """A signed body with the lines that were refused when it came."""

    received_at: datetime
    body: bytes
    refused: Sequence[int]


async def backwards(connection: Connection, since: datetime) -> AsyncIterator[PastReport]:
    """Reports with charged records, the newest first, down to the first that was received before `since`."""
    before = 2**62
    while True:
        async with raw_cursor(connection) as cursor:
            await cursor.execute(_PAGE, {"before": before, "limit": _BATCH})
            rows = await cursor.fetchall()
        for seq, received_at, refusals, body in rows:
            if received_at < since:
                return
            before = seq
            yield PastReport(received_at, decompress(body), [each["line"] for each in refusals])
        if len(rows) < _BATCH:
            return
