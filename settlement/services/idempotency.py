"""Carrying out a request once for its Idempotency-Key, whatever happens to the connection.

The key is claimed in one commit, the use case runs in its own, the reply is kept in a third. A process that dies in
between leaves a claim that another may take over after `ABANDONED`; so the use case behind it must bear being carried
out a second time, or have a natural key of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from settlement.services.context import Context
from settlement.storage import idempotency
from settlement.storage.idempotency import Claim, Reply

ABANDONED = timedelta(seconds=60)
"""No request takes this long; a claim that is older belongs to a process that died."""
KEPT = timedelta(days=30)
"""How long a reply is kept."""


async def once(context: Context, claim: Claim, act: Callable[[], Awaitable[Reply]]) -> tuple[Reply, bool]:
    """The reply of `act`, and whether it is one that was given before. A refusal isn't kept: the key is free again.

    Raises Malformed ``idempotency_key_reused``, Conflict ``request_in_flight``, and what `act` raises.
    """
    now = context.sources.clock()
    async with context.database.begin() as connection:
        earlier = await idempotency.claim(connection, claim, now, now - ABANDONED)
    if earlier is not None:
        return earlier, True
    try:
        reply = await act()
    except BaseException:
        async with context.database.begin() as connection:
            await idempotency.release(connection, claim)
        raise
    async with context.database.begin() as connection:
        await idempotency.complete(connection, claim, reply)
    return reply, False


async def forget_old(context: Context) -> int:
    """Delete replies and used signatures that are older than `KEPT`; returns how many."""
    async with context.database.begin() as connection:
        return await idempotency.forget(connection, context.sources.clock() - KEPT)
