"""What has left the database, read from its sealed segments: the same reports and records, from another place.

Whoever reads all of a window has the digest of its files checked; whoever reads one record must hold it to something
that was signed.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from settlement.core import ids, times
from settlement.core.errors import Broken, Unavailable
from settlement.core.leaves import ChargedLine
from settlement.services import segments
from settlement.services.context import Context
from settlement.services.segments import Row, Segment
from settlement.storage.retention import Retired, RetiredReport

Item = TypeVar("Item")

CODES = frozenset(
    {"archive_mismatch", "archive_not_configured", "segment_changed", "segment_malformed", "segment_missing"}
)
"""What can be wrong with what has left."""
_AT_A_TIME = 64


@dataclass(frozen=True, slots=True)
class KeptReport:
    """A report as it was signed, with its charged lines; `consumers` are theirs, one a line."""

    journal_seq: int
    provider: str
    digest: bytes
    body: bytes
    lines: list[ChargedLine]
    consumers: list[str]


def folder_of(context: Context) -> Path:
    """The folder that segments are kept in. Raises Unavailable ``archive_not_configured``."""
    if context.archive is None:
        raise Unavailable("archive_not_configured", "set SETTLEMENT_ARCHIVE_DIR to the folder that keeps segments")
    return context.archive


def sealed(left: Retired) -> tuple[Segment, Segment]:
    """The segments of records and of reports."""
    return (
        Segment("records", f"sha256:{left.records_digest.hex()}", left.records_bytes, left.records),
        Segment("reports", f"sha256:{left.reports_digest.hex()}", left.reports_bytes, left.reports),
    )


def reports(folder: Path, records: Segment, signed: Segment) -> Iterator[KeptReport]:
    """A window's reports in journal order, each with its charged lines.

    Raises Broken ``segment_changed`` or ``archive_mismatch``, Unavailable ``segment_missing``, Malformed.
    """
    rows = segments.rows(folder, records)
    for report in segments.rows(folder, signed):
        mine = list(islice(rows, report["accepted"]))
        if len(mine) != report["accepted"] or any(row["report"] != report["digest"] for row in mine):
            raise Broken("archive_mismatch", f"report {report['id']} has not the records that it accepted")
        yield KeptReport(
            report["journal_seq"],
            report["provider"],
            report["digest"],
            report["body"],
            [charged(row) for row in mine],
            [row["consumer"] for row in mine],
        )
    if next(rows, None) is not None:
        raise Broken("archive_mismatch", "the segment of records has more of them than the reports accepted")


def charged(row: Row) -> ChargedLine:
    """What the books said of the record in a row."""
    return ChargedLine(row["line"], row["id"], int(row["charge_pico"]), row["rates"])


async def stream(context: Context, left: Retired) -> AsyncIterator[KeptReport]:
    """`reports` of a window that has left, read beside the event loop, a few in memory at a time."""
    folder, (records, signed) = folder_of(context), sealed(left)
    async for report in _threaded(lambda: reports(folder, records, signed)):
        yield report


async def records(context: Context, left: Retired, party: str) -> AsyncIterator[Row]:
    """A party's records in a window that has left, in the order of the tree. Raises as `reports` does."""
    folder, (kept, _) = folder_of(context), sealed(left)
    async for row in _threaded(lambda: segments.rows(folder, kept, party)):
        yield row


async def rated(
    context: Context, left: Retired, party: str
) -> tuple[list[int], list[tuple[datetime, list[str]]], set[datetime]]:
    """Of a party's records in a window that has left: the versions that rated them, their days with consumers, and when
    the holds that they name were made."""
    versions: set[int] = set()
    made: set[datetime] = set()
    days: dict[datetime, set[str]] = {}
    async for row in records(context, left, party):
        versions.add(row["rates"])
        record = json.loads(row["record"])
        at = times.parse(record["at"])
        if "hold" in record:
            made.add(ids.made_at(record["hold"]))
        days.setdefault(at.replace(hour=0, minute=0, second=0, microsecond=0), set()).add(row["consumer"])
    return sorted(versions), [(day, sorted(consumers)) for day, consumers in sorted(days.items())], made


async def record(context: Context, left: Retired, report: RetiredReport, first: int, record_id: bytes) -> Row | None:
    """One record of a report whose leaves begin at index `first`. Its digest is for the caller to check."""
    folder, (kept, _) = folder_of(context), sealed(left)

    def wanted(row: Row) -> bool:
        return bool(row["id"] == record_id and row["report"] == report.digest)

    return await asyncio.to_thread(segments.find, folder, kept, first, first + report.accepted - 1, wanted)


def check_present(context: Context, left: Retired) -> None:
    """Both files are there in their sizes. Raises Unavailable ``segment_missing``, Broken ``segment_changed``."""
    for segment in sealed(left):
        segments.check_present(folder_of(context), segment)


def copy(context: Context, left: Retired, folder: Path) -> tuple[Segment, Segment]:
    """Put both segments into another folder, under the same names."""
    found = sealed(left)
    for segment in found:
        source = segments.check_present(folder_of(context), segment)
        if not folder.joinpath(segment.name).exists():
            shutil.copy(source, folder.joinpath(segment.name))
    return found


async def _threaded(make: Callable[[], Iterator[Item]]) -> AsyncIterator[Item]:
    items = make()
    while chunk := await asyncio.to_thread(lambda: list(islice(items, _AT_A_TIME))):
        for item in chunk:
            yield item
