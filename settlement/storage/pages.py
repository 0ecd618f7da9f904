"""What the API shows: published documents by number, a party's own rows page by page, and counts for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, literal, select, text, tuple_

from settlement.core.errors import NotFound
from settlement.storage.database import Connection
from settlement.storage.tables import (
    account,
    chain_order,
    chain_state,
    checkpoint,
    halt,
    journal_head,
    obligation,
    party,
    payout,
    position,
    rate_table,
    window,
)
from settlement.storage.tables.base import WHEN


@dataclass(frozen=True, slots=True)
class Published:
    """A stored document: its exact canonical bytes, their SHA-256, and who signed them."""

    digest: bytes
    document: bytes
    signatures: Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Anchor:
    """One chain's commitment to a window's checkpoint, as far as it has come."""

    chain: str
    state: str
    transaction: str | None
    ledger: int | None


@dataclass(frozen=True, slots=True)
class PayoutRow:
    """Money sent or to be sent to a party: `amount` in the asset's smallest unit, worth `micro` microCU."""

    id: str
    window_no: int
    chain: str
    asset: str
    amount: int
    micro: int
    address: str
    reference: int | None
    state: str
    transaction: str | None
    ledger: int | None
    created_at: datetime
    fee: int = 0


@dataclass(frozen=True, slots=True)
class PositionRow:
    """A party's result in a window, in microCU."""

    window_no: int
    spent: int
    earned: int
    net: int
    netted: int
    payout: int


async def rate_table_version(connection: Connection, version: int) -> Published:
    """Raises NotFound ``unknown_rate_table``."""
    row = (await connection.execute(select(rate_table).where(rate_table.c.version == version))).first()
    if row is None:
        raise NotFound("unknown_rate_table", f"there is no rate table of version {version}")
    return Published(row.digest, row.document, row.signatures)


async def checkpoint_of(connection: Connection, number: int) -> Published:
    """Raises NotFound ``unknown_checkpoint``."""
    row = (await connection.execute(select(checkpoint).where(checkpoint.c.window_no == number))).first()
    if row is None:
        raise NotFound("unknown_checkpoint", f"window win_{number} has no checkpoint yet")
    return Published(row.digest, row.document, row.signatures)


async def checkpoint_digests(connection: Connection, numbers: Sequence[int]) -> dict[int, bytes]:
    """The checkpoint digests of those of these windows that have one."""
    query = select(checkpoint.c.window_no, checkpoint.c.digest).where(checkpoint.c.window_no.in_(numbers))
    return {row.window_no: row.digest for row in await connection.execute(query)}


async def anchors_of(connection: Connection, window_no: int) -> list[Anchor]:
    """Every order to anchor a window, oldest first."""
    query = select(chain_order).where(chain_order.c.window_no == window_no, chain_order.c.kind == "anchor")
    rows = await connection.execute(query.order_by(chain_order.c.id))
    return [Anchor(row.chain, row.state, row.tx_id, row.ledger) for row in rows]


async def payouts_of(connection: Connection, party_no: int, *, before: str | None, limit: int) -> list[PayoutRow]:
    """A party's payouts from the newest down, those that come behind the one with the id `before`."""
    query = (
        select(payout, payout.c.fee.label("payout_fee"), chain_order.c.tx_id, chain_order.c.ledger)
        .select_from(payout)
        .outerjoin(chain_order, chain_order.c.id == payout.c.order_id)
        .where(payout.c.party_no == party_no)
        .order_by(payout.c.created_at.desc(), payout.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        last = select(payout.c.created_at, payout.c.id).where(payout.c.id == before, payout.c.party_no == party_no)
        query = query.where(tuple_(payout.c.created_at, payout.c.id) < last.scalar_subquery())
    return [
        PayoutRow(
            row.id,
            row.window_no,
            row.chain,
            row.asset,
            row.amount,
            row.micro,
            row.address,
            row.reference,
            row.state,
            row.tx_id,
            row.ledger,
            row.created_at,
            row.payout_fee,
        )
        for row in await connection.execute(query)
    ]


async def positions_of(connection: Connection, party_id: str, *, before: int | None, limit: int) -> list[PositionRow]:
    """A party's positions from the newest window down, those of windows below number `before`."""
    query = select(position).where(position.c.party == party_id).order_by(position.c.window_no.desc()).limit(limit)
    if before is not None:
        query = query.where(position.c.window_no < before)
    return [
        PositionRow(row.window_no, row.spent, row.earned, row.net, row.netted, row.payout)
        for row in await connection.execute(query)
    ]


async def earned_in_open_window(connection: Connection, party_no: int) -> int:
    """microCU that a provider has earned in the window that is open."""
    query = (
        select(func.coalesce(func.sum(obligation.c.posted), 0))
        .join(window, window.c.no == obligation.c.window_no)
        .where(window.c.state == "open", obligation.c.provider_no == party_no)
    )
    return int((await connection.execute(query)).scalar_one())


async def counts(connection: Connection, now: datetime) -> dict[str, list[tuple[str, int]]]:
    """Figures by metric name and label: few, cheap, and without any participant's name in them."""
    parties = select(party.c.kind + text("'/'") + party.c.status, func.count()).group_by(party.c.kind, party.c.status)
    windows = select(window.c.state, func.count()).group_by(window.c.state)
    parts = chain_order.c.chain, chain_order.c.kind, chain_order.c.state
    orders = select(func.concat_ws("/", *parts), func.count()).group_by(*parts)
    payouts = select(payout.c.state, func.count()).group_by(payout.c.state)
    owed = select(account.c.kind, func.sum(account.c.settled)).where(account.c.kind.in_(("consumer", "provider")))
    found = {
        "participants": parties,
        "windows": windows,
        "chain_orders": orders,
        "chain_attempts": select(chain_order.c.chain, func.sum(chain_order.c.attempts)).group_by(chain_order.c.chain),
        "payouts": payouts,
        "liabilities_microcu": owed.group_by(account.c.kind),
        "journal_entries": select(text("''"), journal_head.c.seq),
        "chain_ledger": select(chain_state.c.chain, chain_state.c.tip),
        "chain_tip_age_seconds": select(
            chain_state.c.chain, func.extract("epoch", literal(now, WHEN) - chain_state.c.tip_at)
        ),
        "halts": select(text("''"), func.count()).select_from(halt).where(halt.c.cleared_at.is_(None)),
    }
    return {
        name: sorted((str(label), int(value)) for label, value in await connection.execute(query))
        for name, query in found.items()
    }
