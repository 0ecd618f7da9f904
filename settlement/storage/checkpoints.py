"""Checkpoints, the salts under them, and the balances that they state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import zstandard
from sqlalchemy import Row, bindparam, func, insert, select, text

from settlement.core import canonical
from settlement.core.errors import NotFound
from settlement.core.ids import Entropy
from settlement.core.journal import Head
from settlement.core.liabilities import SALT_SIZE, Entry
from settlement.storage.database import Connection
from settlement.storage.tables import checkpoint

_BALANCES = text("""
SELECT h.seq, h.hash, h.kid, a.id, a.settled
FROM journal_head h LEFT JOIN account a ON a.kind IN ('consumer', 'provider', 'transit')
    AND a.asset = 'CU' AND a.settled > 0
""")

_ANCHORS = text("""
SELECT o.chain, s.network, o.tx_id, o.ledger, o.ended_at FROM chain_order o JOIN chain_state s ON s.chain = o.chain
WHERE o.kind = 'anchor' AND o.window_no = :window AND o.state = 'settled' ORDER BY o.chain
""")


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint on file: its canonical bytes, their digest and signatures, and the size of the record tree."""

    window_no: int
    digest: bytes
    document: bytes
    signatures: Sequence[dict[str, str]]
    tree_size: int
    created_at: datetime


_FIND = select(*(checkpoint.c[name] for name in Stored.__slots__)).where(checkpoint.c.window_no == bindparam("window"))


@dataclass(frozen=True, slots=True)
class Anchored:
    """A transaction, in a final ledger, that carries a checkpoint's digest."""

    chain: str
    network: str
    tx: str
    ledger: int
    closed_at: datetime


async def liabilities(connection: Connection, entropy: Entropy) -> tuple[Head, str | None, list[Entry]]:
    """The journal's head, who signs, and, as of that entry, what is owed: every balance above zero of consumers,
    providers and transit, in the order of account ids, each with a fresh salt. One statement, hence one snapshot."""
    rows = (await connection.execute(_BALANCES)).all()
    owed = sorted((row.id, row.settled) for row in rows if row.id is not None)
    salts = entropy(SALT_SIZE * len(owed))
    entries = [
        Entry(account, amount, salts[at * SALT_SIZE : (at + 1) * SALT_SIZE])
        for at, (account, amount) in enumerate(owed)
    ]
    return Head(rows[0].seq, rows[0].hash), rows[0].kid, entries


def pack_liabilities(entries: Sequence[Entry]) -> bytes:
    """The leaves as they are stored: zstd of canonical JSON, a list of [account, amount, salt]."""
    listed = canonical.encode([[entry.account, str(entry.amount), entry.salt.hex()] for entry in entries])
    return zstandard.ZstdCompressor().compress(listed)


def unpack_liabilities(packed: bytes) -> list[Entry]:
    """The inverse of `pack_liabilities`."""
    leaves = json.loads(zstandard.ZstdDecompressor().decompress(packed))
    return [Entry(account, int(amount), bytes.fromhex(salt)) for account, amount, salt in leaves]


async def store(connection: Connection, made: Stored, liabilities: bytes) -> None:
    """Write a window's checkpoint with the packed leaves of its liabilities."""
    values = {name: getattr(made, name) for name in Stored.__slots__}
    await connection.execute(insert(checkpoint).values(values | {"liabilities": liabilities}))


async def packed_liabilities(connection: Connection, window_no: int) -> bytes:
    """What `store` was given; the other reads of a checkpoint leave it alone, since it is large."""
    query = select(checkpoint.c.liabilities).where(checkpoint.c.window_no == window_no)
    return bytes((await connection.execute(query)).scalar_one())


async def find(connection: Connection, window_no: int) -> Stored | None:
    """A window's checkpoint, if it has one yet."""
    row = (await connection.execute(_FIND, {"window": window_no})).first()
    return None if row is None else _stored(row)


async def newest(connection: Connection) -> Stored | None:
    """The last checkpoint, if there is one yet."""
    row = (await connection.execute(select(func.max(checkpoint.c.window_no)))).scalar_one()
    return None if row is None else await find(connection, row)


async def get(connection: Connection, window_no: int) -> Stored:
    """A window's checkpoint. Raises NotFound ``unknown_checkpoint``."""
    found = await find(connection, window_no)
    if found is None:
        raise NotFound("unknown_checkpoint", f"window win_{window_no} has no checkpoint yet")
    return found


async def anchors(connection: Connection, window_no: int) -> list[Anchored]:
    """The final transactions that carry the digest of a window's checkpoint."""
    return [Anchored(*row) for row in await connection.execute(_ANCHORS, {"window": window_no})]


def _stored(row: Row[Any]) -> Stored:
    return Stored(**{name: getattr(row, name) for name in Stored.__slots__})
