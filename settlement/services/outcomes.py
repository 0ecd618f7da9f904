"""How an order ends: one commit for each outcome, with everything that follows from it in the books.

Each claims the order first and does nothing when another worker has moved it, so that an outcome is booked once
however often it is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from settlement.chain import Contested, Expired, Failed, Outcome, Pending, Settled, Transaction
from settlement.core.errors import Broken
from settlement.core.journal import CU, Entry, Kind, Posting
from settlement.core.states import PayoutKind
from settlement.services import events
from settlement.services.context import Context
from settlement.storage import chain_orders, checkpoints, halts, journal, payouts, windows
from settlement.storage.accounts import system_account
from settlement.storage.chain_orders import Order
from settlement.storage.database import Connection
from settlement.storage.payouts import Payout


@dataclass(frozen=True, slots=True)
class Entries:
    """The kinds of journal entries of a kind of payout."""

    planned: Kind
    settled: Kind
    failed: Kind


ENTRIES: Mapping[PayoutKind, Entries] = {
    "earnings": Entries("payout_planned", "payout_settled", "payout_failed"),
    "withdrawal": Entries("withdrawal_planned", "withdrawal_settled", "withdrawal_failed"),
    "refund": Entries("refund_planned", "refund_settled", "refund_failed"),
}

FAILURES = 8
"""How many orders of a window may fail on a chain without any payee's fault before a person has to look."""


def verdict(found: Sequence[tuple[Transaction, Outcome]]) -> tuple[Transaction, Outcome]:
    """What all attempts of one slot say together; `found` is every attempt, oldest first.

    One that is in a final ledger decides, whichever it is. Expired needs proof for each of them. That the slot is gone
    is only contested when none of them can have taken it: they were asked one after the other, and an early answer
    "still free" beside a late "gone" proves nothing yet.
    """
    final = [
        each for each in found if isinstance(each[1], Settled) or (isinstance(each[1], Failed) and each[1].used_slot)
    ]
    if len(final) > 1:
        raise Broken("slot_used_twice", f"{final[0][0].id} and {final[1][0].id} are both in final ledgers")
    if final:
        return final[0]
    last, outcomes = found[-1][0], [outcome for _, outcome in found]
    dead = [isinstance(outcome, (Expired, Failed)) for outcome in outcomes]
    if all(dead):
        return last, outcomes[-1]
    contested = next((outcome for outcome in outcomes if isinstance(outcome, Contested)), None)
    if contested and all(isinstance(outcome, (Contested, Failed)) for outcome in outcomes):
        return last, contested
    newest = outcomes[-1]
    return last, newest if isinstance(newest, Pending) else Pending()


async def settle(context: Context, order: Order, tx: Transaction, outcome: Settled) -> bool:
    """It is in a final ledger. What was delivered ends each payout; anything but all or nothing halts. False if lost.

    The order then stays where it is for a person, as contested.
    """
    atomic = context.chains[order.chain].facts.atomic

    async def use_case(connection: Connection) -> bool:
        number = await windows.enter(connection)
        if not await chain_orders.claim(connection, order):
            return False
        now = context.sources.clock()
        if order.kind == "anchor":
            await windows.mark_anchored(connection, order.window_no, outcome.at.closed_at)
        elif order.kind == "payout":
            carried = await payouts.of_order(connection, order.id, lock=True)
            asked = tuple(payout.amount for payout in carried)
            expected = [(amount,) if atomic else (amount, 0) for amount in asked]
            delivered = outcome.delivered
            if len(delivered) != len(asked) or any(d not in e for d, e in zip(delivered, expected, strict=True)):
                detail = f"{order.id}: {tx.id} delivered {list(delivered)}, asked were {list(asked)}"
                await _call_a_person(connection, order, "delivery_mismatch", detail, now)
                return True
            surcharges = outcome.surcharge or (0,) * len(carried)
            for payout, amount, more in zip(carried, delivered, surcharges, strict=True):
                if amount:
                    await _book_settled(context, connection, number, payout, tx, outcome, now)
                    await _book_surcharge(connection, number, payout, tx, more, now)
                else:
                    await _book_failed(context, connection, number, payout, "not_delivered", now)
        if outcome.next_number is not None:
            await chain_orders.raise_mark(connection, order.chain, tx.slot.account, outcome.next_number)
        await _book_fee(connection, context, number, order, tx, outcome.fee, now)
        await chain_orders.move(
            connection,
            order,
            "settled",
            now=now,
            detail=tx.id,
            tx_id=tx.id,
            ledger=outcome.at.number,
            ended_at=outcome.at.closed_at,
            fee=outcome.fee,
        )
        return True

    return await context.database.run(use_case)


async def fail(context: Context, order: Order, tx: Transaction | None, outcome: Failed) -> bool:
    """It can't be paid as it is. The payout at fault goes back to its provider's balance, the others and an anchor wait
    for a new order. `tx` is None when it could not even be built. False if another worker has moved the order."""

    async def use_case(connection: Connection) -> bool:
        number = await windows.enter(connection)
        if not await chain_orders.claim(connection, order):
            return False
        now = context.sources.clock()
        for payout in await payouts.of_order(connection, order.id, lock=True):
            if payout.transfer == outcome.culprit:
                await _book_failed(context, connection, number, payout, outcome.code, now)
            else:
                await payouts.give_back(connection, payout, f"{order.id} failed without its fault: {outcome.code}")
        if tx is not None:
            await _book_fee(connection, context, number, order, tx, outcome.fee, now)
        free = {} if outcome.used_slot else {"slot_account": None, "slot_kind": None, "slot_number": None}
        await chain_orders.move(
            connection,
            order,
            "failed",
            now=now,
            detail=outcome.code,
            tx_id=None if tx is None else tx.id,
            ended_at=now,
            fee=outcome.fee,
            **free,
        )
        if order.kind == "anchor":
            await _anchor_again(context, connection, order, now)
        ours = outcome.culprit is None and order.kind != "setup"  # whoever sets an account up is looking at it
        if ours and await chain_orders.failures(connection, order) % FAILURES == 0:
            detail = (
                f"{order.chain}: {FAILURES} orders of win_{order.window_no} have failed, the last with {outcome.code}"
            )
            await halts.add(connection, "orders_failing", detail, now)
        return True

    return await context.database.run(use_case)


async def give_up(context: Context, order: Order, why: str) -> int:
    """A planned order is not carried out: it was never signed, or every attempt is proven expired. All its payouts go
    back to their providers' balances. Returns how many; 0 if another worker has moved the order."""

    async def use_case(connection: Connection) -> int:
        number = await windows.enter(connection)
        if not await chain_orders.claim(connection, order):
            return 0
        now = context.sources.clock()
        carried = await payouts.of_order(connection, order.id, lock=True)
        for payout in carried:
            await _book_failed(context, connection, number, payout, "rail_given_up", now)
        free = {"slot_account": None, "slot_kind": None, "slot_number": None}
        await chain_orders.move(connection, order, "failed", now=now, detail=why, ended_at=now, **free)
        return len(carried)

    return await context.database.run(use_case)


async def expire(context: Context, order: Order) -> bool:
    """Every attempt is proven dead: back to planned, with its slot. False if another worker has moved the order."""

    async def use_case(connection: Connection) -> bool:
        if not await chain_orders.claim(connection, order):
            return False
        await chain_orders.move(
            connection, order, "planned", now=context.sources.clock(), detail="every attempt expired"
        )
        return True

    return await context.database.run(use_case)


async def contest(context: Context, order: Order, outcome: Contested) -> bool:
    """Somebody else used the slot: nothing more is signed for its account, payouts halt, the money stays set aside."""

    async def use_case(connection: Connection) -> bool:
        if not await chain_orders.claim(connection, order):
            return False
        await _call_a_person(
            connection, order, "slot_contested", f"{order.id}: {outcome.detail}", context.sources.clock()
        )
        return True

    return await context.database.run(use_case)


async def _call_a_person(connection: Connection, order: Order, code: str, detail: str, now: datetime) -> None:
    assert order.slot is not None, "an order that was signed has a slot"
    if order.state == "contested":
        raise Broken(code, detail)
    await chain_orders.freeze(connection, order.chain, order.slot.account, detail)
    await chain_orders.move(connection, order, "contested", now=now, detail=detail)
    await halts.add(connection, code, detail, now)


async def _anchor_again(context: Context, connection: Connection, order: Order, now: datetime) -> None:
    checkpoint = await checkpoints.get(connection, order.window_no)
    await chain_orders.add(
        connection,
        order_id=context.sources.new_id("anc"),
        kind="anchor",
        chain=order.chain,
        window_no=order.window_no,
        digest=checkpoint.digest,
        now=now,
    )


async def _book_settled(
    context: Context,
    connection: Connection,
    window: int,
    payout: Payout,
    tx: Transaction,
    outcome: Settled,
    now: datetime,
) -> None:
    await payouts.end(connection, payout, "settled")
    facts = {"tx": tx.id, "ledger": outcome.at.number, "transfer": payout.transfer or 0, "order": payout.order_id or ""}
    entry = Entry(ENTRIES[payout.kind].settled, payout.id, window, now, _sent(payout), facts)
    await journal.append(connection, entry)
    await events.payout_ended(context, connection, payout, transaction=tx.id)


async def _book_surcharge(
    connection: Connection, window: int, payout: Payout, tx: Transaction, amount: int, now: datetime
) -> None:
    """What the asset's issuer took from the treasury on top of what arrived."""
    if not amount:
        return
    named = f"{payout.chain}/{payout.asset}"
    legs = (
        Posting(system_account("treasury", payout.chain, payout.asset), named, amount),
        Posting(system_account("fees", payout.chain, payout.asset), named, -amount),
    )
    facts = {"chain": payout.chain, "tx": tx.id}
    await journal.append(connection, Entry("operation", payout.id, window, now, legs, facts))


async def _book_failed(
    context: Context, connection: Connection, window: int, payout: Payout, code: str, now: datetime
) -> None:
    """The money goes back to where it came from, and with a withdrawal its fee."""
    await payouts.end(connection, payout, "failed", code)
    facts = {"code": code, "order": payout.order_id or ""}
    entry = Entry(ENTRIES[payout.kind].failed, payout.id, window, now, _returned(payout), facts)
    await journal.append(connection, entry)
    if payout.fee:
        legs = (
            Posting(system_account("fees"), CU, -payout.fee),
            Posting(party_of(payout), CU, payout.fee),
        )
        await journal.append(connection, Entry("withdrawal_fee_returned", payout.id, window, now, legs, {}))
    await events.payout_ended(context, connection, payout, code=code)


def party_of(payout: Payout) -> str:
    """Whose balance a payout is of. Refunds are of nobody's."""
    assert payout.party_id is not None, "earnings and withdrawals have their party (CHECK ck_payout_party_no)"
    return payout.party_id


def _sent(payout: Payout) -> tuple[Posting, ...]:
    """What was set aside leaves the books together with the asset."""
    chain, asset, named = payout.chain, payout.asset, f"{payout.chain}/{payout.asset}"
    left = Posting(system_account("treasury", chain, asset), named, payout.amount)
    if payout.kind == "refund":
        return Posting(system_account("transit", chain, asset), named, -payout.amount), left
    return (
        Posting(system_account("transit"), CU, -payout.micro),
        Posting(system_account("conversion"), CU, payout.micro),
        Posting(system_account("conversion", chain, asset), named, -payout.amount),
        left,
    )


def _returned(payout: Payout) -> tuple[Posting, ...]:
    if payout.kind == "refund":
        chain, asset, named = payout.chain, payout.asset, f"{payout.chain}/{payout.asset}"
        return (
            Posting(system_account("transit", chain, asset), named, -payout.amount),
            Posting(system_account("suspense", chain, asset), named, payout.amount),
        )
    return Posting(system_account("transit"), CU, -payout.micro), Posting(party_of(payout), CU, payout.micro)


async def _book_fee(
    connection: Connection, context: Context, window: int, order: Order, tx: Transaction, fee: int, now: datetime
) -> None:
    if not fee:
        return
    asset = context.chains[order.chain].facts.fee_asset.text
    named = f"{order.chain}/{asset}"
    legs = (
        Posting(system_account("treasury", order.chain, asset), named, fee),
        Posting(system_account("fees", order.chain, asset), named, -fee),
    )
    await journal.append(connection, Entry("chain_fee", order.id, window, now, legs, {"tx": tx.id}))
