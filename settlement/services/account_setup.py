"""Setting the treasury's account up: each step is a chain order of its own, with the same proofs as a payout.

A step is named for what should be, and the chain is asked whether it is: asking again for what is done does nothing,
and a process that dies leaves an order that the next pass of the runner takes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from settlement.chain import Administered, SetupStep, Unreachable
from settlement.core.errors import NotFound, Unavailable
from settlement.services.context import Context
from settlement.services.payouts import refuse_while_halted
from settlement.storage import chain_orders, windows
from settlement.storage.database import Connection


async def steps(context: Context, chain: str) -> tuple[SetupStep, ...]:
    """What the account should have, and what of it a final ledger shows; nothing where the adapter has no list.

    What must be there once, and was made by an order already, can't be ordered again, whatever a node doesn't show.
    Raises NotFound ``unknown_chain``, Unavailable ``chain_unavailable``.
    """
    adapter = context.chains.get(chain)
    if adapter is None:
        raise NotFound("unknown_chain", f"this service does not settle on {chain!r}")
    if not isinstance(adapter, Administered):
        return ()
    try:
        found = await adapter.setup()
    except Unreachable as error:
        raise Unavailable("chain_unavailable", f"{chain} can't be asked now: {error}") from error
    async with context.database.read() as connection:
        return tuple([await _once(connection, chain, adapter.treasury, step) for step in found])


async def _once(connection: Connection, chain: str, treasury: str, step: SetupStep) -> SetupStep:
    made = None if step.done or not step.once else await chain_orders.made_by(connection, chain, treasury, step.name)
    if made is None:
        return step
    return replace(step, orderable=False, detail=f"{made} has made it: the node lags, or it was taken away by hand")


async def plan(context: Context, chain: str, wanted: Sequence[SetupStep]) -> int:
    """An order for each of these steps that is not done, can be ordered and has none under way; returns how many.

    Raises Unavailable ``halted``.
    """
    treasury = context.chains[chain].treasury

    async def use_case(connection: Connection) -> int:
        window = await windows.enter(connection)
        await refuse_while_halted(connection)
        now = context.sources.clock()
        added = 0
        for asked in wanted:
            step = await _once(connection, chain, treasury, asked)
            if not step.done and step.orderable:
                order_id = context.sources.new_id("ord")
                added += await chain_orders.add(
                    connection,
                    order_id=order_id,
                    kind="setup",
                    chain=chain,
                    window_no=window,
                    digest=None,
                    step=step.name,
                    now=now,
                )
        return added

    return await context.database.run(use_case)
