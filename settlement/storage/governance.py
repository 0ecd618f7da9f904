"""Governed documents as they stand: rate tables and policies, by version and by the time they are in force from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, Table, Text, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from settlement.core.errors import NotFound
from settlement.core.policy import Policy
from settlement.storage.database import Connection
from settlement.storage.tables import model, policy, rate_table

PUBLISHING = 0x5E778
"""Advisory lock: one publisher of governed documents at a time."""

_LAST = {
    table.name: select(table)
    .where(table.c.effective_from <= bindparam("at"))
    .order_by(table.c.effective_from.desc())
    .limit(1)
    for table in (policy, rate_table)
}


@dataclass(frozen=True, slots=True)
class Signed:
    """A governed document: its canonical bytes and who signed them."""

    version: int
    digest: bytes
    effective_from: datetime
    document: bytes
    signatures: Sequence[dict[str, str]]


async def rate_tables(connection: Connection, *, lock: bool = False) -> list[Signed]:
    """Every published rate table, oldest first; with `lock`, no other publisher until the transaction ends."""
    if lock:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PUBLISHING})
    return [_signed(row) for row in await connection.execute(select(rate_table).order_by(rate_table.c.version))]


async def newest_rates(connection: Connection) -> int:
    """The version of the newest rate table, in force or not; 0 when there is none."""
    return int((await connection.execute(select(func.coalesce(func.max(rate_table.c.version), 0)))).scalar_one())


async def publish_rates(connection: Connection, signed: Signed, names: Iterable[str], published_at: datetime) -> None:
    """Add the next rate table and number the names that it rates. Its primary key lets one publisher win."""
    await connection.execute(insert(rate_table).values(**_columns(signed), published_at=published_at))
    new = select(func.unnest(bindparam("names", sorted(set(names)), ARRAY(Text))))
    await connection.execute(upsert(model).from_select(["name"], new).on_conflict_do_nothing())


async def model_numbers(connection: Connection) -> dict[str, int]:
    """The row number of every model name and alias that a rate table has ever rated."""
    return {row.name: row.no for row in await connection.execute(select(model))}


async def publish_policy(connection: Connection, signed: Signed) -> None:
    """Add the next policy."""
    await connection.execute(insert(policy).values(**_columns(signed)))


async def policies(connection: Connection) -> list[Signed]:
    """Every policy, oldest first."""
    return [_signed(row) for row in await connection.execute(select(policy).order_by(policy.c.version))]


async def policy_at(connection: Connection, at: datetime) -> Policy:
    """The policy in force at a time. Raises NotFound ``policy_not_in_force``."""
    return known_policy((await _in_force(connection, policy, at, "policy_not_in_force")).document)


@lru_cache(maxsize=16)
def known_policy(document: bytes) -> Policy:
    """The policy of stored bytes, parsed once: most requests ask for the same one."""
    return Policy.parse(document)


async def rates_at(connection: Connection, at: datetime) -> Signed:
    """The rate table in force at a time. Raises NotFound ``rates_not_in_force``."""
    return await _in_force(connection, rate_table, at, "rates_not_in_force")


async def _in_force(connection: Connection, table: Table, at: datetime, code: str) -> Signed:
    row = (await connection.execute(_LAST[table.name], {"at": at})).first()
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
