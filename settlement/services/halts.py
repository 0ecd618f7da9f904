"""Halting payouts and anchors: raised by whatever finds an invariant broken, cleared by a person alone."""

from __future__ import annotations

from settlement.core.errors import NotFound
from settlement.services.context import Context
from settlement.storage import halts
from settlement.storage.database import Connection
from settlement.storage.halts import Halt


async def raise_halt(context: Context, code: str, detail: str) -> Halt:
    """Halt payouts and anchors, in a commit of its own. The same open reason is not recorded twice."""

    async def use_case(connection: Connection) -> Halt:
        return await halts.add(connection, code, detail, context.sources.clock())

    return await context.database.run(use_case)


async def open_halts(context: Context) -> list[Halt]:
    """What stands in the way of payouts and anchors now, oldest first; empty when nothing does."""
    async with context.database.read() as connection:
        return await halts.open_halts(connection)


async def clear(context: Context, no: int, by: str) -> Halt:
    """A person (`by`) has looked into halt `no`. Raises NotFound ``unknown_halt``."""

    async def use_case(connection: Connection) -> Halt:
        found = await halts.clear(connection, no, by, context.sources.clock())
        if found is None:
            raise NotFound("unknown_halt", f"there is no open halt {no}")
        return found

    return await context.database.run(use_case)
