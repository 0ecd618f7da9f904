"""Whether a chain has seen payments that the books have not: asked once, before a process signs for the chain.

Books from a backup know less than the chain. Where slots are numbers in a row, the next one that is offered shows it.
Tickets, and accounts that have not signed yet, show nothing: a payout would be signed once more on one of them. So a
process signs only when all that was paid since the ledger up to which the books are complete is on record.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from settlement.chain import ChainAdapter, Sent, Settled
from settlement.services.context import Context
from settlement.storage import chain_orders, funding, halts, journal
from settlement.storage.database import Connection, Database

STEP = 100
"""Ledgers by which the mark moves on while a process works: few writes, and little to read at the next start."""
_known: WeakKeyDictionary[Database, dict[str, int]] = WeakKeyDictionary()
"""The marks that this process has seen; one that has gone back is that of other books."""


async def holds(context: Context, chain: str) -> bool:
    """Whether the books are complete. What they lack freezes the accounts that paid it and halts
    (``slots_unaccounted``), until it is on record. Raises Gap, Unreachable."""
    async with context.database.read() as connection:
        state = await funding.state(connection, chain)
    if state is None:
        return True
    known = _known.setdefault(context.database, {})
    if state.complete < known.get(chain, state.complete + 1):
        paid = await _paid(context.chains[chain], state.complete)
        if paid and not await context.database.run(lambda connection: _recorded(context, connection, chain, paid)):
            return False
    known[chain] = state.complete
    if state.tip >= state.complete + STEP:
        await context.database.run(lambda connection: funding.complete_to(connection, chain, state.tip))
        known[chain] = state.tip
    return True


async def _recorded(context: Context, connection: Connection, chain: str, paid: Sequence[Sent]) -> bool:
    """Whether all of these are on record; those that aren't freeze and halt."""
    lost = await _lost(connection, chain, paid)
    for sent in lost:
        await chain_orders.lock_account(connection, chain, sent.tx.slot)
        await chain_orders.freeze(connection, chain, sent.tx.slot.account, f"{sent.tx.id} is not on record")
    if lost:
        detail = f"{chain}: {lost[0].tx.id} has moved money and is not on record, as if the books were a backup"
        await halts.add(connection, "slots_unaccounted", detail, context.sources.clock())
    return not lost


async def _paid(adapter: ChainAdapter, since: int) -> list[Sent]:
    """What has moved money in ledgers behind that one."""
    found: list[Sent] = []
    cursor, more = str(since), True
    while more:
        page = await adapter.sent(cursor)
        found += [sent for sent in page.sent if sent.transfers and isinstance(sent.outcome, Settled)]
        cursor, more = page.cursor, page.more
    return found


async def _lost(connection: Connection, chain: str, paid: Sequence[Sent]) -> list[Sent]:
    on_record = await chain_orders.transaction_ids(connection, chain)
    lost = []
    for sent in paid:
        ours = sent.tx.id in on_record or any(alias in on_record for alias in sent.tx.aliases)
        if not ours and await journal.facts_of(connection, "operation", sent.tx.id) is None:
            lost.append(sent)
    return lost
