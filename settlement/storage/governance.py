"""Governed documents as they stand: rate tables and policies, by version and by the time they are in force from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table, insert, select

from settlement.core.errors import NotFound
from settlement.core.policy import Policy
from settlement.storage.database import Connection
from settlement.storage.tables import policy, rate_table


@dataclass(frozen=True, slots=True)
class Signed:
    """A governed document: its canonical bytes and who signed them."""

    version: int
    digest: bytes
    effective_from: datetime
    document: bytes
    signatures: Sequence[dict[str, str]]


async def rate_tables(connection: Connection) -> list[Signed]:
    """Every published rate table, oldest first."""
    return [_signed(row) for row in await connection.execute(select(rate_table).order_by(rate_table.c.version))]


async def publish_rates(connection: Connection, signed: Signed, published_at: datetime) -> None:
    """Add the next rate table. The primary key lets one publisher of a version win."""
    await connection.execute(insert(rate_table).values(**_columns(signed), published_at=published_at))


async def publish_policy(connection: Connection, signed: Signed) -> None:
    """Add the next policy."""
    await connection.execute(insert(policy).values(**_columns(signed)))


async def policies(connection: Connection) -> list[Signed]:
    """Every policy, oldest first."""
    return [_signed(row) for row in await connection.execute(select(policy).order_by(policy.c.version))]


async def policy_at(connection: Connection, at: datetime) -> Policy:
    """The policy in force at a time. Raises NotFound ``policy_not_in_force``."""
    return Policy.parse((await _in_force(connection, policy, at, "policy_not_in_force")).document)


async def rates_at(connection: Connection, at: datetime) -> Signed:
    """The rate table in force at a time. Raises NotFound ``rates_not_in_force``."""
    return await _in_force(connection, rate_table, at, "rates_not_in_force")


async def _in_force(connection: Connection, table: Table, at: datetime, code: str) -> Signed:
    query = select(table).where(table.c.effective_from <= at).order_by(table.c.effective_from.desc()).limit(1)
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFound(code, f"nothing was in force at {at.isoformat()}")
    return _signed(row)


def _columns(signed: Signed) -> dict[str, Any]:
    return {
        "version": signed.version,
        "digest": signed.digest,
        "effective_from": signed.effective_from,
        "document": signed.document,
        "signatures": list(signed.signatures),
    }


def _signed(row: Row[Any]) -> Signed:
    return Signed(row.version, row.digest, row.effective_from, row.document, row.signatures)
