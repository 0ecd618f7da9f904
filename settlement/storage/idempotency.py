"""What must happen once: replies kept for their Idempotency-Key, and signed requests that were used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from settlement.core.errors import Conflict, Malformed
from settlement.storage.database import Connection
from settlement.storage.tables import idempotency_key

IN_FLIGHT = 0
"""The status of a row whose request has not been answered yet."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One caller's key for one route, and the SHA-256 of the request that it stands for."""

    principal: str
    route: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP status and body as they were answered."""

    status: int
    body: bytes


async def claim(connection: Connection, wanted: Claim, now: datetime, abandoned_before: datetime) -> Reply | None:
    """Take the key for this request: None when it is ours to carry out, else the reply that was given.

    A request that never came to its end is taken over when it began before `abandoned_before`. Raises Malformed
    ``idempotency_key_reused`` for another request under the same key, Conflict ``request_in_flight``.
    """
    values = {
        "principal": wanted.principal,
        "route": wanted.route,
        "key": wanted.key,
        "fingerprint": wanted.fingerprint,
        "status": IN_FLIGHT,
        "body": b"",
        "created_at": now,
    }
    added = insert(idempotency_key).values(values).on_conflict_do_nothing().returning(idempotency_key.c.status)
    if (await connection.execute(added)).first() is not None:
        return None
    row = (await connection.execute(select(idempotency_key).where(*_is(wanted)).with_for_update())).first()
    if row is None:
        raise Conflict("request_in_flight", "the first request with this Idempotency-Key has just ended; send it again")
    if row.fingerprint != wanted.fingerprint:
        raise Malformed("idempotency_key_reused", "this Idempotency-Key was used for another request")
    if row.status != IN_FLIGHT:
        return Reply(row.status, row.body)
    if row.created_at >= abandoned_before:
        raise Conflict("request_in_flight", "the first request with this Idempotency-Key is still being answered")
    await connection.execute(update(idempotency_key).where(*_is(wanted)).values(created_at=now))
    return None


async def complete(connection: Connection, claimed: Claim, reply: Reply) -> None:
    """Keep the reply for whoever sends the request again."""
    query = update(idempotency_key).where(*_is(claimed)).values(status=reply.status, body=reply.body)
    await connection.execute(query)


async def release(connection: Connection, claimed: Claim) -> None:
    """Give the key back: the request was refused and changed nothing."""
    await connection.execute(delete(idempotency_key).where(*_is(claimed), idempotency_key.c.status == IN_FLIGHT))


async def use_once(connection: Connection, kid: str, purpose: str, body_digest: bytes, now: datetime) -> None:
    """Record that a signed request took effect, in its transaction. Raises Conflict ``signature_replayed``."""
    values = {
        "principal": kid,
        "route": purpose,
        "key": body_digest.hex(),
        "fingerprint": body_digest,
        "status": 200,
        "body": b"",
        "created_at": now,
    }
    added = insert(idempotency_key).values(values).on_conflict_do_nothing().returning(idempotency_key.c.status)
    if (await connection.execute(added)).first() is None:
        raise Conflict("signature_replayed", "this signed request took effect already; sign a new one")


async def forget(connection: Connection, before: datetime) -> int:
    """Delete what was kept before a time; returns how many rows."""
    return (await connection.execute(delete(idempotency_key).where(idempotency_key.c.created_at < before))).rowcount


def _is(wanted: Claim) -> tuple[ColumnElement[bool], ...]:
    found = idempotency_key.c
    return found.principal == wanted.principal, found.route == wanted.route, found.key == wanted.key
