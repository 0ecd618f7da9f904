"""The service's own keys, from the founding one on, and which of them signs now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from settlement.core.errors import Unavailable
from settlement.core.signatures import PublicKey
from settlement.storage.database import Connection
from settlement.storage.tables import journal_head, service_key


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A key of the service. It signs whatever is about journal entries behind `journal_seq`, up to the next key's.

    `document` and `signatures` are the hand-over from the key before; the founding key has none.
    """

    kid: str
    public: PublicKey
    journal_seq: int
    document: bytes | None
    signatures: Sequence[dict[str, str]]


async def add(connection: Connection, key: ServiceKey, now: datetime) -> None:
    """Add the next key, which signs from now on. Its kid, its public key and its journal number come once."""
    values = {
        "kid": key.kid,
        "public": key.public.raw,
        "journal_seq": key.journal_seq,
        "document": key.document,
        "signatures": list(key.signatures),
        "added_at": now,
    }
    await connection.execute(insert(service_key).values(values))
    await connection.execute(update(journal_head).values(kid=key.kid))


async def found(connection: Connection, public: PublicKey, now: datetime) -> None:
    """Record the founding key, unless there is a key already."""
    if await signer(connection) is None:
        await add(connection, ServiceKey(public.kid, public, 0, None, ()), now)


async def signer(connection: Connection) -> str | None:
    """The kid of the key that signs now; None before the installation was founded."""
    kid: str | None = (await connection.execute(select(journal_head.c.kid))).scalar_one()
    return kid


async def every(connection: Connection) -> list[ServiceKey]:
    """All keys, the founding one first."""
    return [_key(row) for row in await connection.execute(select(service_key).order_by(service_key.c.journal_seq))]


def check_signer(kid: str | None, ours: PublicKey) -> None:
    """Raises Unavailable ``signer_retired`` when another process has handed over to a key that this one lacks.

    `kid` is read together with the journal's head, so that an entry and what is signed about it can't be told apart.
    """
    if kid is not None and kid != ours.kid:
        raise Unavailable("signer_retired", f"the service signs with key {kid} now; this process must be restarted")


def _key(row: Row[Any]) -> ServiceKey:
    return ServiceKey(row.kid, PublicKey(row.public), row.journal_seq, row.document, row.signatures)
