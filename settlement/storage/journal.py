"""Appending to the journal: the only place where a balance changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from settlement.core.errors import Broken, Insufficient
from settlement.core.journal import Entry, Head
from settlement.core.units import cu_text
from settlement.storage import accounts
from settlement.storage.accounts import Account
from settlement.storage.database import Connection, Cursor, array, raw_cursor
from settlement.storage.tables import journal_entry, journal_head

_HEAD = "SELECT seq, hash FROM journal_head FOR UPDATE"

APPEND = """
WITH legs AS (
    SELECT * FROM unnest(%(legs)s::int[], %(accounts)s::int[], %(amounts)s::bigint[]) AS l(leg, account_no, amount)
), entry AS (
    INSERT INTO journal_entry (seq, window_no, kind, subject, at, payload, previous, hash)
    VALUES (%(seq)s, %(window)s, %(kind)s, %(subject)s, %(at)s, %(payload)s, %(previous)s, %(hash)s)
), postings AS (
    INSERT INTO posting (entry_seq, leg, account_no, amount) SELECT %(seq)s, leg, account_no, amount FROM legs
), balances AS (
    UPDATE account SET settled = settled + d.amount
    FROM (SELECT account_no, sum(amount)::bigint AS amount FROM legs GROUP BY account_no) d WHERE no = d.account_no
)
UPDATE journal_head SET seq = %(seq)s, hash = %(hash)s
"""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row of the journal."""

    seq: int
    window_no: int
    kind: str
    subject: str
    at: datetime
    payload: bytes
    previous: bytes
    hash: bytes


async def append(connection: Connection, entry: Entry) -> Head:
    """Lock what the entry touches, check that nobody falls below zero, and write it. Returns the new head.

    The order of locks is the same everywhere: the window's gate (`windows.enter`), accounts by number, the head.
    Raises Insufficient when a consumer's, provider's, suspense or transit balance does not cover its leg.
    """
    touched = {leg.account for leg in entry.postings}
    locked = await accounts.lock(connection, touched)
    missing = touched - locked.keys()
    if missing:
        raise Broken("account_missing", f"{entry.kind} {entry.subject} posts to unknown accounts {sorted(missing)}")
    _check_floors(entry, locked)
    return await append_locked(connection, entry, {name: found.no for name, found in locked.items()})


async def append_locked(connection: Connection, entry: Entry, numbers: Mapping[str, int]) -> Head:
    """Write an entry whose accounts are locked already; `numbers` are their row numbers. Returns the new head."""
    async with raw_cursor(connection) as cursor:
        previous = await lock_head(cursor)
        written = written_after(previous, entry, numbers)
        await cursor.execute(APPEND, written.values)
    return written.head


@dataclass(frozen=True, slots=True)
class Written:
    """An entry at its place in the chain: the new head, and the values of the statement `APPEND`."""

    head: Head
    values: Mapping[str, Any]


async def lock_head(cursor: Cursor) -> Head:
    """The end of the chain, locked until the transaction ends: the last lock that anybody takes."""
    await cursor.execute(_HEAD)
    row = await cursor.fetchone()
    assert row is not None, "journal_head has its one row from the migration"
    return Head(row[0], row[1])


def written_after(previous: Head, entry: Entry, numbers: Mapping[str, int]) -> Written:
    """What `APPEND` needs to write `entry` behind `previous`. Raises Broken when the entry does not balance."""
    payload = entry.payload()
    head = previous.extended(payload)
    values = {
        "legs": array(range(len(entry.postings))),
        "accounts": array(numbers[leg.account] for leg in entry.postings),
        "amounts": array(leg.amount for leg in entry.postings),
        "seq": head.seq,
        "window": entry.window,
        "kind": entry.kind,
        "subject": entry.subject,
        "at": entry.at,
        "payload": payload,
        "previous": previous.hash,
        "hash": head.hash,
    }
    return Written(head, values)


async def head(connection: Connection) -> Head:
    """The end of the chain as this transaction sees it."""
    row = (await connection.execute(select(journal_head.c.seq, journal_head.c.hash))).one()
    return Head(row.seq, row.hash)


async def stream(connection: Connection, first: int = 1, last: int | None = None) -> AsyncIterator[StoredEntry]:
    """Entries in order, from `first` to `last`, without holding them all in memory."""
    query = select(journal_entry).where(journal_entry.c.seq >= first).order_by(journal_entry.c.seq)
    if last is not None:
        query = query.where(journal_entry.c.seq <= last)
    async with connection.stream(query) as rows:
        async for row in rows:
            yield _entry(row)


def _check_floors(entry: Entry, locked: Mapping[str, Account]) -> None:
    change: dict[str, int] = {}
    for leg in entry.postings:
        change[leg.account] = change.get(leg.account, 0) + leg.amount
    for name, amount in change.items():
        found = locked[name]
        if amount < 0 and found.kind not in accounts.OURS and found.available + amount < 0:
            short = -(found.available + amount)
            raise Insufficient("insufficient_balance", f"{name} is short of {cu_text(short)} CU for {entry.kind}")


def _entry(row: Row[Any]) -> StoredEntry:
    return StoredEntry(row.seq, row.window_no, row.kind, row.subject, row.at, row.payload, row.previous, row.hash)
