"""After a restore: what the chain has already seen is found by its marks and booked; nothing of it is sent again.

A backup is older than the chain. Payouts and orders have ids that follow from what they are about, so that restored
books plan the same ones again. `match` reads everything that the service's accounts have ever signed, gives each
transaction that is not on record to the order or payouts whose marks and transfers it carries, and lets the runner look
it up as if it had signed it. What belongs to none is named, and nothing may be signed until a person has explained it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from settlement.chain import Asset, ChainAdapter, PayoutOrder, Sent, Settled, SetupOrder, Transfer, Unpayable
from settlement.chain import Order as ChainOrder
from settlement.core.errors import Conflict, NotFound
from settlement.core.states import IN_FLIGHT
from settlement.services.chains import (
    content_of,
    id_of_order,
    make_orders,
    order_of,
    release_account,
    run_once,
    transfer_of,
)
from settlement.services.context import Context
from settlement.storage import chain_orders, funding, parties, payouts
from settlement.storage.chain_orders import Order, SigningAccount
from settlement.storage.database import Connection
from settlement.storage.payouts import Payout

OPEN = ("planned", *IN_FLIGHT, "contested")
"""The states of orders that a transaction on the chain may turn out to belong to."""


@dataclass(frozen=True, slots=True)
class Matched:
    """What the history of a chain's accounts says. `foreign` are transactions that belong to no order of the books.

    `reasons` says of each foreign one that moved money what it may be, and what would explain it, by transaction id.
    """

    seen: int
    known: int
    adopted: tuple[str, ...]
    foreign: tuple[Sent, ...]
    next_numbers: dict[str, int]
    """The next free sequence number of each account that has signed."""
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the books want of a chain and have not seen yet: orders by their marks, payouts by the mark of each."""

    known: frozenset[str]
    orders: Mapping[tuple[bytes, ...], tuple[Order, ChainOrder | SetupOrder]]
    payouts: Mapping[bytes, Payout]


async def match(context: Context, chain_name: str) -> Matched:
    """Match everything that was signed on a chain with the books, and take up what is missing in them.

    A transaction belongs to the order whose marks and transfers it has, or else to the payouts whose marks its
    transfers have one by one: they are put into an order of their own then. Whatever was taken up is looked up and
    booked. Raises NotFound ``unknown_chain``, Gap and Unreachable.
    """
    if chain_name not in context.chains:
        raise NotFound("unknown_chain", f"there is no chain {chain_name} here")
    adapter = context.chains[chain_name]
    history = await _history(adapter)
    adopted: list[str] = []
    while True:
        await make_orders(context, chain_name)
        asked = await _asked(context, adapter, chain_name)
        taken, foreign = await _round(context, adapter, asked, history)
        if not taken:
            break
        adopted += taken
        await run_once(context, chain_name)
    async with context.database.read() as connection:
        reasons = await _reasons(connection, adapter, chain_name, asked, [each for each in foreign if each.transfers])
    known = len(history) - len(adopted) - len(foreign)
    return Matched(len(history), known, tuple(adopted), tuple(foreign), _next_numbers(history), reasons)


async def _asked(context: Context, adapter: ChainAdapter, chain_name: str) -> _Asked:
    async with context.database.read() as connection:
        orders = {}
        for order in await chain_orders.in_states(connection, chain_name, OPEN):
            content = await content_of(connection, order)
            orders[adapter.marks(content)] = order, content
        alone = {}
        for payout in await payouts.open_payouts(connection, chain_name):
            (mark,) = adapter.marks(PayoutOrder(id_of_order([payout.id], 0), (transfer_of(payout),)))
            alone[mark] = payout
        return _Asked(frozenset(await chain_orders.transaction_ids(connection, chain_name)), orders, alone)


async def _round(
    context: Context, adapter: ChainAdapter, asked: _Asked, history: Sequence[Sent]
) -> tuple[list[str], list[Sent]]:
    """What of the history was taken up, by order, and what is foreign as the books are now."""
    taken, foreign = [], []
    for sent in history:
        if sent.tx.id in asked.known or any(alias in asked.known for alias in sent.tx.aliases):
            continue
        found = asked.orders.get(sent.marks)
        if found is not None and same(adapter, sent, found[1]):
            name = await _adopt(context, found[0], sent)
        else:
            name = await _regroup(context, adapter, sent, [asked.payouts.get(mark) for mark in sent.marks])
        if name is None:
            foreign.append(sent)
        else:
            taken.append(name)
    return taken, foreign


def _next_numbers(history: Sequence[Sent]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for sent in history:
        account, next_number = sent.tx.slot.account, 0
        if sent.tx.slot.kind == "sequence":
            next_number = sent.tx.slot.number + 1
        if isinstance(sent.outcome, Settled) and sent.outcome.next_number is not None:
            next_number = max(next_number, sent.outcome.next_number)
        if next_number:
            numbers[account] = max(numbers.get(account, 0), next_number)
    return numbers


async def release(context: Context, chain_name: str, account: str, next_number: int) -> Matched:
    """Let a frozen account sign again, after its whole history was matched with the books.

    Raises Conflict ``history_unmatched`` while a transfer of the account belongs to no order, or when the chain has
    seen a slot at or beyond `next_number`; NotFound ``account_not_frozen``.
    """
    found = await match(context, chain_name)
    foreign = [sent for sent in found.foreign if sent.tx.slot.account == account and sent.transfers]
    if foreign:
        raise Conflict(
            "history_unmatched",
            f"{len(foreign)} transfers belong to no order, the first is {foreign[0].tx.id}: "
            f"{found.reasons[foreign[0].tx.id]}",
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


async def _adopt(context: Context, order: Order, sent: Sent) -> str | None:
    """Make a transaction an attempt of the order that it belongs to; None when the order can't have it any more."""

    async def use_case(connection: Connection) -> str | None:
        account = await chain_orders.lock_account(connection, order.chain, sent.tx.slot)
        if (order.slot is not None and order.slot != sent.tx.slot) or not await chain_orders.claim(connection, order):
            return None
        return await _take_up(context, connection, order, sent, account)

    return await context.database.run(use_case)


async def _regroup(context: Context, adapter: ChainAdapter, sent: Sent, found: Sequence[Payout | None]) -> str | None:
    """Put the payouts that a transaction carries into an order of their own, as the lost books had them in one.

    Orders that have them and were never signed are taken apart; their other payouts get new ones. None when one of the
    payouts isn't known, asks for something else, or may have been signed already.
    """
    carried = [each for each in found if each is not None]
    if not carried or len(carried) != len(found) or len({each.window_no for each in carried}) > 1:
        return None
    if not same(adapter, sent, PayoutOrder("", tuple(transfer_of(each) for each in carried))):
        return None
    now = context.sources.clock()

    async def use_case(connection: Connection) -> str | None:
        account = await chain_orders.lock_account(connection, carried[0].chain, sent.tx.slot)
        for name in sorted({each.order_id for each in carried if each.order_id is not None}):
            order = await chain_orders.get(connection, name)
            unsigned = order is not None and order.state == "planned" and not order.attempts
            if order is None or not unsigned or not await chain_orders.claim(connection, order):
                raise _InTheWay
            why = f"the chain carries its payouts otherwise: {sent.tx.id}"
            for each in await payouts.of_order(connection, name, lock=True):
                await payouts.give_back(connection, each, why)
            await chain_orders.move(connection, order, "failed", now=now, detail=why, ended_at=now)
        locked = {each.id: each for each in await payouts.locked(connection, [each.id for each in carried])}
        if any(each.state != "planned" for each in locked.values()):
            raise _InTheWay
        made = await order_of(connection, [locked[each.id] for each in carried], now)
        return await _take_up(context, connection, made, sent, account)

    try:
        return await context.database.run(use_case)
    except _InTheWay:
        return None


class _InTheWay(Exception):
    """A payout is in an order that was signed, or has ended meanwhile: nothing of the transaction may stay."""


async def _take_up(context: Context, connection: Connection, order: Order, sent: Sent, account: SigningAccount) -> str:
    await chain_orders.adopt(connection, order, sent.tx, context.sources.clock())
    if sent.tx.slot.kind == "sequence" and sent.tx.slot.number >= account.next_number:
        await chain_orders.set_mark(connection, order.chain, sent.tx.slot.account, sent.tx.slot.number + 1)
    return order.id


async def _reasons(
    connection: Connection, adapter: ChainAdapter, chain: str, asked: _Asked, foreign: Sequence[Sent]
) -> dict[str, str]:
    if not foreign:
        return {}
    owners = {_plain(adapter, to, tag): name for to, tag, name in await parties.paid_on(connection, chain)}
    senders = {_plain(adapter, to, None): name for to, name in (await funding.senders(connection, chain)).items()}
    return {sent.tx.id: _reason(adapter, asked, sent, owners, senders) for sent in foreign}


def _plain(adapter: ChainAdapter, address: str, reference: int | None) -> str:
    """The account that is paid; the text itself when it is no address of the network."""
    try:
        return adapter.payee(address, reference)[0]
    except Unpayable:
        return address


def _reason(
    adapter: ChainAdapter, asked: _Asked, sent: Sent, owners: Mapping[str, str], senders: Mapping[str, str]
) -> str:
    for mark in sent.marks:
        if mark in asked.payouts:
            return f"it carries {asked.payouts[mark].id}, which the books have with other figures or in a signed order"
    for transfer in sent.transfers:
        to = _plain(adapter, transfer.to, transfer.reference)
        if owners.get(to, "").startswith("prv_"):
            return (
                f"it paid {owners[to]} for usage that the books have lost; when its reports have come again and "
                "their windows are closed, match again"
            )
        if to in owners:
            return (
                f"it paid {owners[to]}, most likely a withdrawal asked for after the backup; when the consumer has "
                "sent it again with its Idempotency-Key, match again"
            )
        if to in senders:
            return (
                f"it paid the sender of {senders[to]}, most likely a refund made after the backup; run settlement "
                f"deposits refund {senders[to]}, and match again"
            )
    return "it paid nobody that the books know; if you sent it by hand, settlement chain account --own names it yours"
