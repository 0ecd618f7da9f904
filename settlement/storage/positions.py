"""Positions of a window, and what is known of those whom it may pay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Row, func, select, text

from settlement.core.checkpoints import PayoutTotal, position_leaf
from settlement.storage.database import Connection, raw_cursor
from settlement.storage.tables import position

PAYEES = text("""
SELECT p.id, a.settled - a.held - coalesce(later.earned, 0) - coalesce(decided.payout, 0) - coalesce(kept.tranche, 0)
           - coalesce(owed.amount, 0) AS due,
       d.chain, d.asset
FROM party p
JOIN account a ON a.party_no = p.no
JOIN LATERAL (
    SELECT chain, asset FROM payout_address
    WHERE party_no = p.no AND valid_from <= :closed_at AND NOT superseded ORDER BY no DESC LIMIT 1
) d ON true
LEFT JOIN (
    SELECT provider_no, sum(posted) AS earned FROM obligation WHERE window_no > :window GROUP BY provider_no
) later ON later.provider_no = p.no
LEFT JOIN (
    SELECT s.party, sum(s.payout) AS payout FROM position s JOIN "window" w ON w.no = s.window_no
    WHERE w.state IN ('netted', 'checkpointed') AND w.no < :window GROUP BY s.party
) decided ON decided.party = p.id
LEFT JOIN (
    SELECT h.party, sum(h.tranche) AS tranche
    FROM (
        SELECT s.window_no, s.party, s.tranche FROM position s
        WHERE s.tranche > 0 AND s.held_until > :closed_at AND s.window_no < :window
        UNION
        SELECT s.window_no, s.party, s.tranche
        FROM dispute q
        JOIN party r ON r.no = q.provider_no
        JOIN position s ON s.window_no = q.window_no AND s.party = r.id
        WHERE q.state IN ('open', 'answered') AND s.tranche > 0 AND s.window_no < :window
    ) h
    GROUP BY h.party
) kept ON kept.party = p.id
LEFT JOIN (
    SELECT provider_no, sum(award + penalty - paid - penalty_paid) AS amount FROM dispute GROUP BY provider_no
) owed ON owed.provider_no = p.no
WHERE p.kind = 'provider' AND p.status <> 'pending' AND a.settled > 0
""")
"""`payees`; of earlier windows it reads what is held back now and what is disputed, each by an index."""


@dataclass(frozen=True, slots=True)
class Payee:
    """A provider with a payout address. `due` is what it had at the close, in microCU, not yet decided over.

    Neither what is held back of earlier windows nor what it owes of disputes is due.
    """

    party: str
    due: int
    chain: str
    asset: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A party's position in microCU, with what leaves by a payout and, in `amount`, that in the asset's units.

    `tranche` of the earnings is held back until `held_until` at least.
    """

    window_no: int
    party: str
    spent: int
    earned: int
    net: int
    netted: int
    payout: int
    chain: str | None
    asset: str | None
    amount: int
    salt: bytes
    tranche: int = 0
    held_until: datetime | None = None

    def leaf(self) -> bytes:
        """The bytes of its leaf in the window's tree of positions."""
        return position_leaf(
            party=self.party,
            window=self.window_no,
            spent=self.spent,
            earned=self.earned,
            net=self.net,
            payout=self.payout,
            salt=self.salt,
        )


async def payees(connection: Connection, window_no: int, closed_at: datetime) -> list[Payee]:
    """Whom the window may pay, by the address in force at its close.

    What was earned in later windows, and what earlier windows decided to pay but have not set aside yet, isn't due now.
    """
    rows = await connection.execute(PAYEES, {"window": window_no, "closed_at": closed_at})
    return [Payee(row.id, int(row.due), row.chain, row.asset) for row in rows]


async def store(connection: Connection, decided: Iterable[Decided]) -> None:
    """Write the positions of a window."""
    columns = Decided.__slots__
    values = attrgetter(*columns)
    statement = f"COPY position ({', '.join(columns)}) FROM STDIN"
    async with raw_cursor(connection) as cursor, cursor.copy(statement) as copy:
        for row in decided:
            await copy.write_row(values(row))


async def of_window(connection: Connection, window_no: int) -> list[Decided]:
    """A window's positions in the order of their leaves: by party id, byte by byte."""
    query = select(position).where(position.c.window_no == window_no).order_by(position.c.party.collate("C"))
    return [_decided(row) for row in await connection.execute(query)]


async def find(connection: Connection, window_no: int, party: str) -> Decided | None:
    """A party's position in a window, if it has one."""
    query = select(position).where(position.c.window_no == window_no, position.c.party == party)
    row = (await connection.execute(query)).first()
    return None if row is None else _decided(row)


async def payout_totals(connection: Connection, window_no: int) -> list[PayoutTotal]:
    """What the window pays, for each chain and asset."""
    query = (
        select(position.c.chain, position.c.asset, func.count(), func.sum(position.c.amount))
        .where(position.c.window_no == window_no, position.c.payout > 0)
        .group_by(position.c.chain, position.c.asset)
    )
    found = [
        PayoutTotal(chain, asset, count, int(amount)) for chain, asset, count, amount in await connection.execute(query)
    ]
    return sorted(found, key=lambda total: (total.chain, total.asset))


def _decided(row: Row[Any]) -> Decided:
    return Decided(**{name: getattr(row, name) for name in Decided.__slots__})
