"""Anchoring: one order for each window and chain that writes the checkpoint's digest into a ledger."""

from __future__ import annotations

from settlement.core.errors import Conflict
from settlement.services.context import Context
from settlement.storage import chain_orders, checkpoints, windows
from settlement.storage.chain_orders import Order
from settlement.storage.database import Connection


async def plan(context: Context, window_no: int) -> int:
    """Plan what is missing of a window's anchors, such as for a chain that was added later; returns how many.

    Raises NotFound, Conflict ``window_not_planned`` when the window has not come to its payouts: until then there is
    nothing to add, because `payouts.plan` plans the anchors in the same commit.
    """

    async def use_case(connection: Connection) -> int:
        window = await windows.get(connection, window_no, lock=True)
        if window.state != "planned":
            raise Conflict("window_not_planned", f"{window.id} is {window.state}")
        return await add_missing(context, connection, window_no)

    return await context.database.run(use_case)


async def add_missing(context: Context, connection: Connection, window_no: int) -> int:
    """One planned anchor for each configured chain that has none for this window; within the caller's commit."""
    checkpoint = await checkpoints.get(connection, window_no)
    added = 0
    for chain in sorted(context.chains):
        added += await chain_orders.add(
            connection,
            order_id=context.sources.new_id("anc"),
            kind="anchor",
            chain=chain,
            window_no=window_no,
            digest=checkpoint.digest,
            now=context.sources.clock(),
        )
    return added


async def of_window(context: Context, window_no: int) -> list[Order]:
    """Every anchor order of a window with its state, oldest first."""
    async with context.database.read() as connection:
        return [order for order in await chain_orders.of_window(connection, window_no) if order.kind == "anchor"]
