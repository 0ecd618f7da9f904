"""Signed usage wherever it is: in rows of the database, or in the sealed segments of windows that have left it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from settlement.core.checkpoints import record_leaf, record_salt
from settlement.core.errors import Broken, NotFound
from settlement.services import shelf
from settlement.services.context import Context
from settlement.services.segments import Row
from settlement.storage import retention, usage_leaves
from settlement.storage.database import Connection
from settlement.storage.retention import RetiredReport
from settlement.storage.usage_leaves import ReportLines


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """One charged record as its provider signed it, and what the books say of it.

    `index` is its number in the record tree, from 0. `key` is its consumer's salt key: None before the
    checkpoint, and after an erasure, when `erased` is set.
    """

    window_no: int
    journal_seq: int
    provider: str
    digest: bytes
    line: int
    rates: int
    charge_pico: int
    record_id: bytes
    record: Mapping[str, Any]
    consumer: str
    index: int
    key: bytes | None
    erased: bool
    received_at: datetime

    def leaf(self) -> bytes:
        """The bytes of its leaf. Raises NotFound ``record_not_checkpointed`` or ``record_erased``."""
        if self.erased:
            raise NotFound("record_erased", f"the salts of win_{self.window_no} were deleted: {self.consumer} asked")
        if self.key is None:
            raise NotFound("record_not_checkpointed", f"window win_{self.window_no} has no checkpoint yet")
        return record_leaf(
            provider=self.provider,
            report=f"sha256:{self.digest.hex()}",
            line=self.line,
            window=self.window_no,
            rates=self.rates,
            charge_pico=self.charge_pico,
            salt=record_salt(self.key, self.record_id),
            record=self.record,
        )


def signed_records(report: ReportLines) -> list[dict[str, Any]]:
    """The records of a report's charged lines, parsed from its signed body, in their order.

    Raises Broken ``evidence_mismatch`` when the body has another digest, or its lines are other records.
    """
    if sha256(report.body).digest() != report.digest:
        raise Broken("evidence_mismatch", f"the body of report {report.digest.hex()} has another digest")
    signed = dict(enumerate(json.loads(report.body)["records"]))
    found = [signed.get(line.line, {}) for line in report.lines]
    for record, line in zip(found, report.lines, strict=True):
        if record.get("id") != str(UUID(bytes=line.record_id)):
            raise Broken("evidence_mismatch", f"line {line.line} of report {report.digest.hex()} is another record")
    return found


async def reports(context: Context, connection: Connection, window_no: int) -> AsyncIterator[ReportLines]:
    """The window's reports that have charged lines, in journal order, a bounded batch in memory at a time.

    Raises what `usage_leaves.stream` and `shelf.reports` raise.
    """
    left = await retention.find(connection, window_no)
    if left is None:
        async for report in usage_leaves.stream(connection, window_no):
            yield report
        return
    async for kept in shelf.stream(context, left):
        if kept.lines:
            yield ReportLines(kept.digest, kept.body, kept.lines)


async def record(context: Context, connection: Connection, provider: str, record_id: UUID) -> SignedRecord | None:
    """One charged record of a provider; None when there is none. Raises Broken ``evidence_mismatch``."""
    found = await usage_leaves.find(connection, provider, record_id)
    if found is None:
        return await _retired(context, connection, provider, record_id)
    report, (line,) = found.report, found.report.lines
    (signed,) = signed_records(report)
    return SignedRecord(
        window_no=found.window_no,
        journal_seq=found.journal_seq,
        provider=provider,
        digest=report.digest,
        line=line.line,
        rates=line.rates,
        charge_pico=line.charge_pico,
        record_id=record_id.bytes,
        record=signed,
        consumer=found.consumer,
        index=found.before + line.line - found.refused_before,
        key=found.key,
        erased=found.erased,
        received_at=found.received_at,
    )


async def _retired(context: Context, connection: Connection, provider: str, record_id: UUID) -> SignedRecord | None:
    for report in await retention.candidates(connection, provider, record_id):
        left = await retention.find(connection, report.window_no)
        assert left is not None, "a report that has left is of a window that has"
        first = await usage_leaves.leaves_of_earlier(connection, report.window_no)
        first += await usage_leaves.leaves_before(connection, report.window_no, report.journal_seq)
        row = await shelf.record(context, left, report, first, record_id.bytes)
        if row is not None:
            return await _signed(connection, report, row, first)
    return None


async def _signed(connection: Connection, report: RetiredReport, row: Row, first: int) -> SignedRecord:
    key, erased = await usage_leaves.salt_of(connection, report.window_no, row["consumer"])
    return SignedRecord(
        window_no=report.window_no,
        journal_seq=report.journal_seq,
        provider=row["provider"],
        digest=row["report"],
        line=row["line"],
        rates=row["rates"],
        charge_pico=int(row["charge_pico"]),
        record_id=row["id"],
        record=json.loads(row["record"]),
        consumer=row["consumer"],
        index=first + row["line"] - sum(line < row["line"] for line in report.refused),
        key=key,
        erased=erased,
        received_at=report.received_at,
    )
