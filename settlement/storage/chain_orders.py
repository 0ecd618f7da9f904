"""Chain orders, their signed attempts, and the accounts that sign.

An order's state changes only in `move`, which writes an event beside it; attempts and events are append-only. Whoever
changes an order claims it first: a row lock that skips what others hold, and a comparison with the state that was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from settlement.chain import NO_OP, Slot, Transaction
from settlement.core import states
from settlement.core.states import OrderState
from settlement.storage.database import Connection
from settlement.storage.tables import attempt, attempt_event, chain_order, signing_account

_SIGNING = 0x516E
"""Advisory lock of each chain: shared by what takes a slot, exclusive for what sets the account up."""


@dataclass(frozen=True, slots=True)
class Order:
    """One transaction's worth of work for a chain. `slot` is the single-use right that all its attempts share."""

    id: str
    kind: str
    chain: str
    window_no: int
    digest: bytes | None
    state: OrderState
    slot: Slot | None
    attempts: int
    detail: str | None
    tx_id: str | None
    ledger: int | None
    ended_at: datetime | None
    fee: int
    created_at: datetime
    step: str | None = None
    """What an order of kind setup brings about."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step of an order: `n` is the attempt it concerns, 0 before the first."""

    n: int
    state: str
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SigningAccount:
    """`next_number` is the slot that the chain must offer next; `frozen` says why nothing may be signed."""

    account: str
    next_number: int
    frozen: str | None


@dataclass(frozen=True, slots=True)
class BusySlots:
    """The slots that no new order may take (a Container for `ChainAdapter.prepare`).

    Every sequence number below an account's mark has been given out, so that not even a node that lags can offer it
    again; all but those that were given back unused. A frozen account has no free slot at all.
    """

    marks: Mapping[str, int]
    frozen: frozenset[str]
    returned: frozenset[Slot]
    held: frozenset[Slot]

    def __contains__(self, slot: object) -> bool:
        if not isinstance(slot, Slot) or slot in self.held or slot.account in self.frozen:
            return True
        given_out = slot.kind == "sequence" and slot.number < self.marks.get(slot.account, 0)
        return given_out and slot not in self.returned


async def add(
    connection: Connection,
    *,
    order_id: str,
    kind: str,
    chain: str,
    window_no: int,
    digest: bytes | None,
    now: datetime,
    step: str | None = None,
) -> bool:
    """A new order in state planned; False when the window has its anchor on that chain already, or the step an order
    that has not ended."""
    statement = upsert(chain_order).values(
        id=order_id,
        kind=kind,
        chain=chain,
        window_no=window_no,
        digest=digest,
        step=step,
        state="planned",
        created_at=now,
    )
    added = await connection.execute(statement.on_conflict_do_nothing().returning(chain_order.c.id))
    return added.first() is not None


async def get(connection: Connection, order_id: str) -> Order | None:
    """The order as it stands."""
    row = (await connection.execute(select(chain_order).where(chain_order.c.id == order_id))).first()
    return None if row is None else _order(row)


async def in_states(connection: Connection, chain: str, wanted: Sequence[OrderState]) -> list[Order]:
    """The chain's orders in these states, oldest first."""
    query = select(chain_order).where(chain_order.c.chain == chain, chain_order.c.state.in_(wanted))
    if not {"settled", "failed"} & set(wanted):
        query = query.where(chain_order.c.state.not_in(("settled", "failed")))  # what the partial index is made for
    return [_order(row) for row in await connection.execute(query.order_by(chain_order.c.created_at, chain_order.c.id))]


async def of_window(connection: Connection, window_no: int) -> list[Order]:
    """All orders of a window, oldest first."""
    query = select(chain_order).where(chain_order.c.window_no == window_no).order_by(chain_order.c.id)
    return [_order(row) for row in await connection.execute(query)]


async def made_by(connection: Connection, chain: str, account: str, step: str) -> str | None:
    """The order that has brought a step about, signed by an account."""
    query = select(chain_order.c.id).where(
        chain_order.c.chain == chain,
        chain_order.c.step == step,
        chain_order.c.state == "settled",
        chain_order.c.slot_account == account,
    )
    return (await connection.execute(query.order_by(chain_order.c.id).limit(1))).scalar_one_or_none()


async def claim(connection: Connection, order: Order) -> bool:
    """Lock the order for this transaction. False when somebody else holds it or has moved it since it was read."""
    query = (
        select(chain_order.c.id)
        .where(
            chain_order.c.id == order.id,
            chain_order.c.state == order.state,
            chain_order.c.attempts == order.attempts,
        )
        .with_for_update(skip_locked=True)
    )
    return (await connection.execute(query)).first() is not None


async def move(
    connection: Connection, order: Order, state: OrderState, *, now: datetime, detail: str = "", **columns: Any
) -> None:
    """Take a claimed order one legal step on, with its event. Raises Broken ``illegal_step``."""
    states.step_order(order.state, state)
    columns = {"state": state, "detail": detail or None, **columns}
    await connection.execute(update(chain_order).where(chain_order.c.id == order.id).values(**columns))
    n = columns.get("attempts", order.attempts)
    name = "expired" if state == "planned" else state
    await connection.execute(insert(attempt_event).values(order_id=order.id, n=n, state=name, detail=detail, at=now))


async def note(connection: Connection, order: Order, detail: str) -> None:
    """Say beside a claimed order what it is waiting for; no step."""
    await connection.execute(update(chain_order).where(chain_order.c.id == order.id).values(detail=detail))


async def add_attempt(connection: Connection, order: Order, tx: Transaction, now: datetime) -> None:
    """Record a signed transaction as the next attempt and take the order to signed."""
    await connection.execute(
        insert(attempt).values(
            order_id=order.id,
            n=order.attempts + 1,
            tx_id=tx.id,
            aliases=list(tx.aliases),
            blob=tx.blob,
            slot_account=tx.slot.account,
            slot_kind=tx.slot.kind,
            slot_number=tx.slot.number,
            first=tx.first,
            last=tx.last,
            fee=tx.fee,
            signed_at=now,
        )
    )
    slot = {"slot_account": tx.slot.account, "slot_kind": tx.slot.kind, "slot_number": tx.slot.number}
    await move(connection, order, "signed", now=now, detail=tx.id, attempts=order.attempts + 1, **slot)


async def adopt(connection: Connection, order: Order, tx: Transaction, now: datetime) -> None:
    """Record a transaction that the chain has and the books lost, as the next attempt of a claimed order."""
    if order.state == "planned":
        await add_attempt(connection, order, tx, now)
        return
    values = {
        "order_id": order.id,
        "n": order.attempts + 1,
        "tx_id": tx.id,
        "aliases": list(tx.aliases),
        "blob": tx.blob,
        "slot_account": tx.slot.account,
        "slot_kind": tx.slot.kind,
        "slot_number": tx.slot.number,
        "first": tx.first,
        "last": tx.last,
        "fee": tx.fee,
        "signed_at": now,
    }
    await connection.execute(insert(attempt).values(values))
    query = update(chain_order).where(chain_order.c.id == order.id).values(attempts=order.attempts + 1)
    await connection.execute(query)


async def transaction_ids(connection: Connection, chain: str) -> set[str]:
    """Every transaction id on record for a chain, aliases included."""
    query = (
        select(attempt.c.tx_id, attempt.c.aliases)
        .join(chain_order, chain_order.c.id == attempt.c.order_id)
        .where(chain_order.c.chain == chain)
    )
    rows = await connection.execute(query)
    return {name for row in rows for name in (row.tx_id, *row.aliases)}


async def attempts(connection: Connection, order_ids: Sequence[str]) -> dict[str, list[Transaction]]:
    """Every attempt ever signed for these orders, oldest first. None is forgotten (rule 5)."""
    query = select(attempt).where(attempt.c.order_id.in_(order_ids)).order_by(attempt.c.order_id, attempt.c.n)
    found: dict[str, list[Transaction]] = {order_id: [] for order_id in order_ids}
    for row in await connection.execute(query):
        slot = Slot(row.slot_account, row.slot_number, row.slot_kind)
        tx = Transaction(row.tx_id, tuple(row.aliases), row.blob, slot, row.first, row.last, row.fee)
        found[row.order_id].append(tx)
    return found


async def events(connection: Connection, order_id: str) -> list[Event]:
    """The order's steps in the order in which they were taken."""
    query = select(attempt_event).where(attempt_event.c.order_id == order_id).order_by(attempt_event.c.no)
    return [Event(row.n, row.state, row.detail, row.at) for row in await connection.execute(query)]


async def last_event(connection: Connection) -> int:
    """The number of the newest event of all: as long as it stays, no order has moved."""
    return int((await connection.execute(select(func.coalesce(func.max(attempt_event.c.no), 0)))).scalar_one())


async def newest_ledger(connection: Connection, chain: str) -> int:
    """The newest ledger that an order can have ended in: the one it was seen in, else its attempt's last."""
    query = (
        select(func.coalesce(func.max(func.coalesce(chain_order.c.ledger, attempt.c.last)), 0))
        .join(attempt, attempt.c.tx_id == chain_order.c.tx_id)
        .where(chain_order.c.chain == chain)
    )
    return int((await connection.execute(query)).scalar_one())


async def slot_taken(connection: Connection, order: Order, slot: Slot) -> bool:
    """Whether another order holds the slot or has used it."""
    query = select(chain_order.c.id).where(
        chain_order.c.chain == order.chain,
        chain_order.c.slot_account == slot.account,
        chain_order.c.slot_kind == slot.kind,
        chain_order.c.slot_number == slot.number,
        chain_order.c.id != order.id,
    )
    return (await connection.execute(query.limit(1))).first() is not None


async def enter(connection: Connection, order: Order) -> None:
    """Join those who take a slot of the order's chain now, until this transaction ends; what must be alone waits for
    all others and keeps them out. Only behind it does `must_wait` know of everybody: slots may be different accounts'.
    """
    lock = "pg_advisory_xact_lock_shared" if order.step in (None, NO_OP) else "pg_advisory_xact_lock"
    await connection.execute(text(f"SELECT {lock}({_SIGNING}, hashtext(:chain))"), {"chain": order.chain})


async def must_wait(connection: Connection, order: Order) -> bool:
    """Whether an order may not take a slot now. One that sets the account up may take many, or change whose signatures
    count: it waits until nobody holds one, and everything else waits for it. One that does nothing is no such order."""
    if order.step == NO_OP:
        return False
    others = chain_order.alias()
    query = select(others.c.id).where(
        others.c.chain == order.chain,
        others.c.id != order.id,
        others.c.state.not_in(("settled", "failed")),
        others.c.step != NO_OP if order.step is None else others.c.slot_account.is_not(None),
    )
    return (await connection.execute(query.limit(1))).first() is not None


async def failures(connection: Connection, order: Order) -> int:
    """How many orders of this one's window, chain and kind have failed."""
    query = select(func.count()).where(
        chain_order.c.window_no == order.window_no,
        chain_order.c.chain == order.chain,
        chain_order.c.kind == order.kind,
        chain_order.c.state == "failed",
    )
    return int((await connection.execute(query)).scalar_one())


# --- accounts that sign -----------------------------------------------------------------------------------------------

_RETURNED = text(
    """
    SELECT DISTINCT a.slot_account, a.slot_kind, a.slot_number
    FROM chain_order o JOIN attempt a ON a.order_id = o.id
    WHERE o.chain = :chain AND o.state = 'failed' AND o.slot_account IS NULL AND o.attempts > 0
      AND NOT EXISTS (SELECT 1 FROM chain_order h WHERE h.chain = o.chain AND h.slot_account = a.slot_account
                      AND h.slot_kind = a.slot_kind AND h.slot_number = a.slot_number)
    """
)


async def busy_slots(connection: Connection, chain: str) -> BusySlots:
    """What `prepare` must not choose."""
    accounts = await signing_accounts(connection, chain)
    marks = {found.account: found.next_number for found in accounts}
    frozen = frozenset(found.account for found in accounts if found.frozen is not None)
    returned = await connection.execute(_RETURNED, {"chain": chain})
    held = await connection.execute(
        select(chain_order.c.slot_account, chain_order.c.slot_kind, chain_order.c.slot_number).where(
            chain_order.c.chain == chain,
            chain_order.c.slot_account.is_not(None),
            chain_order.c.state.not_in(("settled", "failed")),
        )
    )
    return BusySlots(marks, frozen, frozenset(_slot(row) for row in returned), frozenset(_slot(row) for row in held))


async def is_held_up(connection: Connection, chain: str) -> bool:
    """Whether orders have numbers behind one that was given back, and no order is there to take it."""
    waiting = select(chain_order.c.id).where(
        chain_order.c.chain == chain,
        chain_order.c.state == "planned",
        chain_order.c.slot_account.is_(None),
    )
    if (await connection.execute(waiting.limit(1))).first() is not None:
        return False
    busy = await busy_slots(connection, chain)
    free = [slot for slot in busy.returned if slot.kind == "sequence" and slot not in busy]
    return any(
        each.account == slot.account and each.kind == "sequence" and each.number > slot.number
        for slot in free
        for each in busy.held
    )


async def lock_account(connection: Connection, chain: str, slot: Slot) -> SigningAccount:
    """The account that owns the slot, locked. One that has never signed starts with that slot as its next."""
    fresh = upsert(signing_account).values(chain=chain, account=slot.account, next_number=slot.number)
    await connection.execute(fresh.on_conflict_do_nothing())
    query = select(signing_account).where(signing_account.c.chain == chain, signing_account.c.account == slot.account)
    row = (await connection.execute(query.with_for_update())).one()
    return SigningAccount(row.account, row.next_number, row.frozen)


async def signing_accounts(connection: Connection, chain: str) -> list[SigningAccount]:
    """The chain's accounts that have ever signed."""
    query = select(signing_account).where(signing_account.c.chain == chain).order_by(signing_account.c.account)
    return [SigningAccount(row.account, row.next_number, row.frozen) for row in await connection.execute(query)]


async def set_mark(connection: Connection, chain: str, account: str, next_number: int) -> None:
    """Record which slot the chain must offer next."""
    await connection.execute(_account(chain, account).values(next_number=next_number))


async def raise_mark(connection: Connection, chain: str, account: str, next_number: int) -> None:
    """Record that the chain offers an account no slot before this one; a mark never goes back."""
    higher = func.greatest(signing_account.c.next_number, next_number)
    await connection.execute(_account(chain, account).values(next_number=higher))


async def freeze(connection: Connection, chain: str, account: str, why: str) -> None:
    """Nothing is signed for the account from now on."""
    await connection.execute(_account(chain, account).values(frozen=why))


async def release(connection: Connection, chain: str, account: str, next_number: int) -> bool:
    """Let a frozen account sign again, the chain's next slot being `next_number`. The mark never goes back."""
    values = {"frozen": None, "next_number": func.greatest(signing_account.c.next_number, next_number)}
    frozen = _account(chain, account).where(signing_account.c.frozen.is_not(None))
    return (await connection.execute(frozen.values(values))).rowcount == 1


def _account(chain: str, account: str) -> Any:
    return update(signing_account).where(signing_account.c.chain == chain, signing_account.c.account == account)


def _slot(row: Any) -> Slot:
    return Slot(row.slot_account, row.slot_number, row.slot_kind)


def _order(row: Row[Any]) -> Order:
    return Order(
        row.id,
        row.kind,
        row.chain,
        row.window_no,
        row.digest,
        row.state,
        None if row.slot_account is None else _slot(row),
        row.attempts,
        row.detail,
        row.tx_id,
        row.ledger,
        row.ended_at,
        row.fee,
        row.created_at,
        row.step,
    )
