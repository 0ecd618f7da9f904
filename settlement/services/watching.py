"""Whether a chain can be seen as it is now: how old its newest final ledger is, and how its nodes are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from settlement.chain import Condition, Watched
from settlement.core.errors import NotFound, Unavailable
from settlement.services.context import Context
from settlement.storage import funding, rails

STALE = timedelta(seconds=60)
"""From this age on of the newest final ledger deposits are late and nothing can land: somebody should know."""


@dataclass(frozen=True, slots=True)
class ChainView:
    """What the books have seen of a chain. `closed` is why an operator has closed it, None when it is in use."""

    chain: str
    network: str
    treasury: str
    ledger: int
    at: datetime
    age: timedelta
    closed: str | None
    condition: Condition | None = None
    """None where the adapter can't say."""

    @property
    def stale(self) -> bool:
        """Whether its newest final ledger is too old."""
        return self.age > STALE


async def view(context: Context, chain: str) -> ChainView:
    """A chain by the books alone. Raises NotFound ``unknown_chain``, Unavailable ``chain_not_open``."""
    if chain not in context.chains:
        raise NotFound("unknown_chain", f"this service does not settle on {chain!r}")
    async with context.database.read() as connection:
        state = await funding.state(connection, chain)
        closed = await rails.closed(connection, chain)
    if state is None:
        raise Unavailable("chain_not_open", f"{chain} has not been opened yet")
    age = context.sources.clock() - state.tip_at
    return ChainView(chain, state.network, state.treasury, state.tip, state.tip_at, age, closed)


async def check_tip(context: Context, chain: str) -> None:
    """Raises Unavailable ``chain_stale`` when the newest final ledger that was seen is older than `STALE`."""
    found = await view(context, chain)
    if found.stale:
        seconds = found.age // timedelta(seconds=1)
        raise Unavailable("chain_stale", f"the newest final ledger of {chain}, {found.ledger}, is {seconds} s old")


async def condition(context: Context, chain: str) -> Condition | None:
    """How the nodes of a chain are, asked now; None where its adapter can't say."""
    adapter = context.chains[chain]
    return await adapter.condition() if isinstance(adapter, Watched) else None
