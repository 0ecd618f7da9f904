"""What the leaves of a window's usage records are made of: signed bodies, charged lines, and salt keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text

from settlement.core.checkpoints import SALT_KEY_SIZE
from settlement.core.errors import Broken
from settlement.core.ids import Entropy
from settlement.core.leaves import ChargedLine
from settlement.core.tiles import TILE_WIDTH
from settlement.storage.database import Connection, Cursor, raw_cursor
from settlement.storage.tables import checkpoint, party, record_salt
from settlement.storage.usage import decompress

BATCH_RECORDS = 10_000
BATCH_BYTES = 4 * 1024 * 1024
"""How much is read at a time: at least one report, at most this many records and bytes of stored bodies of several."""
_PAGE = 1_000

_HEADS = """
SELECT no, journal_seq, accepted, octet_length(body) FROM usage_report
WHERE window_no = %(window)s AND journal_seq > %(after)s AND accepted > 0 ORDER BY journal_seq LIMIT %(limit)s
"""

_BODIES = "SELECT no, digest, accepted, body FROM usage_report WHERE no = ANY(%(numbers)s) ORDER BY journal_seq"

_LINES = """
SELECT report_no, line, uuid_send(id), charge_pico, rates_version FROM usage_record
WHERE window_no = %(window)s AND report_no BETWEEN %(first)s AND %(last)s AND report_no = ANY(%(numbers)s)
ORDER BY report_no, line
"""

_KEYS = """
INSERT INTO record_salt (window_no, consumer_no, key)
SELECT %(window)s, c.no, c.key FROM unnest(%(consumers)s::int[], %(keys)s::bytea[]) AS c(no, key)
"""

_CONSUMERS = """
SELECT p.no, p.id FROM party p
WHERE p.no IN (SELECT consumer_no FROM obligation WHERE window_no = %(window)s) ORDER BY p.no
"""


_MARK = text("""
INSERT INTO tree_mark (window_no, journal_seq, leaves)
SELECT :window, journal_seq, leaves FROM (
    SELECT journal_seq, leaves, lag(leaves) OVER (ORDER BY journal_seq) AS earlier FROM (
        SELECT journal_seq, sum(accepted) OVER (ORDER BY journal_seq) - accepted AS leaves
        FROM usage_report WHERE window_no = :window AND accepted > 0
    ) counted
) placed
WHERE leaves / :width > earlier / :width
""")

_BEFORE = text("""
SELECT coalesce(m.leaves, 0) + coalesce((
    SELECT sum(accepted) FROM usage_report
    WHERE window_no = :window AND journal_seq >= coalesce(m.journal_seq, 0) AND journal_seq < :seq
), 0)
FROM (VALUES (true)) one LEFT JOIN LATERAL (
    SELECT journal_seq, leaves FROM tree_mark WHERE window_no = :window AND journal_seq <= :seq
    ORDER BY journal_seq DESC LIMIT 1
) m ON true
""")

_FIND = text("""
SELECT u.window_no, u.report_no, u.line, u.charge_pico, u.rates_version, r.journal_seq, r.digest, r.body, r.refusals,
    r.received_at, consumer.id AS consumer, s.key, s.hashes,
    coalesce(e.tree_size, 0) + coalesce(m.leaves, 0) + coalesce((
        SELECT sum(accepted) FROM usage_report
        WHERE window_no = u.window_no AND journal_seq >= coalesce(m.journal_seq, 0) AND journal_seq < r.journal_seq
    ), 0) AS before
FROM usage_record u
JOIN party provider ON provider.no = u.provider_no
JOIN party consumer ON consumer.no = u.consumer_no
JOIN usage_report r ON r.no = u.report_no
LEFT JOIN record_salt s ON s.window_no = u.window_no AND s.consumer_no = u.consumer_no
LEFT JOIN checkpoint e ON e.window_no = u.window_no - 1
LEFT JOIN LATERAL (
    SELECT journal_seq, leaves FROM tree_mark WHERE window_no = u.window_no AND journal_seq <= r.journal_seq
    ORDER BY journal_seq DESC LIMIT 1
) m ON true
WHERE u.id = :record AND provider.id = :provider
""")


@dataclass(frozen=True, slots=True)
class ReportLines:
    """A report's signed body, its digest, and the lines that were charged, in order."""

    digest: bytes
    body: bytes
    lines: Sequence[ChargedLine]


@dataclass(frozen=True, slots=True)
class RecordEvidence:
    """Where one record is: its report, its line in it, and the salt key; the key is None before the checkpoint, and
    once it was erased. `before` counts the leaves of the record tree before those of its report."""

    window_no: int
    report_no: int
    journal_seq: int
    report: ReportLines
    refused_before: int
    before: int
    consumer: str
    key: bytes | None
    erased: bool
    received_at: datetime


async def make_salt_keys(connection: Connection, window_no: int, entropy: Entropy) -> dict[str, bytes]:
    """A fresh salt key for each consumer with usage in the window, by consumer id."""
    async with raw_cursor(connection) as cursor:
        await cursor.execute(_CONSUMERS, {"window": window_no})
        consumers = await cursor.fetchall()
        drawn = entropy(SALT_KEY_SIZE * len(consumers))
        keys = [drawn[at : at + SALT_KEY_SIZE] for at in range(0, len(drawn), SALT_KEY_SIZE)]
        values = {"window": window_no, "consumers": [no for no, _ in consumers], "keys": keys}
        await cursor.execute(_KEYS, values)
    return {name: key for (_, name), key in zip(consumers, keys, strict=True)}


async def salt_keys(connection: Connection, window_no: int) -> dict[str, bytes]:
    """The salt keys of a window that has them, by consumer id; those that were erased are left out."""
    return {name: key for name, key, _ in await salts(connection, window_no) if key is not None}


async def salts(connection: Connection, window_no: int) -> list[tuple[str, bytes | None, bytes | None]]:
    """(consumer, key, hashes) of a window that has a checkpoint: a key, or the leaf hashes that are left of it."""
    query = select(party.c.id, record_salt.c.key, record_salt.c.hashes)
    query = query.join(party, party.c.no == record_salt.c.consumer_no).where(record_salt.c.window_no == window_no)
    return [(row.id, row.key, row.hashes) for row in await connection.execute(query.order_by(party.c.no))]


async def salt_of(connection: Connection, window_no: int, consumer: str) -> tuple[bytes | None, bool]:
    """A consumer's salt key in a window, and whether it was erased."""
    query = select(record_salt.c.key, record_salt.c.hashes).join(party, party.c.no == record_salt.c.consumer_no)
    query = query.where(record_salt.c.window_no == window_no, party.c.id == consumer)
    row = (await connection.execute(query)).first()
    return (None, False) if row is None else (row.key, row.hashes is not None)


async def stream(connection: Connection, window_no: int) -> AsyncIterator[ReportLines]:
    """The window's reports that have charged lines, in journal order, a bounded batch in memory at a time.

    Raises Broken ``evidence_mismatch`` when a report hasn't as many records on file as it says were accepted.
    """
    async with raw_cursor(connection) as cursor:
        async for numbers in _batches(cursor, window_no):
            async for report in _reports(cursor, window_no, numbers):
                yield report


async def find(connection: Connection, provider_id: str, record_id: UUID) -> RecordEvidence | None:
    """The evidence of one record of a provider."""
    row = (await connection.execute(_FIND, {"record": record_id, "provider": provider_id})).first()
    if row is None:
        return None
    charged = ChargedLine(row.line, record_id.bytes, row.charge_pico, row.rates_version)
    refused = sum(refusal["line"] < row.line for refusal in row.refusals)
    report = ReportLines(row.digest, decompress(row.body), [charged])
    return RecordEvidence(
        row.window_no,
        row.report_no,
        row.journal_seq,
        report,
        refused,
        int(row.before),
        row.consumer,
        row.key,
        row.hashes is not None,
        row.received_at,
    )


async def leaves_of_earlier(connection: Connection, window_no: int) -> int:
    """How many leaves the record tree has before those of the window, which has a checkpoint or is the next one."""
    query = select(checkpoint.c.tree_size).where(checkpoint.c.window_no == window_no - 1)
    return (await connection.execute(query)).scalar_one_or_none() or 0


async def leaves_before(connection: Connection, window_no: int, journal_seq: int) -> int:
    """How many leaves of the window come before those of the report with that journal number.

    Counted from the last mark before it: at most a tile's width of reports.
    """
    values = {"window": window_no, "seq": journal_seq}
    return int((await connection.execute(_BEFORE, values)).scalar_one())


async def mark(connection: Connection, window_no: int) -> None:
    """Mark the first report behind each full tile's width of the window's leaves, for `leaves_before`."""
    await connection.execute(_MARK, {"window": window_no, "width": TILE_WIDTH})


async def _batches(cursor: Cursor, window_no: int) -> AsyncIterator[list[int]]:
    """Row numbers of reports, in journal order, as many as fit a batch."""
    after = 0
    batch: list[int] = []
    records = size = 0
    while True:
        await cursor.execute(_HEADS, {"window": window_no, "after": after, "limit": _PAGE})
        heads = await cursor.fetchall()
        for number, seq, accepted, length in heads:
            after = seq
            if batch and (records + accepted > BATCH_RECORDS or size + length > BATCH_BYTES):
                yield batch
                batch, records, size = [], 0, 0
            batch.append(number)
            records, size = records + accepted, size + length
        if len(heads) < _PAGE:
            break
    if batch:
        yield batch


async def _reports(cursor: Cursor, window_no: int, numbers: Sequence[int]) -> AsyncIterator[ReportLines]:
    span = {"window": window_no, "first": min(numbers), "last": max(numbers), "numbers": list(numbers)}
    lines: dict[int, list[ChargedLine]] = {number: [] for number in numbers}
    await cursor.execute(_LINES, span)
    for number, line, record_id, pico, rates in await cursor.fetchall():
        lines[number].append(ChargedLine(line, record_id, pico, rates))
    await cursor.execute(_BODIES, {"numbers": list(numbers)})
    for number, digest, accepted, body in await cursor.fetchall():
        if len(lines[number]) != accepted:
            detail = f"usage report {number} has {len(lines[number])} records on file, {accepted} were accepted"
            raise Broken("evidence_mismatch", detail)
        yield ReportLines(digest, decompress(body), lines[number])
