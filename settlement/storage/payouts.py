"""Payouts: money on its way out and how far it has come.

Three kinds share one machine: what a window's position says that a provider earned, what a consumer withdraws, and what
goes back to the sender of a deposit that is in suspense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, case, func, insert, select, update

from settlement.core import states
from settlement.core.states import PayoutKind, PayoutState
from settlement.storage import rails
from settlement.storage.database import Connection
from settlement.storage.tables import party, payout, payout_address, position, rail_choice


@dataclass(frozen=True, slots=True)
class Due:
    """What a window's position says that a provider is to be sent: `micro` microCU as `amount` units of the asset.

    `address` is the one in force at the asked time, None when there is none for that chain and asset.
    """

    party_no: int
    party_id: str
    chain: str
    asset: str
    amount: int
    micro: int
    address: str | None
    reference: int | None


@dataclass(frozen=True, slots=True)
class Payout:
    """Money on its way out; `transfer` is its place in the order that carries it.

    A refund has no party and no `micro`, but the id of its deposit. A withdrawal has its `fee` in microCU, its
    conversion as text, and the digest of the `request` that asked for it; with `own_rate` it is at what its CU had
    cost. `fixing` is the number of the fixing that the conversion follows, if it follows one.
    """

    id: str
    window_no: int
    party_no: int | None
    party_id: str | None
    chain: str
    asset: str
    amount: int
    micro: int
    address: str
    reference: int | None
    state: PayoutState
    order_id: str | None
    transfer: int | None
    detail: str | None
    created_at: datetime
    kind: PayoutKind = "earnings"
    fee: int = 0
    micro_per_unit: str | None = None
    deposit_id: str | None = None
    request: bytes | None = None
    fixing: int | None = None
    own_rate: bool = False


async def due(connection: Connection, window_no: int, at: datetime) -> list[Due]:
    """The positions of a window that end in a payout, by party id, with the addresses in force at a time."""
    in_force = (
        select(payout_address)
        .where(
            payout_address.c.party_no == party.c.no,
            payout_address.c.valid_from <= at,
            payout_address.c.superseded.is_(False),
        )
        .order_by(payout_address.c.no.desc())  # as in parties.payout_address_at
        .limit(1)
        .lateral("in_force")
    )
    same = (in_force.c.chain == position.c.chain) & (in_force.c.asset == position.c.asset)
    chosen = (rail_choice.c.window_no == window_no) & (rail_choice.c.party_no == party.c.no)
    second = rails.fallback_in_force(party.c.no, rail_choice.c.at)
    other = (second.c.chain == position.c.chain) & (second.c.asset == position.c.asset)
    first = in_force.c.address.is_not(None)
    query = (
        select(
            position,
            party.c.no.label("party_no"),
            case((first, in_force.c.address), else_=second.c.address).label("address"),
            case((first, in_force.c.reference), else_=second.c.reference).label("reference"),
        )
        .join(party, party.c.id == position.c.party)
        .outerjoin(in_force, same)
        .outerjoin(rail_choice, chosen)
        .outerjoin(second, other)
        .where(position.c.window_no == window_no, position.c.payout > 0)
        .order_by(position.c.party)
    )
    return [
        Due(row.party_no, row.party, row.chain, row.asset, row.amount, row.payout, row.address, row.reference)
        for row in await connection.execute(query)
    ]


async def add(connection: Connection, planned: Sequence[Payout]) -> None:
    """New payouts. Unique keys let a window be planned, a request be carried out and a deposit be refunded once."""
    rows = [
        {
            "id": found.id,
            "window_no": found.window_no,
            "party_no": found.party_no,
            "chain": found.chain,
            "asset": found.asset,
            "amount": found.amount,
            "micro": found.micro,
            "address": found.address,
            "reference": found.reference,
            "state": found.state,
            "created_at": found.created_at,
            "kind": found.kind,
            "fee": found.fee,
            "micro_per_unit": found.micro_per_unit,
            "deposit_id": found.deposit_id,
            "request": found.request,
            "fixing": found.fixing,
            "own_rate": found.own_rate,
        }
        for found in planned
    ]
    if rows:
        await connection.execute(insert(payout), rows)


async def of_window(connection: Connection, window_no: int) -> list[Payout]:
    """All payouts of a window, oldest first."""
    return await _listed(connection, _SELECT.where(payout.c.window_no == window_no).order_by(payout.c.id))


async def of_request(connection: Connection, request: bytes) -> Payout | None:
    """The withdrawal that a request made."""
    found = await _listed(connection, _SELECT.where(payout.c.request == request))
    return found[0] if found else None


async def of_deposit(connection: Connection, deposit_id: str) -> Payout | None:
    """The refund of a deposit that has not failed."""
    found = await _listed(connection, _SELECT.where(payout.c.deposit_id == deposit_id, payout.c.state != "failed"))
    return found[0] if found else None


async def failed_refunds(connection: Connection, deposit_id: str) -> int:
    """How many refunds of a deposit have failed."""
    failed = (payout.c.deposit_id == deposit_id) & (payout.c.state == "failed")
    return int((await connection.execute(select(func.count()).where(failed))).scalar_one())


async def open_payouts(connection: Connection, chain: str) -> list[Payout]:
    """Payouts of a chain that have neither settled nor failed."""
    query = _SELECT.where(payout.c.chain == chain, payout.c.state.in_(("planned", "ordered")))
    return await _listed(connection, query.order_by(payout.c.id))


async def locked(connection: Connection, ids: Sequence[str]) -> list[Payout]:
    """These payouts, locked in the order of their ids."""
    return await _listed(
        connection, _SELECT.where(payout.c.id.in_(ids)).order_by(payout.c.id).with_for_update(of=payout)
    )


async def withdrawn(connection: Connection, since: datetime, party_no: int | None = None) -> int:
    """What left or is leaving by withdrawals since a time, fees included, in microCU: of one party, or of all."""
    query = select(func.coalesce(func.sum(payout.c.micro + payout.c.fee), 0)).where(
        payout.c.kind == "withdrawal", payout.c.created_at > since, payout.c.state != "failed"
    )
    if party_no is not None:
        query = query.where(payout.c.party_no == party_no)
    return int((await connection.execute(query)).scalar_one())


async def at_own_rate(connection: Connection, party_no: int, since: datetime) -> int:
    """What a party took out at own rates from a time on, in microCU, without fees."""
    query = select(func.coalesce(func.sum(payout.c.micro), 0)).where(
        payout.c.party_no == party_no, payout.c.own_rate, payout.c.created_at >= since, payout.c.state != "failed"
    )
    return int((await connection.execute(query)).scalar_one())


async def of_order(connection: Connection, order_id: str, *, lock: bool = False) -> list[Payout]:
    """The payouts that an order carries, in the order of its transfers."""
    query = _SELECT.where(payout.c.order_id == order_id).order_by(payout.c.transfer)
    return await _listed(connection, query.with_for_update(of=payout) if lock else query)


async def next_batch(connection: Connection, chain: str, limit: int) -> list[Payout]:
    """Up to `limit` payouts of one window, the oldest that has planned ones, locked; skips what others hold."""
    waiting = (payout.c.chain == chain) & (payout.c.state == "planned")
    oldest = select(func.min(payout.c.window_no)).where(waiting).scalar_subquery()
    query = _SELECT.where(waiting, payout.c.window_no == oldest).order_by(payout.c.created_at, payout.c.id).limit(limit)
    return await _listed(connection, query.with_for_update(of=payout, skip_locked=True))


async def waiting(connection: Connection, chain: str) -> int:
    """How many payouts have no order yet."""
    query = select(func.count()).where(payout.c.chain == chain, payout.c.state == "planned")
    return int((await connection.execute(query)).scalar_one())


async def settled_in(connection: Connection, chain: str, asset: str) -> int:
    """How many payouts of an asset have settled."""
    settled = (payout.c.chain == chain) & (payout.c.asset == asset) & (payout.c.state == "settled")
    return int((await connection.execute(select(func.count()).where(settled))).scalar_one())


async def assign(connection: Connection, batch: Sequence[Payout], order_id: str) -> None:
    """Make locked payouts the transfers of an order, in this order."""
    for index, found in enumerate(batch):
        await _set(connection, found, "ordered", order_id=order_id, transfer=index)


async def give_back(connection: Connection, found: Payout, detail: str) -> None:
    """The order of a locked payout failed without its fault; it waits for the next one."""
    await _set(connection, found, "planned", order_id=None, transfer=None, detail=detail)


async def end(connection: Connection, found: Payout, state: PayoutState, detail: str | None = None) -> None:
    """A locked payout is settled or failed, for good."""
    await _set(connection, found, state, detail=detail)


async def _set(connection: Connection, found: Payout, state: PayoutState, **columns: Any) -> None:
    states.step_payout(found.state, state)
    await connection.execute(update(payout).where(payout.c.id == found.id).values(state=state, **columns))


_SELECT = select(payout, party.c.id.label("party_id")).outerjoin(party, party.c.no == payout.c.party_no)


async def _listed(connection: Connection, query: Any) -> list[Payout]:
    return [_payout(row) for row in await connection.execute(query)]


def _payout(row: Row[Any]) -> Payout:
    return Payout(
        row.id,
        row.window_no,
        row.party_no,
        row.party_id,
        row.chain,
        row.asset,
        row.amount,
        row.micro,
        row.address,
        row.reference,
        row.state,
        row.order_id,
        row.transfer,
        row.detail,
        row.created_at,
        row.kind,
        row.fee,
        row.micro_per_unit,
        row.deposit_id,
        row.request,
        row.fixing,
        row.own_rate,
    )
