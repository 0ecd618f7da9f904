"""Derived tables written anew: each returns how many of its rows were not what they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, text

from settlement.core.tiles import Tile
from settlement.storage import trees
from settlement.storage.database import Connection, raw_cursor
from settlement.storage.tables import tree_mark, tree_tile
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

_HOLDS = text("""
WITH taken AS (
    SELECT h.id, count(c.line) AS uses, coalesce(sum(c.taken) FILTER (WHERE NOT c.late), 0) AS captured,
           coalesce(sum(c.taken) FILTER (WHERE c.late), 0) AS late
    FROM hold h LEFT JOIN hold_capture c ON c.hold_id = h.id GROUP BY h.id
)
UPDATE hold h SET uses = t.uses, captured = t.captured, late = t.late,
    released = CASE h.state WHEN 'open' THEN h.released ELSE h.amount - t.captured END
FROM taken t WHERE t.id = h.id AND (h.uses, h.captured, h.late) IS DISTINCT FROM (t.uses, t.captured, t.late)
""")

_BUDGETS = text("""
WITH used AS (
    SELECT n.no, p.period,
           sum(CASE WHEN h.state = 'open' THEN h.amount ELSE h.captured + h.late END)::bigint AS used
    FROM hold h JOIN budget leaf ON leaf.no = h.budget_no
    CROSS JOIN LATERAL unnest(leaf.path || leaf.no) AS n(no)
    CROSS JOIN LATERAL (VALUES (to_char(h.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
                               (to_char(h.created_at AT TIME ZONE 'UTC', 'YYYY-MM'))) AS p(period)
    GROUP BY n.no, p.period
), wrong AS (
    SELECT coalesce(u.budget_no, w.no) AS budget_no, coalesce(u.period, w.period) AS period, w.used
    FROM budget_use u FULL JOIN used w ON w.no = u.budget_no AND w.period = u.period
    WHERE coalesce(u.used, 0) <> coalesce(w.used, 0)
), stored AS (
    INSERT INTO budget_use (budget_no, period, used) SELECT budget_no, period, used FROM wrong WHERE used IS NOT NULL
    ON CONFLICT (budget_no, period) DO UPDATE SET used = excluded.used RETURNING 1
), unfounded AS (
    DELETE FROM budget_use u USING wrong w
    WHERE w.used IS NULL AND u.budget_no = w.budget_no AND u.period = w.period RETURNING 1
)
SELECT (SELECT count(*) FROM stored) + (SELECT count(*) FROM unfounded)
""")

_BALANCES = """
UPDATE account SET settled = m.settled, held = m.held FROM (
    SELECT a.no, coalesce(b.settled, 0) AS settled, coalesce(h.held, 0) AS held
    FROM account a LEFT JOIN unnest(%s::text[], %s::bigint[]) AS b(id, settled) ON b.id = a.id
    LEFT JOIN (
        SELECT consumer_no, sum(amount - captured - released)::bigint AS held FROM hold WHERE state = 'open' GROUP BY 1
    ) h ON h.consumer_no = a.party_no
) m WHERE account.no = m.no AND (account.settled, account.held) IS DISTINCT FROM (m.settled, m.held)
"""

_WITHOUT_FIGURES = text("""
SELECT c.window_no FROM checkpoint c
WHERE EXISTS (SELECT FROM usage_report r WHERE r.window_no = c.window_no)
  AND NOT EXISTS (SELECT FROM provider_figures f WHERE f.window_no = c.window_no) ORDER BY c.window_no
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


async def lock_holds(connection: Connection) -> None:
    """Nothing is held, given back or counted in a budget until the transaction ends."""
    await connection.execute(text("LOCK TABLE hold, account, budget_use IN SHARE ROW EXCLUSIVE MODE"))


async def holds(connection: Connection) -> int:
    """What captures took of each hold, and what an ended one gave back."""
    return (await connection.execute(_HOLDS)).rowcount


async def budgets(connection: Connection) -> int:
    """What each budget's holds of a day or month keep or took."""
    return int((await connection.execute(_BUDGETS)).scalar_one())


async def balances(connection: Connection, settled: Mapping[str, int]) -> int:
    """The balance of every account, and what of it open holds reserve; one that the journal has never moved has none.

    After `holds`.
    """
    async with raw_cursor(connection) as cursor:
        await cursor.execute(_BALANCES, (list(settled), list(settled.values())))
        return cursor.rowcount


async def forget_marks(connection: Connection) -> set[tuple[int, int, int]]:
    """Remove the marks in the record tree; returns what they were."""
    before = await marks(connection)
    await connection.execute(delete(tree_mark))
    return before


async def marks(connection: Connection) -> set[tuple[int, int, int]]:
    """All marks in the record tree: (window, journal number of a report, leaves of the window before it)."""
    rows = await connection.execute(select(tree_mark.c.window_no, tree_mark.c.journal_seq, tree_mark.c.leaves))
    return {(number, seq, leaves) for number, seq, leaves in rows}


async def windows_without_figures(connection: Connection) -> list[int]:
    """Windows with a checkpoint and usage that were settled before figures were kept."""
    return [row.window_no for row in await connection.execute(_WITHOUT_FIGURES)]


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
