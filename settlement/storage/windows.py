"""Windows: the one that is open, and the steps of those that are closed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, text, update

from settlement.core.errors import NotFound
from settlement.storage.database import Connection
from settlement.storage.tables import journal_head, window

GATE = 0x5E77
"""Advisory lock: shared by everything that appends to the journal, exclusive while a window closes."""


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open UTC span that is settled as one: the journal entries ``first_seq .. last_seq``."""

    no: int
    state: str
    opened_at: datetime
    closed_at: datetime | None
    first_seq: int
    last_seq: int | None
    anchored_at: datetime | None

    @property
    def id(self) -> str:
        return f"win_{self.no}"


async def enter(connection: Connection) -> int:
    """The number of the open window, which can't close before this transaction ends. Call it first of all locks."""
    await connection.execute(text("SELECT pg_advisory_xact_lock_shared(:gate)"), {"gate": GATE})
    return int((await connection.execute(select(window.c.no).where(window.c.state == "open"))).scalar_one())


async def open_first(connection: Connection, now: datetime) -> None:
    """Open window 1 of a new database; does nothing when there is one."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:gate)"), {"gate": GATE})
    if (await connection.execute(select(window.c.no).limit(1))).first() is None:
        await connection.execute(insert(window).values(no=1, state="open", opened_at=now, first_seq=1))


async def open_since(connection: Connection, *, lock: bool = False) -> datetime:
    """When the open window was opened; with `lock`, nothing enters it or closes it until the transaction ends."""
    if lock:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:gate)"), {"gate": GATE})
    found: datetime = (
        await connection.execute(select(window.c.opened_at).where(window.c.state == "open"))
    ).scalar_one()
    return found


async def close_open(connection: Connection, now: datetime) -> Window:
    """Close the open window at the journal's head and open the next. No journal entry can come in between.

    A clock that was set back doesn't make a span end before it began: the window then ends when it was opened.
    """
    await connection.execute(text("SELECT pg_advisory_xact_lock(:gate)"), {"gate": GATE})
    last = (await connection.execute(select(journal_head.c.seq))).scalar_one()
    closed = (
        await connection.execute(
            update(window)
            .where(window.c.state == "open")
            .values(state="closed", closed_at=func.greatest(window.c.opened_at, now), last_seq=last)
            .returning(window)
        )
    ).one()
    following = {"no": closed.no + 1, "state": "open", "opened_at": closed.closed_at, "first_seq": last + 1}
    await connection.execute(insert(window).values(following))
    return _window(closed)


async def get(connection: Connection, no: int, *, lock: bool = False) -> Window:
    """Window number `no`; with `lock`, nobody else can advance it until the transaction ends. Raises NotFound."""
    query = select(window).where(window.c.no == no)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        raise NotFound("unknown_window", f"there is no window win_{no}")
    return _window(row)


async def listed(connection: Connection, *, before: int | None = None, limit: int = 50) -> list[Window]:
    """Windows from the newest down, those below number `before`."""
    query = select(window).order_by(window.c.no.desc()).limit(limit)
    if before is not None:
        query = query.where(window.c.no < before)
    return [_window(row) for row in await connection.execute(query)]


async def unfinished(connection: Connection) -> list[Window]:
    """Closed windows that have steps left, oldest first."""
    query = select(window).where(window.c.state.in_(("closed", "netted", "checkpointed"))).order_by(window.c.no)
    return [_window(row) for row in await connection.execute(query)]


async def claim(connection: Connection, no: int, state: str, *, after: frozenset[str]) -> Window | None:
    """Take window `no` for its next step, if it is in `state` and the window before it is in one of `after`.

    None when it isn't, or when another worker has it: a step is done by one worker, in the order of the windows. The
    claim ends with the transaction. (The lock leaves foreign keys to the row alone.)
    """
    query = select(window).where(window.c.no == no, window.c.state == state)
    row = (await connection.execute(query.with_for_update(key_share=True, skip_locked=True))).first()
    if row is None:
        return None
    before = (await connection.execute(select(window.c.state).where(window.c.no == no - 1))).scalar_one_or_none()
    return _window(row) if before is None or before in after else None


async def advance(connection: Connection, no: int, state: str) -> None:
    """Record that window `no` has reached `state`."""
    await connection.execute(update(window).where(window.c.no == no).values(state=state))


async def mark_anchored(connection: Connection, no: int, at: datetime) -> None:
    """Record when the first anchor of window `no` was seen in a final ledger."""
    query = update(window).where(window.c.no == no, window.c.anchored_at.is_(None)).values(anchored_at=at)
    await connection.execute(query)


def _window(row: Row[Any]) -> Window:
    return Window(row.no, row.state, row.opened_at, row.closed_at, row.first_seq, row.last_seq, row.anchored_at)
