"""What a window's sealed segments are made of: its reports as they were signed and answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from settlement.storage.database import Connection
from settlement.storage.usage import decompress

_REPORTS = text("""
SELECT r.id, p.id AS provider, r.report, r.seq, r.journal_seq, r.received_at, r.digest, r.kid, r.signature, r.body,
       r.accepted, r.total, r.receipt
FROM usage_report r JOIN party p ON p.no = r.provider_no WHERE r.window_no = :window ORDER BY r.journal_seq
""")
_BATCH = 8


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A report as it was signed, and the receipt that was given for it."""

    id: str
    provider: str
    report: str
    seq: int
    journal_seq: int
    received_at: datetime
    digest: bytes
    kid: str
    signature: str
    body: bytes
    accepted: int
    total: int
    receipt: str


async def reports(connection: Connection, window_no: int) -> AsyncIterator[SignedReport]:
    """All reports of a window, in journal order, those whose records were all refused too."""
    query = _REPORTS.execution_options(yield_per=_BATCH)
    async with connection.stream(query, {"window": window_no}) as rows:
        async for row in rows:
            yield SignedReport(**{**row._mapping, "body": decompress(row.body)})
