"""Closed rails, fallback addresses, and the choices of rails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, true
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.selectable import LateralFromClause

from settlement.core.rails import Choice, Condition
from settlement.storage import chain_orders, funding
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection
from settlement.storage.parties import PayoutAddress
from settlement.storage.tables import (
    account,
    chain_order,
    closed_rail,
    fallback_address,
    party,
    payout,
    position,
    rail_choice,
    window,
)


@dataclass(frozen=True, slots=True)
class MadeChoice:
    """Which rail a provider's payout of a window took, and why."""

    party: str
    chain: str
    asset: str
    reason: str
    at: datetime


async def close(connection: Connection, chain: str, reason: str, now: datetime) -> bool:
    """Nothing is signed or handed over on the chain any more. False if it was closed before."""
    fresh = upsert(closed_rail).values(chain=chain, reason=reason, closed_at=now)
    added = await connection.execute(fresh.on_conflict_do_nothing().returning(closed_rail.c.chain))
    return added.first() is not None


async def open_again(connection: Connection, chain: str) -> bool:
    """False if it was not closed."""
    return (await connection.execute(delete(closed_rail).where(closed_rail.c.chain == chain))).rowcount == 1


async def closed(connection: Connection, chain: str) -> str | None:
    """Why the chain is closed; None while it is open."""
    query = select(closed_rail.c.reason).where(closed_rail.c.chain == chain)
    return (await connection.execute(query)).scalar_one_or_none()


async def condition(connection: Connection, chain: str) -> Condition:
    """What is on record of a chain."""
    state = await funding.state(connection, chain)
    accounts = await chain_orders.signing_accounts(connection, chain)
    going = payout.c.state.in_(("planned", "ordered"))
    oldest = select(func.min(payout.c.created_at)).where(payout.c.chain == chain, going)
    return Condition(
        await closed(connection, chain),
        None if state is None else state.tip_at,
        tuple(each.account for each in accounts if each.frozen is not None),
        (await connection.execute(oldest)).scalar_one(),
    )


async def free(connection: Connection, chain: str, asset: str) -> int:
    """Units of an asset in the treasury that no open payout and no decided position counts on."""
    name = system_account("treasury", chain, asset)
    held = (await connection.execute(select(account.c.settled).where(account.c.id == name))).scalar_one_or_none()
    going = select(func.coalesce(func.sum(payout.c.amount), 0)).where(
        payout.c.chain == chain, payout.c.asset == asset, payout.c.state.in_(("planned", "ordered"))
    )
    decided = (
        select(func.coalesce(func.sum(position.c.amount), 0))
        .join(window, window.c.no == position.c.window_no)
        .where(position.c.chain == chain, position.c.asset == asset, window.c.state.in_(("netted", "checkpointed")))
    )
    taken = int((await connection.execute(going)).scalar_one()) + int((await connection.execute(decided)).scalar_one())
    return -(held or 0) - taken


async def add_fallback(
    connection: Connection, party_no: int, address: PayoutAddress, signed_body: bytes, signature: str, now: datetime
) -> None:
    """A provider's request, with the bytes that it signed. It calls off every earlier one whose time hasn't come."""
    await connection.execute(
        insert(fallback_address).values(
            party_no=party_no,
            chain=address.chain,
            asset=address.asset,
            address=address.address,
            reference=address.reference,
            requested_at=now,
            valid_from=address.valid_from,
            signed_body=signed_body,
            signature=signature,
        )
    )


def fallback_in_force(party_no: ColumnElement[int], at: Any) -> LateralFromClause:
    """The fallback address in force at a time: the newest whose time has come and that no later request called off."""
    later = fallback_address.alias("later")
    called_off = select(later.c.no).where(
        later.c.party_no == fallback_address.c.party_no,
        later.c.no > fallback_address.c.no,
        later.c.requested_at < fallback_address.c.valid_from,
    )
    query = select(fallback_address).where(
        fallback_address.c.party_no == party_no, fallback_address.c.valid_from <= at, ~called_off.exists()
    )
    return query.order_by(fallback_address.c.no.desc()).limit(1).lateral("fallback")


async def fallbacks(connection: Connection, at: datetime) -> dict[str, PayoutAddress]:
    """Every provider's fallback address in force at a time, by provider."""
    found = fallback_in_force(party.c.no, at)
    query = select(party.c.id, found).select_from(party).join(found, true())
    return {
        row.id: PayoutAddress(row.chain, row.asset, row.address, row.reference, row.valid_from)
        for row in await connection.execute(query)
    }


async def newest_fallback(connection: Connection, party_no: int) -> PayoutAddress | None:
    """The fallback address that was asked for last, in force or not."""
    query = select(fallback_address).where(fallback_address.c.party_no == party_no)
    row = (await connection.execute(query.order_by(fallback_address.c.no.desc()).limit(1))).first()
    if row is None:
        return None
    return PayoutAddress(row.chain, row.asset, row.address, row.reference, row.valid_from)


async def record(connection: Connection, window_no: int, party_id: str, choice: Choice, now: datetime) -> None:
    """The one choice of a window for a provider. The primary key lets no second one beside it."""
    no = select(party.c.no).where(party.c.id == party_id).scalar_subquery()
    values = {"chain": choice.rail.chain, "asset": choice.rail.asset, "reason": choice.reason, "at": now}
    await connection.execute(insert(rail_choice).values(window_no=window_no, party_no=no, **values))


async def choices(connection: Connection, window_no: int) -> list[MadeChoice]:
    """The choices of a window, by party id."""
    query = select(party.c.id, rail_choice).join(party, party.c.no == rail_choice.c.party_no)
    rows = await connection.execute(query.where(rail_choice.c.window_no == window_no).order_by(party.c.id))
    return [MadeChoice(row.id, row.chain, row.asset, row.reason, row.at) for row in rows]


async def waiting_orders(connection: Connection, chain: str) -> int:
    """Payout orders of a chain of which bytes may be out, or about which a person has to decide."""
    query = select(func.count()).where(
        chain_order.c.chain == chain,
        chain_order.c.kind == "payout",
        chain_order.c.state.in_(("signed", "submitted", "unknown", "contested")),
    )
    return int((await connection.execute(query)).scalar_one())
