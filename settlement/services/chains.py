"""The runner: takes what is planned to a chain, and finds out what became of what is out (CHAINS 0 and 5.1).

The order of work never changes: prepare, commit the attempt, submit, commit, look up, commit. No call of a chain
happens inside a database transaction. A pass may be cut off anywhere and by anything; the next one, in whichever
process, finds in the rows all that it needs. Several workers may run passes at the same time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile

from settlement.chain import (
    NO_OP,
    Administered,
    AnchorOrder,
    Asset,
    ChainAdapter,
    Contested,
    Expired,
    Failed,
    Gap,
    Outcome,
    PayoutOrder,
    Pending,
    Rejected,
    Settled,
    SetupOrder,
    Transaction,
    Transfer,
    Unpayable,
    Unreachable,
)
from settlement.chain import Order as ChainOrder
from settlement.core.errors import Broken, Conflict, NotFound
from settlement.core.ids import fact_id, made_at
from settlement.core.states import IN_FLIGHT, OrderState
from settlement.services import continuity, outcomes, pauses
from settlement.services.context import Context
from settlement.storage import chain_orders, halts, payouts, rails, windows
from settlement.storage.chain_orders import BusySlots, Order
from settlement.storage.database import Connection
from settlement.storage.payouts import Payout

FOR_GOOD = "refused for good with"
"""How an order's detail says that a node has called its bytes wrong, and not only untimely."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one pass did, and what is left after it."""

    ordered: int = 0
    signed: int = 0
    settled: int = 0
    failed: int = 0
    expired: int = 0
    contested: int = 0
    planned_left: int = 0
    """Orders to sign and payouts without an order."""
    in_flight: int = 0
    """Orders whose outcome isn't known."""
    halted: bool = False
    """A halt is open, or an operator has closed the chain."""

    @property
    def idle(self) -> bool:
        """Nothing is left that another pass could do."""
        return not self.in_flight and (self.halted or not self.planned_left)


async def run_once(context: Context, chain_name: str) -> Progress:
    """One pass over a chain: look up what is out, then, unless a halt is open, order, sign and submit what is planned.

    A Broken found on the way halts and is raised.
    """
    runner = _Pass(context, chain_name, context.chains[chain_name])
    try:
        return await runner.run()
    except Broken as error:
        await _halt(context, error.code, f"{chain_name}: {error.detail}")
        raise


async def run_until_idle(
    context: Context,
    chain_name: str,
    max_passes: int = 100,
    pause: Callable[[], Awaitable[None]] | None = None,
) -> Progress:
    """Passes until nothing is left to do or `max_passes` are made, with `pause` between them. Returns the sum."""
    total = Progress()
    for turn in range(max_passes):
        if turn and pause is not None:
            await pause()
        done = await run_once(context, chain_name)
        total = replace(
            done,
            ordered=total.ordered + done.ordered,
            signed=total.signed + done.signed,
            settled=total.settled + done.settled,
            failed=total.failed + done.failed,
            expired=total.expired + done.expired,
            contested=total.contested + done.contested,
        )
        if done.idle:
            break
    return total


async def make_orders(context: Context, chain_name: str) -> None:
    """Give every payout that waits for one an order, signing nothing."""
    runner = _Pass(context, chain_name, context.chains[chain_name])
    while await runner.make_order():
        pass


def id_of_order(names: Sequence[str], turn: int) -> str:
    """The id of the order that carries these payouts for the `turn`-th time, from 0."""
    return fact_id("ord", made_at(names[0]), *names, str(turn))


async def order_of(connection: Connection, batch: Sequence[Payout], now: datetime) -> Order:
    """A new order that carries locked, planned payouts of one window, in this order. Its id follows from theirs."""
    names = [each.id for each in batch]
    turn = 0
    while await chain_orders.get(connection, id_of_order(names, turn)) is not None:
        turn += 1
    name, chain, window = id_of_order(names, turn), batch[0].chain, batch[0].window_no
    await chain_orders.add(
        connection, order_id=name, kind="payout", chain=chain, window_no=window, digest=None, now=now
    )
    await payouts.assign(connection, batch, name)
    made = await chain_orders.get(connection, name)
    assert made is not None, "it was added in this transaction"
    return made


async def content_of(connection: Connection, order: Order) -> ChainOrder | SetupOrder:
    """What an order asks a chain for."""
    if order.step is not None:
        return SetupOrder(order.id, order.step)
    if order.digest is not None:
        return AnchorOrder(order.id, order.digest)
    carried = await payouts.of_order(connection, order.id)
    return PayoutOrder(order.id, tuple(transfer_of(each) for each in carried))


def transfer_of(payout: Payout) -> Transfer:
    """What a payout asks a chain for."""
    return Transfer(payout.address, Asset.parse(payout.asset), payout.amount, payout.reference, payout.id)


async def _halt(context: Context, code: str, detail: str) -> None:
    async def use_case(connection: Connection) -> None:
        await halts.add(connection, code, detail, context.sources.clock())

    await context.database.run(use_case)


class _Pass:
    """One pass over one chain."""

    def __init__(self, context: Context, chain: str, adapter: ChainAdapter) -> None:
        self.context = context
        self.chain = chain
        self.adapter = adapter
        self.done = dict.fromkeys(("ordered", "signed", "settled", "failed", "expired", "contested"), 0)

    async def run(self) -> Progress:
        for order in await self._in(*IN_FLIGHT):
            await self.look_up(order)
        if not await self._halted():
            while await self.make_order():
                self.done["ordered"] += 1
            if await self._complete():
                await self._sign_planned()
        async with self.context.database.read() as connection:
            planned = len(await chain_orders.in_states(connection, self.chain, ("planned",)))
            waiting = await payouts.waiting(connection, self.chain)
            flying = len(await chain_orders.in_states(connection, self.chain, IN_FLIGHT))
            closed = await rails.closed(connection, self.chain) is not None
            halted = closed or bool(await halts.open_halts(connection))
        return Progress(**self.done, planned_left=planned + waiting, in_flight=flying, halted=halted)

    async def _in(self, *wanted: OrderState) -> list[Order]:
        async with self.context.database.read() as connection:
            return await chain_orders.in_states(connection, self.chain, wanted)

    async def _halted(self) -> bool:
        async with self.context.database.read() as connection:
            return await self._stopped(connection)

    async def _sign_planned(self) -> None:
        for order in await self._in("planned"):
            if not await self.sign_and_submit(order):
                break
        await self.fill_gap()

    async def _complete(self) -> bool:
        """Whether the books know all that was paid here. While nobody can say, planned orders wait and say so."""
        try:
            return await continuity.holds(self.context, self.chain)
        except (Gap, Unreachable) as why:
            for order in await self._in("planned"):
                await self._note(order, f"waits for what was signed before: {why}")
            return False

    async def _stopped(self, connection: Connection) -> bool:
        """Whether nothing may be signed now: a halt is open, the chain is closed, or the council has paused payouts."""
        if await halts.open_halts(connection) or await rails.closed(connection, self.chain) is not None:
            return True
        return await pauses.payouts_stopped(connection, self.context.sources.clock()) is not None

    # --- what is out ----------------------------------------------------------------------------------------------

    async def look_up(self, order: Order) -> None:
        """Ask for every attempt of the order's slot and book what they say; hand the bytes over again if unsure."""
        async with self.context.database.read() as connection:
            attempts = (await chain_orders.attempts(connection, [order.id]))[order.id]
        try:
            found = [(tx, await self.adapter.status(tx)) for tx in attempts]
        except Unreachable:
            return  # nothing is known, so nothing changes
        tx, outcome = outcomes.verdict(found)
        refused = refusal_for_good(order, tx)
        if refused and isinstance(outcome, Expired):
            outcome = Failed(refused, None, used_slot=False)  # proven dead, and there is no use in signing it again
        if await self._book(order, tx, outcome):
            return
        late = isinstance(outcome, Pending) and outcome.again
        if (late or order.state in ("signed", "unknown")) and not refused and not await self._halted():
            await self.submit(order, tx)

    async def _book(self, order: Order, tx: Transaction, outcome: Outcome) -> bool:
        """Book an outcome; False when there is none yet."""
        match outcome:
            case Settled():
                self.done["settled"] += await outcomes.settle(self.context, order, tx, outcome)
            case Failed():
                self.done["failed"] += await outcomes.fail(self.context, order, tx, outcome)
            case Expired():
                self.done["expired"] += await outcomes.expire(self.context, order)
            case Contested():
                self.done["contested"] += await outcomes.contest(self.context, order, outcome)
            case _:
                return False
        return True

    async def submit(self, order: Order, tx: Transaction) -> None:
        """Hand the bytes over and note the answer, which is a hint: whatever goes wrong, they may have left.

        Once they were taken, what is said to later offers of what is late changes nothing on record.
        """
        state: OrderState = "submitted"
        detail = tx.id
        try:
            await self.adapter.submit(tx)
        except Rejected as refusal:
            how = FOR_GOOD if refusal.lasting else "refused with"
            state, detail = "unknown", f"{tx.id}: {how} {refusal.code}"
        except Exception as error:  # noqa: BLE001 (an adapter's own failure says no more than a silent node)
            state, detail = "unknown", f"{tx.id}: {type(error).__name__}"
        if order.state == "submitted":
            state = "submitted"  # it was taken before, and no later hint takes that back
        if state == order.state and not detail.startswith(f"{tx.id}: {FOR_GOOD}"):
            return

        async def use_case(connection: Connection) -> None:
            if not await chain_orders.claim(connection, order):
                return
            if state == order.state:
                await chain_orders.note(connection, order, detail)
            else:
                await chain_orders.move(connection, order, state, now=self.context.sources.clock(), detail=detail)

        await self.context.database.run(use_case)

    # --- what is planned ------------------------------------------------------------------------------------------

    async def make_order(self) -> bool:
        """Put waiting payouts of one window, as many as a transaction carries, into an order. False if none wait."""

        async def use_case(connection: Connection) -> bool:
            batch = await payouts.next_batch(connection, self.chain, self.adapter.facts.transfers)
            if not batch:
                return False
            if not self.adapter.facts.shares_references:
                batch = together(batch)
            await order_of(connection, batch, self.context.sources.clock())
            return True

        return await self.context.database.run(use_case)

    async def fill_gap(self) -> None:
        """A number that was given back, and that no order takes, holds up all that was signed behind it: plan a
        transaction that does nothing but use it."""
        if not isinstance(self.adapter, Administered):
            return

        async def use_case(connection: Connection) -> None:
            if await chain_orders.is_held_up(connection, self.chain):
                window, new_id = await windows.enter(connection), self.context.sources.new_id("ord")
                await chain_orders.add(
                    connection,
                    order_id=new_id,
                    kind="setup",
                    chain=self.chain,
                    window_no=window,
                    digest=None,
                    step=NO_OP,
                    now=self.context.sources.clock(),
                )

        await self.context.database.run(use_case)

    async def sign_and_submit(self, order: Order) -> bool:
        """Sign a planned order on its slot or on a free one, put it on record, hand it over. False: no more for now."""
        async with self.context.database.read() as connection:
            if order.slot is None and await chain_orders.must_wait(connection, order):
                return True
            busy = await chain_orders.busy_slots(connection, self.chain)
            content = await content_of(connection, order)
        if order.slot is not None and order.slot.account in busy.frozen:
            return True
        try:
            tx = await self._prepare(order, content, busy)
        except Unpayable as why:
            return await self._unpayable(order, why)
        except Unreachable:
            return False
        signed = await self._record(order, tx)
        if signed is None:
            return True
        self.done["signed"] += 1
        await self.submit(signed, tx)
        return True

    async def _prepare(self, order: Order, content: ChainOrder | SetupOrder, busy: BusySlots) -> Transaction:
        if not isinstance(content, SetupOrder):
            return await self.adapter.prepare(content, slot=order.slot, busy=busy)
        if not isinstance(self.adapter, Administered):
            raise Unpayable("step_unknown", f"{self.chain} sets no account up")
        return await self.adapter.prepare_step(content, slot=order.slot, busy=busy)

    async def _unpayable(self, order: Order, why: Unpayable) -> bool:
        """With a transfer at fault the order fails, without using a slot; otherwise it waits for better days. A step of
        setting the account up never waits, since everything else waits for it: it is planned anew when asked for."""
        if why.culprit is not None or order.step is not None:
            failure = Failed(why.code, why.culprit, used_slot=False)
            self.done["failed"] += await outcomes.fail(self.context, order, None, failure)
            return True

        await self._note(order, str(why))
        return False

    async def _note(self, order: Order, why: str) -> None:
        async def use_case(connection: Connection) -> None:
            if await chain_orders.claim(connection, order):
                await chain_orders.note(connection, order, why)

        if order.detail != why:
            await self.context.database.run(use_case)

    async def _record(self, order: Order, tx: Transaction) -> Order | None:
        """Commit the attempt before a byte of it leaves. None when it must not leave: its bytes are thrown away."""
        if order.slot is not None and tx.slot != order.slot:
            raise Broken("slot_changed", f"{order.id} keeps {order.slot}, but was signed on {tx.slot} (rule 4)")

        async def use_case(connection: Connection) -> bool:
            await chain_orders.enter(connection, order)
            account = await chain_orders.lock_account(connection, self.chain, tx.slot)
            now = self.context.sources.clock()
            if account.frozen is not None or await self._stopped(connection):
                return False
            ahead = tx.slot.kind == "sequence" and tx.slot.number > account.next_number
            if order.slot is None and ahead:
                detail = (
                    f"{self.chain}: {tx.slot.account} offers {tx.slot.number}, the books expect "
                    f"{account.next_number}: transactions that are not on record have used its slots"
                )
                await chain_orders.freeze(connection, self.chain, tx.slot.account, detail)
                await halts.add(connection, "slots_unaccounted", detail, now)
                return False
            if order.slot is None and await chain_orders.must_wait(connection, order):
                return False
            if await chain_orders.slot_taken(connection, order, tx.slot):
                return False
            if not await chain_orders.claim(connection, order):
                return False
            await chain_orders.add_attempt(connection, order, tx, now)
            if tx.slot.kind == "sequence" and tx.slot.number >= account.next_number:
                await chain_orders.set_mark(connection, self.chain, tx.slot.account, tx.slot.number + 1)
            return True

        if not await self.context.database.run(use_case):
            return None
        return replace(order, state="signed", slot=tx.slot, attempts=order.attempts + 1)


def refusal_for_good(order: Order, tx: Transaction) -> str:
    """The code with which a node has called the newest attempt's bytes wrong for good; empty when none has."""
    begins = f"{tx.id}: {FOR_GOOD} "
    found = order.detail or ""
    return found.removeprefix(begins) if order.state != "planned" and found.startswith(begins) else ""


def together(batch: Sequence[Payout]) -> list[Payout]:
    """Of waiting payouts, those that can share a transaction on a network where a reference can't be shared: the
    first one alone if it has one, else all up to the next that has."""
    if batch[0].reference is not None:
        return [batch[0]]
    return list(takewhile(lambda each: each.reference is None, batch))


# --- for a person -----------------------------------------------------------------------------------------------------


async def resolve_contested(context: Context, order_id: str) -> OrderState:
    """A person has found out who used the order's slot: look all its attempts up again and book what they say.

    Settled when one of them is in a final ledger after all; failed, with its payouts planned anew, when the slot is
    proven to have gone to somebody else. Returns the order's state. Raises NotFound, Conflict ``order_not_contested``
    or ``outcome_unproven``; Unreachable when the node can't be asked.
    """
    async with context.database.read() as connection:
        order = await chain_orders.get(connection, order_id)
        if order is None:
            raise NotFound("unknown_order", f"there is no order {order_id}")
        attempts = (await chain_orders.attempts(connection, [order_id]))[order_id]
    if order.state != "contested":
        raise Conflict("order_not_contested", f"{order_id} is {order.state}")
    adapter = context.chains[order.chain]
    tx, outcome = outcomes.verdict([(tx, await adapter.status(tx)) for tx in attempts])
    if isinstance(outcome, Settled):
        await outcomes.settle(context, order, tx, outcome)
        return "settled"
    if isinstance(outcome, Contested):
        outcome = Failed("slot_lost", None, used_slot=True)
    if isinstance(outcome, Failed) and outcome.used_slot:
        await outcomes.fail(context, order, tx, outcome)
        return "failed"
    raise Conflict("outcome_unproven", f"no node can prove yet what became of {order_id}")


async def release_account(context: Context, chain_name: str, account: str, next_number: int) -> None:
    """A person has matched the account's history: it may sign again, the chain's next slot being `next_number`.

    Halts stay open until they are cleared. Raises NotFound ``account_not_frozen``.
    """

    async def use_case(connection: Connection) -> bool:
        return await chain_orders.release(connection, chain_name, account, next_number)

    if not await context.database.run(use_case):
        raise NotFound("account_not_frozen", f"{account} on {chain_name} is not frozen")
