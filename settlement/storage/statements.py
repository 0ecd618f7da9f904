"""What a party's statement of one window is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from settlement.storage.database import Connection
from settlement.storage.usage import decompress

_BATCH = 8
"""Reports read at a time; each body can be megabytes."""

_REPORTS = text("""
SELECT r.no, r.journal_seq, r.digest, r.body, p.id AS provider,
       array_agg(u.line ORDER BY u.line) AS lines, array_agg(u.rates_version ORDER BY u.line) AS versions,
       array_agg(u.charge_pico ORDER BY u.line) AS picos, array_agg(u.id ORDER BY u.line) AS ids,
       array_agg(s.key ORDER BY u.line) AS keys
FROM usage_report r
JOIN usage_record u ON u.report_no = r.no AND u.window_no = r.window_no
JOIN party p ON p.no = r.provider_no
LEFT JOIN record_salt s ON s.window_no = u.window_no AND s.consumer_no = u.consumer_no
WHERE r.window_no = :window AND (u.provider_no = :party OR u.consumer_no = :party)
GROUP BY r.no, p.id ORDER BY r.journal_seq
""")

_POSTINGS = text("""
SELECT e.seq, e.kind, e.subject, e.at, sum(p.amount) AS amount
FROM posting p JOIN account a ON a.no = p.account_no JOIN journal_entry e ON e.seq = p.entry_seq
WHERE a.party_no = :party AND p.entry_seq BETWEEN :first AND :last
GROUP BY e.seq ORDER BY e.seq
""")

_OPENING = text("""
SELECT coalesce(sum(p.amount), 0) FROM posting p JOIN account a ON a.no = p.account_no
WHERE a.party_no = :party AND p.entry_seq < :first
""")

_DEPOSITS = text("""
SELECT e.seq, d.id, d.chain, d.tx, d.tx_index, d.asset, d.amount, d.credited, d.micro_per_unit, d.fixing, d.closed_at
FROM journal_entry e JOIN deposit d ON d.id = split_part(e.subject, '/', 1)
WHERE e.kind = 'deposit' AND e.seq BETWEEN :first AND :last AND d.party_no = :party ORDER BY e.seq
""")

_PAIRS = text("""
SELECT c.id AS consumer, p.id AS provider, o.records, o.carried_in, o.pico, o.posted
FROM obligation o JOIN party p ON p.no = o.provider_no JOIN party c ON c.no = o.consumer_no
WHERE o.window_no = :window AND (o.provider_no = :party OR o.consumer_no = :party) ORDER BY p.id, c.id
""")

_POSITION = text("""
SELECT s.*, q.account_id IS NOT NULL AS linked FROM party me
JOIN party q ON q.no = me.no OR q.account_id = me.id
JOIN position s ON s.party = q.id AND s.window_no = :window
WHERE me.no = :party
""")

_PAYOUTS = text("""
SELECT o.id, o.chain, o.asset, o.amount, o.micro, o.fixing, o.address, o.state, c.tx_id, c.ledger
FROM payout o LEFT JOIN chain_order c ON c.id = o.order_id AND c.state = 'settled'
WHERE o.window_no = :window AND o.party_no = :party AND o.kind = 'earnings' ORDER BY o.id
""")

_WITHDRAWALS = text("""
SELECT e.seq, o.id, o.chain, o.asset, o.amount, o.micro, o.fee, o.micro_per_unit, o.fixing, o.own_rate, o.address,
       o.reference, o.state, c.tx_id, c.ledger
FROM journal_entry e JOIN payout o ON o.id = e.subject
LEFT JOIN chain_order c ON c.id = o.order_id AND c.state = 'settled'
WHERE e.kind = 'withdrawal_planned' AND e.seq BETWEEN :first AND :last AND o.party_no = :party ORDER BY e.seq
""")

_DISPUTES = text("""
SELECT e.seq, d.id, d.window_no, w.opened_at, w.closed_at, d.record::text AS record, d.cause, d.award, d.penalty,
       sum(p.amount) AS amount
FROM journal_entry e JOIN dispute d ON d.id = split_part(e.subject, '/', 1) JOIN "window" w ON w.no = d.window_no
JOIN posting p ON p.entry_seq = e.seq JOIN account a ON a.no = p.account_no
WHERE e.kind IN ('dispute_ruled', 'dispute_paid') AND e.seq BETWEEN :first AND :last AND a.party_no = :party
GROUP BY e.seq, d.no, w.no ORDER BY e.seq
""")

_VERSIONS = text("""
SELECT DISTINCT rates_version FROM usage_record
WHERE window_no = :window AND (provider_no = :party OR consumer_no = :party) ORDER BY 1
""")

_DAYS = text("""
SELECT date_trunc('day', u.at AT TIME ZONE 'UTC') AS day, array_agg(DISTINCT c.id ORDER BY c.id) AS consumers
FROM usage_record u JOIN party c ON c.no = u.consumer_no
WHERE u.window_no = :window AND (u.provider_no = :party OR u.consumer_no = :party) GROUP BY 1 ORDER BY 1
""")

_HOLDS = text("""
SELECT DISTINCT h.created_at FROM usage_report r
JOIN hold_capture c ON c.report_no = r.no JOIN hold h ON h.id = c.hold_id
WHERE EXISTS (SELECT FROM demand) AND r.window_no = :window AND (h.provider_no = :party OR h.consumer_no = :party)
""")

_TABLES = text("SELECT version, digest, document, signatures FROM rate_table WHERE version = ANY(:versions) ORDER BY 1")


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a party: its place in the report's ``records``, its rates, its charge, the salt key if made."""

    line: int
    record_id: bytes
    rates: int
    charge_pico: int
    key: bytes | None


@dataclass(frozen=True, slots=True)
class ReportPart:
    """A report, with those of its records that are the party's. `body` is the signed bytes."""

    journal_seq: int
    digest: bytes
    provider: str
    body: bytes
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Posted:
    """What one journal entry did to a party's account."""

    seq: int
    kind: str
    subject: str
    at: datetime
    amount: int


async def reports(connection: Connection, window: int, party_no: int) -> AsyncIterator[ReportPart]:
    """The reports of a window that have records of the party, in journal order."""
    query = _REPORTS.execution_options(yield_per=_BATCH)
    async with connection.stream(query, {"window": window, "party": party_no}) as rows:
        async for row in rows:
            parts = zip(row.lines, row.ids, row.versions, row.picos, row.keys, strict=True)
            lines = tuple(Line(line, each.bytes, version, pico, key) for line, each, version, pico, key in parts)
            yield ReportPart(row.journal_seq, row.digest, row.provider, decompress(row.body), lines)


async def postings(connection: Connection, party_no: int, first: int, last: int) -> list[Posted]:
    """Every entry between two journal numbers that moved the party's balance."""
    rows = await connection.execute(_POSTINGS, {"party": party_no, "first": first, "last": last})
    return [Posted(row.seq, row.kind, row.subject, row.at, int(row.amount)) for row in rows]


async def opening(connection: Connection, party_no: int, first: int) -> int:
    """The party's balance before a journal number, in microCU."""
    return int((await connection.execute(_OPENING, {"party": party_no, "first": first})).scalar_one())


async def deposits(connection: Connection, party_no: int, first: int, last: int) -> list[dict[str, Any]]:
    """The deposits credited to the party between two journal numbers; `seq` is that of the crediting entry."""
    rows = await connection.execute(_DEPOSITS, {"party": party_no, "first": first, "last": last})
    return [dict(row) for row in rows.mappings()]


async def pairs(connection: Connection, window: int, party_no: int) -> list[dict[str, Any]]:
    """The party's obligations of a window, on either side."""
    return [dict(row) for row in (await connection.execute(_PAIRS, {"window": window, "party": party_no})).mappings()]


async def position(connection: Connection, window: int, party_no: int) -> dict[str, Any] | None:
    """The position of the party, or of the provider that named it as its own account."""
    row = (await connection.execute(_POSITION, {"window": window, "party": party_no})).mappings().first()
    return None if row is None else dict(row)


async def payouts(connection: Connection, window: int, party_no: int) -> list[dict[str, Any]]:
    """The party's payouts of a window, with the transaction by which each arrived."""
    rows = await connection.execute(_PAYOUTS, {"window": window, "party": party_no})
    return [dict(row) for row in rows.mappings()]


async def rate_versions(connection: Connection, window: int, party_no: int) -> list[int]:
    """The versions of the rate tables that the party's records of a window were charged by, ascending."""
    rows = await connection.execute(_VERSIONS, {"window": window, "party": party_no})
    return [row.rates_version for row in rows]


async def days(connection: Connection, window: int, party_no: int) -> list[tuple[datetime, list[str]]]:
    """The days (UTC) of a party's records of a window, with the consumers of each, in order."""
    rows = await connection.execute(_DAYS, {"window": window, "party": party_no})
    return [(row.day.replace(tzinfo=UTC), list(row.consumers)) for row in rows]


async def holds_made(connection: Connection, window: int, party_no: int) -> set[datetime]:
    """When the holds were made that the party's records of a window name; none while there is no step of demand."""
    rows = await connection.execute(_HOLDS, {"window": window, "party": party_no})
    return {row.created_at for row in rows}


async def withdrawals(connection: Connection, party_no: int, first: int, last: int) -> list[dict[str, Any]]:
    """The party's withdrawals booked between two journal numbers; `seq` is that of the entry that set it aside."""
    rows = await connection.execute(_WITHDRAWALS, {"party": party_no, "first": first, "last": last})
    return [dict(row) for row in rows.mappings()]


async def disputes(connection: Connection, party_no: int, first: int, last: int) -> list[dict[str, Any]]:
    """What disputes moved on the party's account between two journal numbers; `seq` is that of the entry."""
    rows = await connection.execute(_DISPUTES, {"party": party_no, "first": first, "last": last})
    return [dict(row) for row in rows.mappings()]


async def rate_tables(connection: Connection, versions: list[int]) -> list[dict[str, Any]]:
    """The rate tables by version."""
    return [dict(row) for row in (await connection.execute(_TABLES, {"versions": versions})).mappings()]
