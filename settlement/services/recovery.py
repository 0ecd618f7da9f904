"""After a restore: what the chain has already seen is found by its marks and booked; nothing of it is sent again.

A backup is older than the chain. Payouts and orders have ids that follow from what they are about, so that restored
books plan the same ones again. `match` reads everything that the service's accounts have ever signed, gives each
transaction that is not on record to the order whose marks and transfers it carries, and lets the runner look it up as
if it had signed it. What belongs to no order is named, and nothing may be signed until a person has explained it.
"""

from __future__ import annotations

from dataclasses import dataclass

from settlement.chain import Asset, ChainAdapter, PayoutOrder, Sent, Settled, SetupOrder, Transfer, Unpayable
from settlement.chain import Order as ChainOrder
from settlement.core.errors import Conflict, NotFound
from settlement.core.states import IN_FLIGHT
from settlement.services.chains import content_of, make_orders, release_account, run_once
from settlement.services.context import Context
from settlement.storage import chain_orders
from settlement.storage.chain_orders import Order
from settlement.storage.database import Connection

OPEN = ("planned", *IN_FLIGHT, "contested")
"""The states of orders that a transaction on the chain may turn out to belong to."""


@dataclass(frozen=True, slots=True)
class Matched:
    """What the history of a chain's accounts says. `foreign` are transactions that belong to no order of the books."""

    seen: int
    known: int
    adopted: tuple[str, ...]
    foreign: tuple[Sent, ...]
    next_numbers: dict[str, int]
    """The next free sequence number of each account that has signed."""


async def match(context: Context, chain_name: str) -> Matched:
    """Match everything that was signed on a chain with the books, and take up what is missing in them.

    Whatever was taken up is looked up and booked. Raises NotFound ``unknown_chain``, Gap and Unreachable.
    """
    if chain_name not in context.chains:
        raise NotFound("unknown_chain", f"there is no chain {chain_name} here")
    adapter = context.chains[chain_name]
    await make_orders(context, chain_name)
    history = await _history(adapter)
    async with context.database.read() as connection:
        known = await chain_orders.transaction_ids(connection, chain_name)
        orders = await chain_orders.in_states(connection, chain_name, OPEN)
        marked = {}
        for order in orders:
            content = await content_of(connection, order)
            marked[adapter.marks(content)] = order, content
    adopted, foreign = [], []
    for sent in history:
        if sent.tx.id in known or any(alias in known for alias in sent.tx.aliases):
            continue
        found = marked.get(sent.marks)
        if found is None or not same(adapter, sent, found[1]):
            foreign.append(sent)
        elif await _adopt(context, found[0], sent):
            adopted.append(found[0].id)
    if adopted:
        await run_once(context, chain_name)
    numbers: dict[str, int] = {}
    for sent in history:
        if sent.tx.slot.kind == "sequence":
            account = sent.tx.slot.account
            numbers[account] = max(numbers.get(account, 0), sent.tx.slot.number + 1)
        if isinstance(sent.outcome, Settled) and sent.outcome.next_number is not None:
            account = sent.tx.slot.account
            numbers[account] = max(numbers.get(account, 0), sent.outcome.next_number)
    return Matched(len(history), len(history) - len(adopted) - len(foreign), tuple(adopted), tuple(foreign), numbers)


async def release(context: Context, chain_name: str, account: str, next_number: int) -> Matched:
    """Let a frozen account sign again, after its whole history was matched with the books.

    Raises Conflict ``history_unmatched`` while a transfer of the account belongs to no order, or when the chain has
    seen a slot at or beyond `next_number`; NotFound ``account_not_frozen``.
    """
    found = await match(context, chain_name)
    foreign = [sent for sent in found.foreign if sent.tx.slot.account == account and sent.transfers]
    if foreign:
        raise Conflict(
            "history_unmatched", f"{len(foreign)} transfers belong to no order, the first is {foreign[0].tx.id}"
        )
    if found.next_numbers.get(account, 0) > next_number:
        raise Conflict("history_unmatched", f"{account} has used slots up to {found.next_numbers[account] - 1}")
    await release_account(context, chain_name, account, next_number)
    return found


async def _history(adapter: ChainAdapter) -> list[Sent]:
    found: list[Sent] = []
    cursor, more = None, True
    while more:
        page = await adapter.sent(cursor)
        found += page.sent
        cursor, more = page.cursor, page.more
    return found


def same(adapter: ChainAdapter, sent: Sent, content: ChainOrder | SetupOrder) -> bool:
    """Whether a transaction pays exactly what the order asks for: the same accounts with the same tags or ids, however
    either is written. Ids of transfers aren't on every chain."""
    if not isinstance(content, PayoutOrder):
        return not sent.transfers
    try:
        asked, paid = ([_paid(adapter, each) for each in one] for one in (content.transfers, sent.transfers))
    except Unpayable:
        return False
    return asked == paid


def _paid(adapter: ChainAdapter, transfer: Transfer) -> tuple[str, int | None, Asset, int]:
    return *adapter.payee(transfer.to, transfer.reference), transfer.asset, transfer.amount


async def _adopt(context: Context, order: Order, sent: Sent) -> bool:
    async def use_case(connection: Connection) -> bool:
        account = await chain_orders.lock_account(connection, order.chain, sent.tx.slot)
        if (order.slot is not None and order.slot != sent.tx.slot) or not await chain_orders.claim(connection, order):
            return False
        await chain_orders.adopt(connection, order, sent.tx, context.sources.clock())
        if sent.tx.slot.kind == "sequence" and sent.tx.slot.number >= account.next_number:
            await chain_orders.set_mark(connection, order.chain, sent.tx.slot.account, sent.tx.slot.number + 1)
        return True

    return await context.database.run(use_case)
