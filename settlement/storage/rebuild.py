"""Derived tables written anew: each returns how many of its rows were not what they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, text

from settlement.core.tiles import Tile
from settlement.storage import trees
from settlement.storage.database import Connection, raw_cursor
from settlement.storage.tables import tree_tile
from settlement.storage.trees import Place

_PAIRS = """
CREATE TEMPORARY TABLE rebuilt ON COMMIT DROP AS
SELECT ''::text AS provider, ''::text AS consumer,
       provider_no, consumer_no, window_no, records, carried_in, pico, posted
FROM obligation LIMIT 0
"""
_COPY_PAIRS = "COPY rebuilt (provider, consumer, window_no, records, carried_in, pico, posted) FROM STDIN"
_NUMBER_PAIRS = """
UPDATE rebuilt r SET provider_no = p.no, consumer_no = c.no FROM party p, party c
WHERE p.id = r.provider AND c.id = r.consumer
"""
_DIFFERENT_PAIRS = """
WITH new AS (
    SELECT provider_no, consumer_no, window_no, records, carried_in, pico, posted FROM rebuilt
), old AS (
    SELECT provider_no, consumer_no, window_no, records, carried_in, pico, posted FROM obligation
)
SELECT count(*) FROM ((TABLE new EXCEPT TABLE old) UNION (TABLE old EXCEPT TABLE new)) d
"""
_STORE_PAIRS = """
INSERT INTO obligation (provider_no, consumer_no, window_no, records, carried_in, pico, posted)
SELECT provider_no, consumer_no, window_no, records, carried_in, pico, posted FROM rebuilt
"""

_STREAMS = text("""
WITH newest AS (
    SELECT DISTINCT ON (provider_no) provider_no, seq, digest FROM usage_report ORDER BY provider_no, seq DESC
), wrong AS (
    UPDATE provider_stream s SET seq = coalesce(n.seq, 0), digest = n.digest
    FROM provider_stream t LEFT JOIN newest n ON n.provider_no = t.provider_no
    WHERE s.provider_no = t.provider_no AND (s.seq, s.digest) IS DISTINCT FROM (coalesce(n.seq, 0), n.digest)
    RETURNING 1
), missing AS (
    INSERT INTO provider_stream (provider_no, seq, digest) SELECT provider_no, seq, digest FROM newest n
    WHERE NOT EXISTS (SELECT FROM provider_stream s WHERE s.provider_no = n.provider_no) RETURNING 1
)
SELECT (SELECT count(*) FROM wrong) + (SELECT count(*) FROM missing)
""")


async def obligations(connection: Connection, owed: Iterable[Sequence[Any]]) -> int:
    """All obligations: rows of (provider, consumer, window, records, carried in, picoCU, posted), parties by id."""
    async with raw_cursor(connection) as cursor:
        await cursor.execute(_PAIRS)
        async with cursor.copy(_COPY_PAIRS) as copy:
            for row in owed:
                await copy.write_row(row)
        await cursor.execute(_NUMBER_PAIRS)
        await cursor.execute(_DIFFERENT_PAIRS)
        changed = await cursor.fetchone()
        await cursor.execute("DELETE FROM obligation")
        await cursor.execute(_STORE_PAIRS)
    assert changed is not None, "a count is a row"
    return int(changed[0])


async def balances(connection: Connection, settled: Mapping[str, int]) -> int:
    """The balance of every account; one that the journal has never moved has none."""
    async with raw_cursor(connection) as cursor:
        await cursor.execute("""
            UPDATE account SET settled = m.settled FROM (
                SELECT a.no, coalesce(b.settled, 0) AS settled
                FROM account a LEFT JOIN unnest(%s::text[], %s::bigint[]) AS b(id, settled) ON b.id = a.id
            ) m WHERE account.no = m.no AND account.settled <> m.settled""",
            (list(settled), list(settled.values())))  # fmt: skip
        return cursor.rowcount


async def streams(connection: Connection) -> int:
    """How far each provider's chain of reports has come, from its reports."""
    return int((await connection.execute(_STREAMS)).scalar_one())


async def forget_tree(connection: Connection) -> dict[Place, bytes]:
    """Empty the record tree; returns what it was."""
    before = await tree(connection)
    await connection.execute(delete(tree_tile))
    return before


async def plant_tree(connection: Connection, tiles: Sequence[Tile]) -> None:
    """Write tiles of the record tree."""
    await trees.store(connection, tiles)


async def tree(connection: Connection) -> dict[Place, bytes]:
    """All tiles of the record tree, by level and index."""
    rows = await connection.execute(select(tree_tile.c.level, tree_tile.c.index, tree_tile.c.hashes))
    return {(level, index): hashes for level, index, hashes in rows}
