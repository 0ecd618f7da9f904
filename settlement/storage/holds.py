"""Holds: the SQL of a hot path (decision 14). Any number of requests share two round trips, the second with the commit.

Everything that a step depends on is locked first, in the one order (holds by id, budgets by number and period, accounts
by number), the core decides, and one guarded update for each table writes what it decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from settlement.core.budgets import Budget, Period, Use
from settlement.core.captures import HoldTerms
from settlement.core.errors import Broken
from settlement.core.holds import Hold
from settlement.storage import pauses
from settlement.storage.database import Connection, Restart, array, driver, texts

_KEYS = """
SELECT k.id, k.secret_hash, k.scopes, k.budget_no, p.no, p.id, p.kind, p.status,
       (SELECT coalesce(max(version), 0) FROM offer WHERE p.kind = 'provider' AND provider_no = p.no)
FROM api_key k JOIN party p ON p.no = k.party_no WHERE k.id = ANY(%(keys)s::text[]) AND k.revoked_at IS NULL
"""

_STANDING_KEYS = """
{keys}
UNION ALL
SELECT k.id, k.secret_hash, k.scopes, k.budget_no, p.no, p.id, p.kind, p.status, 0
FROM api_key k JOIN party p ON p.no = k.party_no
WHERE k.id IN (SELECT key_id FROM hold WHERE id = ANY(%(ids)s::text[])) AND k.revoked_at IS NULL
"""
"""Who asks, and the spending keys of the holds."""

_GOVERNING = """
SELECT (SELECT coalesce(max(version), 0) FROM rate_table),
       (SELECT document FROM policy WHERE effective_from <= %(now)s ORDER BY effective_from DESC LIMIT 1)
"""
_ANY_PLAN = "SET LOCAL plan_cache_mode = force_generic_plan"
"""These statements have one good plan whatever is asked for; made again for each, it takes a tenth of their time."""

_ARRIVING = """
SELECT (SELECT coalesce(max(version), 0) FROM rate_table), (SELECT coalesce(max(number), 0) FROM demand), {columns}
FROM {source}
"""

_HOLD = """
SELECT h.id, h.request::text, h.fingerprint, h.provider_no, h.consumer_no, c.id, h.key_id, h.budget_no, h.model, h.tier,
       h.rates_version, h.meters, h.demand, h.requests, h.amount, h.output_tokens, h.slice, h.at_end, h.expires_in,
       h.created_at, h.expires_at, h.max_output_tokens, h.final_action, h.absorb, h.grants, h.uses, h.captured,
       h.released, h.late, h.state, h.ended_at
FROM hold h JOIN party c ON c.no = h.consumer_no
"""

_KNOWN = """
{hold} WHERE (h.request, h.provider_no) IN (
    SELECT w.request, k.party_no FROM unnest(%(requests)s::uuid[], %(keys)s::text[]) AS w(request, key)
    JOIN api_key k ON k.id = w.key)
"""

_FIND = "{hold} WHERE h.id = ANY(%(ids)s::text[])"
_LOCK = "{hold} WHERE h.id = ANY(%(ids)s::text[]) ORDER BY h.id FOR UPDATE OF h"

_BUDGETS = """
SELECT b.no, b.id, b.path, b.name, b.per_request, b.per_day, b.per_month, b.models, b.providers, b.alert_at
FROM budget b WHERE b.no IN (SELECT unnest(leaf.path || leaf.no) FROM budget leaf WHERE leaf.no IN ({leaves}))
"""

_KEY_LEAVES = "SELECT budget_no FROM api_key WHERE id = ANY(%(keys)s::text[])"
_HOLD_LEAVES = "SELECT budget_no FROM hold WHERE id = ANY(%(ids)s::text[])"

_OPEN_PERIODS = """
INSERT INTO budget_use (budget_no, period)
SELECT DISTINCT n.no, p.period FROM budget leaf CROSS JOIN LATERAL unnest(leaf.path || leaf.no) AS n(no)
CROSS JOIN unnest(%(periods)s::text[]) AS p(period) WHERE leaf.no IN ({leaves}) ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""

_KEY_USES = """
SELECT u.budget_no, u.period, u.used, u.alerted FROM budget_use u
WHERE u.period = ANY(%(periods)s::text[]) AND u.budget_no IN (
    SELECT unnest(leaf.path || leaf.no) FROM budget leaf WHERE leaf.no IN ({leaves}))
ORDER BY u.budget_no, u.period FOR UPDATE
"""

_HOLD_USES = """
SELECT u.budget_no, u.period, u.used, u.alerted FROM budget_use u JOIN (
    SELECT DISTINCT n.no, p.period FROM hold h JOIN budget leaf ON leaf.no = h.budget_no
    CROSS JOIN LATERAL unnest(leaf.path || leaf.no) AS n(no)
    CROSS JOIN LATERAL (VALUES (to_char(h.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
                               (to_char(h.created_at AT TIME ZONE 'UTC', 'YYYY-MM'))) AS p(period)
    WHERE h.id = ANY(%(ids)s::text[])
) w ON w.no = u.budget_no AND w.period = u.period
ORDER BY u.budget_no, u.period FOR UPDATE OF u
"""

_ACCOUNTS = """
SELECT a.party_no, a.no, a.settled - a.held FROM account a WHERE a.party_no IN ({parties}) ORDER BY a.no FOR UPDATE
"""
_KEY_PARTIES = "SELECT party_no FROM api_key WHERE id = ANY(%(keys)s::text[])"
_HOLD_PARTIES = "SELECT consumer_no FROM hold WHERE id = ANY(%(ids)s::text[])"

_RESERVE = """
WITH reserved AS (
    UPDATE account a SET held = a.held + d.amount
    FROM unnest(%(numbers)s::int[], %(amounts)s::bigint[]) AS d(no, amount)
    WHERE a.no = d.no AND a.settled - a.held >= d.amount RETURNING 1
) SELECT 1 / (count(*) = %(expected)s)::int FROM reserved
"""
"""The guard: where an account does not cover what was decided under its lock, it divides by zero, and all is undone."""

_SPEND = """
UPDATE budget_use u SET used = u.used + d.amount, alerted = greatest(u.alerted, d.alerted)
FROM unnest(%(numbers)s::int[], %(periods)s::text[], %(amounts)s::bigint[], %(alerted)s::int[])
    AS d(no, period, amount, alerted)
WHERE u.budget_no = d.no AND u.period = d.period
"""

_INSERT = """
INSERT INTO hold (id, request, fingerprint, provider_no, consumer_no, key_id, budget_no, model, tier, rates_version,
                  meters, max_output_tokens, requests, amount, grants, output_tokens, slice, at_end, final_action,
                  absorb, expires_in, state, created_at, expires_at, demand)
SELECT h.id, h.request, decode(h.fingerprint, 'hex'), h.provider_no, h.consumer_no, h.key_id, h.budget_no, h.model,
       h.tier, h.rates_version, h.meters, h.max_output_tokens, h.requests, h.amount, 1, h.output_tokens, h.slice,
       h.at_end, h.final_action, h.absorb, h.expires_in, 'open', h.created_at, h.expires_at, h.demand
FROM json_to_recordset(%(rows)s::json) AS h(
    id text, request uuid, fingerprint text, provider_no int, consumer_no int, key_id text, budget_no int, model text,
    tier text, rates_version int, meters jsonb, max_output_tokens int, requests int, amount bigint, output_tokens int,
    slice int, at_end bool, final_action text, absorb bigint, expires_in int, created_at timestamptz,
    expires_at timestamptz, demand int)
"""

_CHANGE = """
UPDATE hold h SET meters = coalesce(d.meters, h.meters), uses = d.uses, amount = d.amount, captured = d.captured,
    released = d.released, late = d.late, grants = d.grants, output_tokens = d.output_tokens, slice = d.slice,
    at_end = d.at_end, state = d.state, expires_at = d.expires_at, ended_at = d.ended_at
FROM json_to_recordset(%(rows)s::json) AS d(
    id text, meters jsonb, uses int, amount bigint, captured bigint, released bigint, late bigint, grants int,
    output_tokens int, slice int, at_end bool, state text, expires_at timestamptz, ended_at timestamptz)
WHERE h.id = d.id
"""

_CAPTURE = """
UPDATE hold h SET uses = d.uses, captured = d.captured, released = d.released, late = d.late, state = d.state,
    ended_at = nullif(d.ended_at, '')::timestamptz
FROM unnest(%(ids)s::text[], %(uses)s::int[], %(captured)s::bigint[], %(released)s::bigint[], %(late)s::bigint[],
            %(states)s::text[], %(ended)s::text[]) AS d(id, uses, captured, released, late, state, ended_at)
WHERE h.id = d.id
"""

_DUE = """
SELECT h.id FROM hold h WHERE h.state = 'open' AND h.expires_at <= %(now)s
ORDER BY h.expires_at LIMIT %(limit)s
"""

_CAPTURES = """
INSERT INTO hold_capture (report_no, line, hold_id, bound, taken, late)
SELECT * FROM unnest(%(reports)s::bigint[], %(lines)s::int[], %(holds)s::text[], %(bounds)s::bigint[],
                     %(taken)s::bigint[], %(late)s::bool[])
"""

_TERMS = """
SELECT h.id, p.id, c.id, h.model, h.tier, h.rates_version, h.demand
FROM hold h JOIN party p ON p.no = h.provider_no JOIN party c ON c.no = h.consumer_no
WHERE h.id = ANY(%(ids)s::text[])
"""


class KeyRow(Struct, frozen=True):
    """An API key that is not revoked, and whose it is."""

    secret_hash: bytes
    scopes: Sequence[str]
    budget_no: int | None
    party_no: int
    party: str
    kind: str
    status: str
    newest_offer: int


class Room(Struct):
    """A consumer's locked account: `available` goes down as is reserved."""

    account_no: int
    available: int


class StoredHold(Struct, frozen=True):
    """A hold with whose it is and what it is for."""

    id: str
    request: str
    fingerprint: bytes
    provider_no: int
    consumer_no: int
    consumer: str
    key_id: str
    budget_no: int | None
    model: str
    tier: str
    rates_version: int
    meters: Mapping[str, int]
    demand: int
    """The multiplier that was quoted with it, in ten-thousandths."""
    hold: Hold


class CaptureRow(Struct, frozen=True):
    """What the record in a line of a report took of a hold that had `bound` microCU left."""

    report_no: int
    line: int
    hold_id: str
    bound: int
    taken: int
    late: bool


@dataclass(slots=True)
class Locked:
    """What a step may change, locked: accounts by party number, budgets, and their uses by (number, period)."""

    rooms: dict[int, Room]
    budgets: dict[int, Budget]
    uses: dict[Period, Use]

    def chain(self, leaf: int | None) -> list[Budget]:
        """The budgets that bound a hold of that leaf, the leaf first."""
        if leaf is None:
            return []
        found = self.budgets[leaf]
        return [found, *(self.budgets[no] for no in reversed(found.path))]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What requests for holds meet."""

    newest_rates: int
    newest_demand: int
    standing: pauses.Standing
    keys: Mapping[str, KeyRow]
    known: dict[tuple[str, int], StoredHold]
    locked: Locked
    budgets_read: bool

    @property
    def whole(self) -> bool:
        """Whether the budgets of all keys are among what is locked."""
        return self.budgets_read or all(key.budget_no is None for key in self.keys.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """Holds that are about to change, locked. `keys` are who asks for it and the holds' spending keys, but for revoked
    ones; `policy` is the document in force."""

    newest_rates: int
    policy: bytes | None
    keys: Mapping[str, KeyRow]
    holds: dict[str, StoredHold]
    locked: Locked


async def arrive(
    connection: Connection,
    asked: Sequence[tuple[str, str, str]],
    periods: Sequence[str],
    now: datetime,
    *,
    with_budgets: bool,
) -> Arrival:
    """Read the keys and earlier holds of requests, and lock accounts and, if asked to, budgets of the consumers' keys.

    `asked` are (request, id of the provider's key, id of the consumer's key); nobody's secret is compared here. One
    round trip; the statements run one after the other, so each sees what was committed before its own start. Raises
    NotFound ``policy_not_in_force``.
    """
    connected = await driver(connection)
    newest, keys, known, budgets, uses, accounts = (connected.cursor(binary=True) for _ in range(6))
    consumers = texts({each[2] for each in asked})
    async with connected.pipeline():
        await connected.execute(_ANY_PLAN)
        await newest.execute(_ARRIVING.format(columns=pauses.COLUMNS, source=pauses.SOURCE), {"now": now})
        await keys.execute(_KEYS, {"keys": texts({key for _, *each in asked for key in each})})
        wanted = {"requests": texts(each[0] for each in asked), "keys": texts(each[1] for each in asked)}
        await known.execute(_KNOWN.format(hold=_HOLD), wanted)
        values = {"keys": consumers, "periods": texts(periods)}
        if with_budgets:
            await budgets.execute(_BUDGETS.format(leaves=_KEY_LEAVES), values)
            await connected.execute(_OPEN_PERIODS.format(leaves=_KEY_LEAVES), values)
            await uses.execute(_KEY_USES.format(leaves=_KEY_LEAVES), values)
        await accounts.execute(_ACCOUNTS.format(parties=_KEY_PARTIES), values)
    met = await newest.fetchone()
    assert met is not None, "a statement without a table has one row"
    version, demand, *columns = met
    return Arrival(
        newest_rates=version,
        newest_demand=demand,
        standing=pauses.standing(columns, now),
        keys={row[0]: KeyRow(*row[1:]) for row in await keys.fetchall()},
        known={(row[1], row[3]): _stored(row) for row in await known.fetchall()},
        locked=await (_locked(accounts, budgets, uses) if with_budgets else _locked(accounts)),
        budgets_read=with_budgets,
    )


async def lock(connection: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime) -> Standing:
    """Lock holds by id, and the budgets and accounts that they reserve on. Unknown ids are left out."""
    connected = await driver(connection)
    newest, asking, holds, budgets, uses, accounts = (connected.cursor(binary=True) for _ in range(6))
    values = {"ids": texts(set(ids))}
    async with connected.pipeline():
        await newest.execute(_GOVERNING, {"now": now})
        await asking.execute(_STANDING_KEYS.format(keys=_KEYS), {"keys": texts(set(keys)), **values})
        await holds.execute(_LOCK.format(hold=_HOLD), values)
        await budgets.execute(_BUDGETS.format(leaves=_HOLD_LEAVES), values)
        await uses.execute(_HOLD_USES, values)
        await accounts.execute(_ACCOUNTS.format(parties=_HOLD_PARTIES), values)
    version, policy = await newest.fetchone() or (0, None)
    return Standing(
        newest_rates=version,
        policy=policy,
        keys={row[0]: KeyRow(*row[1:]) for row in await asking.fetchall()},
        holds={row[0]: _stored(row) for row in await holds.fetchall()},
        locked=await _locked(accounts, budgets, uses),
    )


async def lock_for_capture(connection: Connection, ids: Sequence[str]) -> tuple[dict[str, StoredHold], Locked]:
    """Lock holds and their budgets, but no accounts: the report that captures them locks those with all others."""
    connected = await driver(connection)
    holds, budgets, uses = (connected.cursor(binary=True) for _ in range(3))
    values = {"ids": texts(set(ids))}
    async with connected.pipeline():
        await holds.execute(_LOCK.format(hold=_HOLD), values)
        await budgets.execute(_BUDGETS.format(leaves=_HOLD_LEAVES), values)
        await uses.execute(_HOLD_USES, values)
    return {row[0]: _stored(row) for row in await holds.fetchall()}, await _locked(None, budgets, uses)


async def find(connection: Connection, hold_id: str) -> StoredHold | None:
    """The hold as it stands."""
    return (await find_all(connection, [hold_id])).get(hold_id)


async def find_all(connection: Connection, ids: Sequence[str]) -> dict[str, StoredHold]:
    """Holds by id as they stand. Unknown ids are left out."""
    connected = await driver(connection)
    async with connected.cursor(binary=True) as cursor:
        await cursor.execute(_FIND.format(hold=_HOLD), {"ids": texts(ids)})
        return {row[0]: _stored(row) for row in await cursor.fetchall()}


async def terms_of(connection: Connection, ids: Sequence[str]) -> dict[str, HoldTerms]:
    """What never changes of holds. Unknown ids are left out."""
    connected = await driver(connection)
    async with connected.cursor(binary=True) as cursor:
        await cursor.execute(_TERMS, {"ids": texts(ids)})
        return {row[0]: HoldTerms(*row[1:]) for row in await cursor.fetchall()}


async def due(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Open holds whose time has run out, the oldest first. They are not locked yet."""
    connected = await driver(connection)
    async with connected.cursor(binary=True) as cursor:
        await cursor.execute(_DUE, {"now": now, "limit": limit})
        return [row[0] for row in await cursor.fetchall()]


async def store_new(connection: Connection, holds: Sequence[StoredHold], changes: Changes, *, commit: bool) -> None:
    """Write new holds and what they reserve; with `commit`, which then needs no way of its own, for good.

    Raises Restart when one of the requests was taken in meanwhile, and Broken ``hold_not_covered``.
    """
    if not holds:
        return
    connected = await driver(connection)
    rows = msgspec.json.encode([_new_row(each) for each in holds]).decode()
    with _guarded():
        async with connected.pipeline():
            await _send(connected, changes)
            await connected.execute(_INSERT, {"rows": rows})
            if commit:
                await connected.execute("COMMIT")


async def store_changes(
    connection: Connection, holds: Sequence[tuple[str, Hold, Mapping[str, int] | None]], changes: Changes
) -> None:
    """Write holds that were locked as they are now, with new meters where given, and what they reserve or free.

    Raises Broken ``hold_not_covered``.
    """
    if not holds:
        return
    connected = await driver(connection)
    rows = msgspec.json.encode([_changed_row(*each) for each in holds]).decode()
    with _guarded():
        async with connected.pipeline():
            await _send(connected, changes)
            await connected.execute(_CHANGE, {"rows": rows})


async def store_captures(
    connection: Connection, holds: Mapping[str, Hold], captures: Sequence[CaptureRow], changes: Changes
) -> None:
    """Write which records took what, their holds as they are now, and what budgets use; not what accounts hold."""
    if not captures:
        return
    connected = await driver(connection)
    after = holds.values()
    changed = {
        "ids": texts(holds),
        "uses": array(hold.uses for hold in after),
        "captured": array(hold.captured for hold in after),
        "released": array(hold.released for hold in after),
        "late": array(hold.late for hold in after),
        "states": texts(hold.state for hold in after),
        "ended": texts("" if hold.ended_at is None else hold.ended_at.isoformat() for hold in after),
    }
    values = {
        "reports": array(each.report_no for each in captures),
        "lines": array(each.line for each in captures),
        "holds": texts(each.hold_id for each in captures),
        "bounds": array(each.bound for each in captures),
        "taken": array(each.taken for each in captures),
        "late": texts("t" if each.late else "f" for each in captures),
    }
    async with connected.pipeline():
        await _send(connected, changes)
        await connected.execute(_CAPTURE, changed)
        await connected.execute(_CAPTURES, values)


class Changes:
    """What a transaction adds to what accounts hold and budgets use; below zero for what is given back."""

    def __init__(self) -> None:
        self.accounts: dict[int, int] = {}
        self.budgets: dict[Period, int] = {}
        self.alerted: dict[Period, int] = {}

    def reserve(self, account_no: int, amount: int) -> None:
        """Hold so much more on an account."""
        self.accounts[account_no] = self.accounts.get(account_no, 0) + amount

    def use(self, budget_no: int, period: str, amount: int) -> None:
        """Count so much more in a budget's period."""
        key = (budget_no, period)
        self.budgets[key] = self.budgets.get(key, 0) + amount


async def _send(connected: psycopg.AsyncConnection[Any], changes: Changes) -> None:
    accounts = {no: amount for no, amount in changes.accounts.items() if amount}
    if accounts:
        values = {"numbers": array(accounts), "amounts": array(accounts.values()), "expected": len(accounts)}
        await connected.execute(_RESERVE, values)
    uses = sorted(key for key in changes.budgets if changes.budgets[key] or key in changes.alerted)
    if uses:
        values = {
            "numbers": array(no for no, _ in uses),
            "periods": texts(period for _, period in uses),
            "amounts": array(changes.budgets[key] for key in uses),
            "alerted": array(changes.alerted.get(key, 0) for key in uses),
        }
        await connected.execute(_SPEND, values)


@contextmanager
def _guarded() -> Iterator[None]:
    """Say what the guards of these statements mean: another process was first, or the books are wrong."""
    try:
        yield
    except psycopg.errors.UniqueViolation:
        raise Restart("database_busy", "the same request was taken in at the same time; send it again") from None
    except psycopg.errors.DivisionByZero:
        detail = "an account does not cover what was reserved on it under its lock"
        raise Broken("hold_not_covered", detail) from None


async def _locked(
    accounts: psycopg.AsyncCursor[Any] | None,
    budgets: psycopg.AsyncCursor[Any] | None = None,
    uses: psycopg.AsyncCursor[Any] | None = None,
) -> Locked:
    rooms, chains, counted = [await cursor.fetchall() if cursor else [] for cursor in (accounts, budgets, uses)]
    return Locked(
        rooms={row[0]: Room(row[1], row[2]) for row in rooms},
        budgets={row[0]: Budget(*row) for row in chains},
        uses={(row[0], row[1]): Use(row[2], row[3]) for row in counted},
    )


def _stored(row: Sequence[Any]) -> StoredHold:
    names, hold = row[:13], Hold(*row[13:])
    return StoredHold(*names, hold)  # type: ignore[call-arg]  # mypy cannot count the columns of a row


def _new_row(stored: StoredHold) -> dict[str, Any]:
    hold = stored.hold
    return {
        "id": stored.id,
        "request": stored.request,
        "fingerprint": stored.fingerprint.hex(),
        "provider_no": stored.provider_no,
        "consumer_no": stored.consumer_no,
        "key_id": stored.key_id,
        "budget_no": stored.budget_no,
        "model": stored.model,
        "tier": stored.tier,
        "rates_version": stored.rates_version,
        "meters": stored.meters,
        "demand": stored.demand,
        "max_output_tokens": hold.max_output_tokens,
        "requests": hold.requests,
        "amount": hold.amount,
        "output_tokens": hold.output_tokens,
        "slice": hold.slice,
        "at_end": hold.at_end,
        "final_action": hold.final_action,
        "absorb": hold.absorb,
        "expires_in": hold.expires_in,
        "created_at": hold.created_at,
        "expires_at": hold.expires_at,
    }


def _changed_row(hold_id: str, hold: Hold, meters: Mapping[str, int] | None) -> dict[str, Any]:
    return {
        "id": hold_id,
        "meters": meters,
        "uses": hold.uses,
        "amount": hold.amount,
        "captured": hold.captured,
        "released": hold.released,
        "late": hold.late,
        "grants": hold.grants,
        "output_tokens": hold.output_tokens,
        "slice": hold.slice,
        "at_end": hold.at_end,
        "state": hold.state,
        "expires_at": hold.expires_at,
        "ended_at": hold.ended_at,
    }
