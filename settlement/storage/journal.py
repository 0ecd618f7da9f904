"""Appending to the journal: the only place where a balance changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import psycopg
from sqlalchemy import Row, select

from settlement.core.errors import Broken, Insufficient
from settlement.core.journal import Entry, Head, Kind
from settlement.core.units import cu_text
from settlement.storage import accounts
from settlement.storage.accounts import Account
from settlement.storage.database import Connection, array, driver, raw_cursor
from settlement.storage.tables import journal_entry, journal_head

LOCK_HEAD = "SELECT seq, hash, kid FROM journal_head FOR UPDATE"

_ENTRY = """
INSERT INTO journal_entry (seq, window_no, kind, subject, at, payload, previous, hash)
VALUES (%(seq)s, %(window)s, %(kind)s, %(subject)s, %(at)s, %(payload)s, %(previous)s, %(hash)s)
"""

_POSTINGS = """
WITH legs AS (
    SELECT * FROM unnest(%(seqs)s::bigint[], %(legs)s::int[], %(accounts)s::int[], %(amounts)s::bigint[])
        AS l(entry_seq, leg, account_no, amount)
), postings AS (
    INSERT INTO posting (entry_seq, leg, account_no, amount) SELECT entry_seq, leg, account_no, amount FROM legs
), balances AS (
    UPDATE account SET settled = settled + d.amount, held = held + d.reserved
    FROM (
        SELECT account_no, sum(amount)::bigint AS amount, sum(reserved)::bigint AS reserved FROM (
            SELECT account_no, amount, 0 AS reserved FROM legs
            UNION ALL SELECT no, 0, amount FROM unnest(%(holding)s::int[], %(reserved)s::bigint[]) AS h(no, amount)
        ) c GROUP BY account_no
    ) d WHERE no = d.account_no
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


async def hold_head(connection: Connection) -> None:
    """Nothing else is booked before this transaction ends. After the locks of all accounts that it will post to."""
    async with raw_cursor(connection) as cursor:
        await cursor.execute(LOCK_HEAD)


async def append_locked(connection: Connection, entry: Entry, numbers: Mapping[str, int]) -> Head:
    """Write an entry whose accounts are locked already; `numbers` are their row numbers. Returns the new head."""
    async with raw_cursor(connection) as cursor:
        await cursor.execute(LOCK_HEAD)
        written = written_after(locked_head(await cursor.fetchone()), entry, numbers)
    connected = await driver(connection)
    async with connected.pipeline():
        await send(connected, [written])
    return written.head


@dataclass(frozen=True, slots=True)
class Written:
    """An entry at its place in the chain, with the row numbers of the accounts that it posts to."""

    entry: Entry
    payload: bytes
    previous: bytes
    head: Head
    accounts: Sequence[int]


def locked_head(row: Any) -> Head:
    """The end of the chain from the row of `LOCK_HEAD`: the last lock that anybody takes."""
    assert row is not None, "journal_head has its one row from the migration"
    return Head(row[0], row[1])


def written_after(previous: Head, entry: Entry, numbers: Mapping[str, int]) -> Written:
    """`entry` behind `previous`. Raises Broken when it does not balance."""
    payload = entry.payload()
    accounts = [numbers[leg.account] for leg in entry.postings]
    return Written(entry, payload, previous.hash, previous.extended(payload), accounts)


async def send(
    connected: psycopg.AsyncConnection[Any],
    written: Sequence[Written],
    reserved: Mapping[int, int] = MappingProxyType({}),
) -> None:
    """Write consecutive entries with their postings and balances; the caller opens the pipeline and waits for it.

    `reserved` is what holds reserve more, by account number. It goes into the same update: a row that a transaction
    updates a second time has its foreign keys checked again.
    """
    for each in written:
        values = {
            "seq": each.head.seq,
            "window": each.entry.window,
            "kind": each.entry.kind,
            "subject": each.entry.subject,
            "at": each.entry.at,
            "payload": each.payload,
            "previous": each.previous,
            "hash": each.head.hash,
        }
        await connected.cursor().execute(_ENTRY, values)
    legs = [(each.head.seq, place) for each in written for place in range(len(each.accounts))]
    values = {
        "seqs": array(seq for seq, _ in legs),
        "legs": array(place for _, place in legs),
        "accounts": array(number for each in written for number in each.accounts),
        "amounts": array(leg.amount for each in written for leg in each.entry.postings),
        "holding": array(reserved),
        "reserved": array(reserved.values()),
        "seq": written[-1].head.seq,
        "hash": written[-1].head.hash,
    }
    await connected.cursor().execute(_POSTINGS, values)


async def facts_of(connection: Connection, kind: Kind, subject: str) -> dict[str, Any] | None:
    """The facts of the one entry of a kind about a subject."""
    query = select(journal_entry.c.payload).where(journal_entry.c.kind == kind, journal_entry.c.subject == subject)
    payload = (await connection.execute(query)).scalar_one_or_none()
    return None if payload is None else dict(json.loads(payload)["facts"])


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
