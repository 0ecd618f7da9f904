"""Webhooks: endpoints, the events of participants that have one, and their deliveries.

The delivery's row is the queue: whoever claims one moves `next_at` to where the attempt counts as lost, and records its
end afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, func, insert, literal, select, text, update

from settlement.core.errors import NotFound
from settlement.storage.database import Connection
from settlement.storage.tables import party, webhook_delivery, webhook_endpoint, webhook_event
from settlement.storage.tables.base import WHEN


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a participant wants to be told. Its secrets are not here."""

    no: int
    id: str
    party_no: int
    url: str
    kinds: Sequence[str] | None
    state: str
    reason: str | None
    failing_since: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """What there is to tell: `body` is sent as it is."""

    id: str
    party_no: int
    kind: str
    subject: str
    at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far the delivery of an event to an endpoint has come."""

    no: int
    event_id: str
    kind: str
    at: datetime
    state: str
    attempts: int
    next_at: datetime
    last_at: datetime | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is due, and this process's to try: attempt number `attempts`."""

    no: int
    attempts: int
    failures: int
    until: datetime
    endpoint_no: int
    url: str
    secrets: Sequence[bytes]
    event_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Listening:
    """A participant's endpoint as its operator sees it: what still waits for it, and since when the first."""

    party: str
    endpoint: Endpoint
    pending: int
    failed: int
    waiting_since: datetime | None


_ENDPOINT = [webhook_endpoint.c[name] for name in Endpoint.__slots__]
_KEPT = webhook_endpoint.c.state != "removed"

_TELL = text("""
WITH wanted AS (
    SELECT no FROM webhook_endpoint
    WHERE party_no = :party_no AND state <> 'removed' AND (kinds IS NULL OR :kind = ANY(kinds))
      AND (CAST(:only AS integer) IS NULL OR no = :only)
), told AS (
    INSERT INTO webhook_event (id, party_no, kind, subject, at, body)
    SELECT :id, :party_no, :kind, :subject, :at, :body WHERE EXISTS (SELECT FROM wanted)
    ON CONFLICT (party_no, kind, subject) DO NOTHING RETURNING id
)
INSERT INTO webhook_delivery (event_id, endpoint_no, state, next_at, until)
SELECT told.id, wanted.no, 'pending', :at, :until FROM told CROSS JOIN wanted
""")

_CLAIM = text("""
UPDATE webhook_delivery d SET attempts = d.attempts + 1, next_at = :lost_at
FROM webhook_endpoint e, webhook_event v
WHERE e.no = d.endpoint_no AND v.id = d.event_id AND d.no IN (
    SELECT no FROM webhook_delivery WHERE state = 'pending' AND next_at <= :now AND until > :now AND no IN (
        SELECT (SELECT no FROM webhook_delivery x
                WHERE x.endpoint_no = w.no AND x.state = 'pending' AND x.next_at <= :now AND x.until > :now
                ORDER BY x.next_at, x.no LIMIT 1)
        FROM webhook_endpoint w WHERE w.state = 'active' AND NOT w.no = ANY(:busy))
    ORDER BY next_at, no LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING d.no, d.attempts, d.failures, d.until, e.no AS endpoint_no, e.url, e.secret, e.earlier_secret,
    e.earlier_until, v.id AS event_id, v.body
""")


async def tell(connection: Connection, event: Event, until: datetime, *, only: int | None = None) -> bool:
    """Put an event in the outbox for every endpoint of its party that wants it, or for endpoint number `only`.

    Whether there is anybody to tell; nothing is kept otherwise, or when this was told before.
    """
    values = {name: getattr(event, name) for name in Event.__slots__}
    done = await connection.execute(_TELL, {**values, "until": until, "only": only})
    return bool(done.rowcount)


async def listeners(connection: Connection, kind: str, parties: Sequence[str] | None = None) -> list[tuple[int, str]]:
    """Number and id of the parties, of all or of these, that have an endpoint for that kind of event."""
    kinds = webhook_endpoint.c.kinds
    query = (
        select(party.c.no, party.c.id)
        .distinct()
        .join(webhook_endpoint, webhook_endpoint.c.party_no == party.c.no)
        .where(_KEPT, kinds.is_(None) | kinds.contains([kind]))
        .order_by(party.c.no)
    )
    if parties is not None:
        query = query.where(party.c.id.in_(parties))
    return [(row.no, row.id) for row in await connection.execute(query)]


async def add(
    connection: Connection,
    *,
    endpoint_id: str,
    party_no: int,
    url: str,
    kinds: Sequence[str] | None,
    secret: bytes,
    now: datetime,
) -> Endpoint:
    """A new endpoint, active."""
    values = {"id": endpoint_id, "party_no": party_no, "url": url, "secret": secret, "created_at": now}
    values |= {"kinds": None if kinds is None else list(kinds), "state": "active"}
    row = (await connection.execute(insert(webhook_endpoint).values(values).returning(*_ENDPOINT))).one()
    return Endpoint(*row)


async def listed(connection: Connection, party_no: int) -> list[Endpoint]:
    """A party's endpoints, oldest first; those removed are left out."""
    query = select(*_ENDPOINT).where(webhook_endpoint.c.party_no == party_no, _KEPT).order_by(webhook_endpoint.c.no)
    return [Endpoint(*row) for row in await connection.execute(query)]


async def of_everybody(connection: Connection, *, party_id: str | None, troubled: bool) -> list[Listening]:
    """Endpoints of one participant or of all, by participant, oldest first; `troubled`: those that fail or are off."""
    pending, failed = (func.count().filter(webhook_delivery.c.state == state) for state in ("pending", "failed"))
    since = func.min(webhook_event.c.at).filter(webhook_delivery.c.state == "pending")
    query = (
        select(party.c.id, *_ENDPOINT, pending, failed, since)
        .join(party, party.c.no == webhook_endpoint.c.party_no)
        .outerjoin(webhook_delivery, webhook_delivery.c.endpoint_no == webhook_endpoint.c.no)
        .outerjoin(webhook_event, webhook_event.c.id == webhook_delivery.c.event_id)
        .where(_KEPT)
        .group_by(party.c.id, webhook_endpoint.c.no)
        .order_by(party.c.id, webhook_endpoint.c.no)
    )
    if party_id is not None:
        query = query.where(party.c.id == party_id)
    if troubled:
        query = query.where((webhook_endpoint.c.state != "active") | webhook_endpoint.c.failing_since.is_not(None))
    size = 1 + len(_ENDPOINT)
    return [Listening(row[0], Endpoint(*row[1:size]), *row[size:]) for row in await connection.execute(query)]


async def counts(connection: Connection, now: datetime) -> dict[str, list[tuple[str, int]]]:
    """Figures by metric name and label, for the operator's monitoring."""
    works, failing = webhook_endpoint.c.failing_since.is_(None), literal("failing")
    state = case((works | (webhook_endpoint.c.state != "active"), webhook_endpoint.c.state), else_=failing)
    endpoints = select(state, func.count()).where(_KEPT).group_by(state)
    deliveries = select(webhook_delivery.c.state, func.count()).group_by(webhook_delivery.c.state)
    waiting = (
        select(literal(""), func.extract("epoch", literal(now, WHEN) - func.min(webhook_event.c.at)))
        .join(webhook_delivery, webhook_delivery.c.event_id == webhook_event.c.id)
        .join(webhook_endpoint, webhook_endpoint.c.no == webhook_delivery.c.endpoint_no)
        .where(webhook_delivery.c.state == "pending", webhook_endpoint.c.state == "active")
        .having(func.count() > 0)
    )
    found = {"webhooks": endpoints, "webhook_deliveries": deliveries, "webhook_waiting_seconds": waiting}
    return {
        name: sorted((str(label), int(value)) for label, value in await connection.execute(query))
        for name, query in found.items()
    }


async def owner_no(connection: Connection, endpoint_id: str) -> int:
    """The row number of an endpoint's participant. Raises NotFound ``unknown_webhook``."""
    query = select(webhook_endpoint.c.party_no).where(webhook_endpoint.c.id == endpoint_id, _KEPT)
    found: int | None = (await connection.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound("unknown_webhook", "there is no such webhook")
    return found


async def get(connection: Connection, party_no: int, endpoint_id: str) -> Endpoint:
    """A party's endpoint. Raises NotFound ``unknown_webhook``."""
    query = select(*_ENDPOINT).where(_of(party_no, endpoint_id))
    return _known((await connection.execute(query)).first())


async def change(connection: Connection, party_no: int, endpoint_id: str, **values: Any) -> Endpoint:
    """Set columns of a party's endpoint. Raises NotFound ``unknown_webhook``."""
    query = update(webhook_endpoint).where(_of(party_no, endpoint_id)).values(values).returning(*_ENDPOINT)
    return _known((await connection.execute(query)).first())


async def rotate(connection: Connection, party_no: int, endpoint_id: str, secret: bytes, until: datetime) -> Endpoint:
    """Put a new secret in the place of the one that signs, which signs beside it until then. Raises NotFound."""
    return await change(
        connection,
        party_no,
        endpoint_id,
        earlier_secret=webhook_endpoint.c.secret,
        earlier_until=until,
        secret=secret,
    )


async def deliveries(
    connection: Connection, endpoint_no: int, *, before: int | None, limit: int, state: str | None = None
) -> list[Delivery]:
    """An endpoint's deliveries from the newest down, those with a number below `before`."""
    query = _deliveries().where(webhook_delivery.c.endpoint_no == endpoint_no)
    if before is not None:
        query = query.where(webhook_delivery.c.no < before)
    if state is not None:
        query = query.where(webhook_delivery.c.state == state)
    rows = await connection.execute(query.order_by(webhook_delivery.c.no.desc()).limit(limit))
    return [Delivery(*row) for row in rows]


async def again(connection: Connection, endpoint_no: int, event_id: str, now: datetime, until: datetime) -> Delivery:
    """Make a delivery due now, whatever became of it before. Raises NotFound ``unknown_delivery``."""
    found = (webhook_delivery.c.endpoint_no == endpoint_no) & (webhook_delivery.c.event_id == event_id)
    fresh = {"state": "pending", "failures": 0, "next_at": now, "until": until}
    if not (await connection.execute(update(webhook_delivery).where(found).values(fresh))).rowcount:
        raise NotFound("unknown_delivery", "this endpoint has no delivery of such an event")
    return Delivery(*(await connection.execute(_deliveries().where(found))).one())


async def claim(
    connection: Connection, now: datetime, lost_at: datetime, busy: Sequence[int], limit: int
) -> list[Claimed]:
    """Take deliveries that are due, one for each active endpoint that is not `busy`; nobody else has them until
    `lost_at`."""
    values = {"now": now, "lost_at": lost_at, "busy": list(busy), "limit": limit}
    found = []
    for row in await connection.execute(_CLAIM, values):
        earlier = row.earlier_secret if row.earlier_until is not None and row.earlier_until > now else None
        secrets = (row.secret, earlier) if earlier is not None else (row.secret,)
        found.append(
            Claimed(
                no=row.no,
                attempts=row.attempts,
                failures=row.failures,
                until=row.until,
                endpoint_no=row.endpoint_no,
                url=row.url,
                secrets=secrets,
                event_id=row.event_id,
                body=row.body,
            )
        )
    return found


async def delivered(connection: Connection, claimed: Claimed, status: int, now: datetime) -> None:
    """It arrived; the endpoint works."""
    values = {"state": "delivered", "status": status, "error": None, "last_at": now}
    await connection.execute(update(webhook_delivery).where(webhook_delivery.c.no == claimed.no).values(values))
    working = (webhook_endpoint.c.no == claimed.endpoint_no) & webhook_endpoint.c.failing_since.is_not(None)
    await connection.execute(update(webhook_endpoint).where(working).values(failing_since=None))


async def failed(
    connection: Connection, claimed: Claimed, status: int | None, error: str, now: datetime, next_at: datetime
) -> datetime:
    """It did not arrive: again at `next_at`, or never when that is past its end. Since when the endpoint has failed.

    The end of an attempt that was given up as lost meanwhile changes nothing of the one that followed.
    """
    values: dict[str, Any] = {"status": status, "error": error, "last_at": now, "next_at": next_at}
    values |= {"failures": webhook_delivery.c.failures + 1}
    values |= {"state": "failed"} if next_at >= claimed.until else {}
    mine = (webhook_delivery.c.no == claimed.no) & (webhook_delivery.c.attempts == claimed.attempts)
    pending = webhook_delivery.c.state == "pending"
    await connection.execute(update(webhook_delivery).where(mine, pending).values(values))
    since = func.coalesce(webhook_endpoint.c.failing_since, now)
    query = update(webhook_endpoint).where(webhook_endpoint.c.no == claimed.endpoint_no).values(failing_since=since)
    found: datetime = (await connection.execute(query.returning(webhook_endpoint.c.failing_since))).scalar_one()
    return found


async def disable(connection: Connection, endpoint_no: int, reason: str) -> None:
    """Send nothing more to an active endpoint until its owner says so."""
    active = (webhook_endpoint.c.no == endpoint_no) & (webhook_endpoint.c.state == "active")
    await connection.execute(update(webhook_endpoint).where(active).values(state="disabled", reason=reason))


async def give_up(connection: Connection, now: datetime) -> int:
    """End the deliveries whose time has run out, as those of a disabled endpoint; returns how many."""
    over = (webhook_delivery.c.state == "pending") & (webhook_delivery.c.until <= now)
    values = {"state": "failed", "error": func.coalesce(webhook_delivery.c.error, "not_tried")}
    return int((await connection.execute(update(webhook_delivery).where(over).values(values))).rowcount)


async def forget(connection: Connection, before: datetime) -> int:
    """Delete events from before a time, with their deliveries; returns how many."""
    return int((await connection.execute(delete(webhook_event).where(webhook_event.c.at < before))).rowcount)


def _of(party_no: int, endpoint_id: str) -> Any:
    return (webhook_endpoint.c.id == endpoint_id) & (webhook_endpoint.c.party_no == party_no) & _KEPT


def _deliveries() -> Any:
    own = [webhook_delivery.c[name] for name in ("state", "attempts", "next_at", "last_at", "status", "error")]
    columns = [webhook_delivery.c.no, webhook_event.c.id, webhook_event.c.kind, webhook_event.c.at, *own]
    return select(*columns).join(webhook_event, webhook_event.c.id == webhook_delivery.c.event_id)


def _known(row: Any | None) -> Endpoint:
    if row is None:
        raise NotFound("unknown_webhook", "this participant has no such webhook")
    return Endpoint(*row)
