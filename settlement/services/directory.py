"""Who is who: row numbers of consumers, remembered by this process.

A consumer's number never changes and its row is never deleted, so what was read once stays true.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from settlement.services.context import Context
from settlement.storage import usage as storage
from settlement.storage.database import Connection, Database

MOST = 1_000_000
"""How many numbers are remembered: about 150 MB; beyond it the database is asked."""

_numbers: WeakKeyDictionary[Database, dict[str, int]] = WeakKeyDictionary()


async def party_numbers(context: Context, connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """The row numbers of those ids that are consumers'."""
    known = _numbers.setdefault(context.database, {})
    missing = [name for name in ids if name not in known]
    if not missing:
        return {name: known[name] for name in ids}
    found = await storage.consumer_numbers(connection, missing)
    if len(known) + len(found) <= MOST:
        known.update(found)
    return {name: number for name in ids if (number := known.get(name, found.get(name))) is not None}
