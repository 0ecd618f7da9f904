"""Disputes, what their providers still owe of them, and what can be taken from a provider's account for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, select, text, update

from settlement.core.disputes import WAITING, Cause, Ground, Share, State
from settlement.core.errors import NotFound
from settlement.storage.database import Connection
from settlement.storage.tables import dispute, obligation, party

_consumer, _provider = party.alias("consumer"), party.alias("provider")

# A window's netting moves a linked provider's earnings to its own consumer account, and what positions decided to pay
# leaves by payouts: neither is there for anybody else.
_SPOKEN_FOR = text("""
SELECT p.no, coalesce(decided.payout, 0) + CASE WHEN p.account_id IS NULL THEN 0 ELSE coalesce(unnetted.earned, 0) END
FROM party p
LEFT JOIN (
    SELECT s.party, sum(s.payout) AS payout FROM position s JOIN "window" w ON w.no = s.window_no
    WHERE w.state IN ('netted', 'checkpointed') GROUP BY s.party
) decided ON decided.party = p.id
LEFT JOIN (
    SELECT o.provider_no, sum(o.posted) AS earned FROM obligation o JOIN "window" w ON w.no = o.window_no
    WHERE w.state IN ('open', 'closed') GROUP BY o.provider_no
) unnetted ON unnetted.provider_no = p.no
WHERE p.no = :provider
""")


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute as it stands. Amounts are whole microCU; `record` is None when it is about all of a pair's window."""

    id: str
    consumer_no: int
    consumer: str
    provider_no: int
    provider: str
    window_no: int
    record: UUID | None
    entry_seq: int | None
    ground: Ground
    charged: int
    claimed: int
    evidence: Sequence[str]
    counts: Mapping[str, int] | None
    flags: Sequence[str]
    opened_at: datetime
    answer_by: datetime
    state: State = "open"
    answered_at: datetime | None = None
    answer: bytes | None = None
    answer_signature: str | None = None
    rule_by: datetime | None = None
    ended_at: datetime | None = None
    cause: Cause | None = None
    award: int = 0
    penalty: int = 0
    paid: int = 0
    penalty_paid: int = 0
    payments: int = 0
    no: int = field(default=0, compare=False)

    @property
    def owed(self) -> Share:
        """What its provider still has to give."""
        return Share(self.award - self.paid, self.penalty - self.penalty_paid)


_SELECT = (
    select(dispute, _consumer.c.id.label("consumer"), _provider.c.id.label("provider"))
    .join(_consumer, _consumer.c.no == dispute.c.consumer_no)
    .join(_provider, _provider.c.no == dispute.c.provider_no)
)
_NAMES = [name for name in Dispute.__slots__ if name not in ("consumer", "provider", "no")]


async def add(connection: Connection, made: Dispute) -> None:
    """A new dispute. Unique indexes let one that was not withdrawn be about a record, or about a pair's window."""
    await connection.execute(insert(dispute).values({name: getattr(made, name) for name in _NAMES}))


async def get(connection: Connection, dispute_id: str, *, lock: bool = False) -> Dispute:
    """A dispute; with `lock`, nobody else moves it until the transaction ends. Raises NotFound ``unknown_dispute``."""
    query = _SELECT.where(dispute.c.id == dispute_id)
    row = (await connection.execute(query.with_for_update(of=dispute) if lock else query)).first()
    if row is None:
        raise NotFound("unknown_dispute", f"there is no dispute {dispute_id}")
    return _dispute(row)


async def standing(
    connection: Connection, provider_no: int, consumer_no: int, window_no: int, record: UUID | None
) -> Dispute | None:
    """The dispute about a record, or about a pair's window, that was not withdrawn."""
    query = _SELECT.where(dispute.c.provider_no == provider_no, dispute.c.state != "withdrawn")
    if record is None:
        query = query.where(dispute.c.consumer_no == consumer_no, dispute.c.window_no == window_no)
    found = await _listed(connection, query.where(dispute.c.record.is_not_distinct_from(record)))
    return found[0] if found else None


async def page(
    connection: Connection, party_no: int | None = None, *, before: int | None = None, limit: int
) -> list[Dispute]:
    """Disputes from the newest down: all, or those of a party on either side."""
    query = _SELECT.order_by(dispute.c.no.desc()).limit(limit)
    if party_no is not None:
        query = query.where((dispute.c.consumer_no == party_no) | (dispute.c.provider_no == party_no))
    if before is not None:
        query = query.where(dispute.c.no < before)
    return await _listed(connection, query)


async def count_waiting(connection: Connection, consumer_no: int) -> int:
    """How many disputes of a consumer have not ended."""
    query = select(func.count()).where(dispute.c.consumer_no == consumer_no, dispute.c.state.in_(WAITING))
    return int((await connection.execute(query)).scalar_one())


async def overdue(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Disputes whose answer or ruling did not come in time, oldest first."""
    query = (
        select(dispute.c.id)
        .where(
            ((dispute.c.state == "open") & (dispute.c.answer_by <= now))
            | ((dispute.c.state == "answered") & (dispute.c.rule_by <= now))
        )
        .order_by(dispute.c.no)
        .limit(limit)
    )
    return list((await connection.execute(query)).scalars())


async def owing(connection: Connection) -> list[int]:
    """The row numbers of providers that owe something of a dispute."""
    query = select(dispute.c.provider_no).where(_OWES).distinct().order_by(dispute.c.provider_no)
    return list((await connection.execute(query)).scalars())


async def owed_by(connection: Connection, provider_no: int) -> list[Dispute]:
    """The disputes of which a provider owes something, in the order in which they are paid, locked."""
    query = _SELECT.where(dispute.c.provider_no == provider_no, _OWES).order_by(dispute.c.ended_at, dispute.c.no)
    return await _listed(connection, query.with_for_update(of=dispute))


async def spoken_for(connection: Connection, provider_no: int) -> int:
    """What of a provider's balance nobody else can have, in microCU. Behind the journal's head it stays true."""
    row = (await connection.execute(_SPOKEN_FOR, {"provider": provider_no})).one()
    return int(row[1])


async def posted(connection: Connection, consumer_no: int, provider_no: int, window_no: int) -> int:
    """What a pair owes for a window, in whole microCU."""
    query = select(obligation.c.posted).where(
        obligation.c.consumer_no == consumer_no,
        obligation.c.provider_no == provider_no,
        obligation.c.window_no == window_no,
    )
    return int((await connection.execute(query)).scalar_one_or_none() or 0)


async def awarded(connection: Connection, consumer_no: int, provider_no: int, window_no: int) -> int:
    """What a pair's disputes have awarded for a window, in microCU."""
    query = select(func.coalesce(func.sum(dispute.c.award), 0)).where(
        dispute.c.consumer_no == consumer_no,
        dispute.c.provider_no == provider_no,
        dispute.c.window_no == window_no,
    )
    return int((await connection.execute(query)).scalar_one())


async def change(connection: Connection, dispute_id: str, **columns: Any) -> None:
    """Write what has changed of a locked dispute."""
    await connection.execute(update(dispute).where(dispute.c.id == dispute_id).values(columns))


_OWES = dispute.c.paid + dispute.c.penalty_paid < dispute.c.award + dispute.c.penalty


async def _listed(connection: Connection, query: Select[Any]) -> list[Dispute]:
    return [_dispute(row) for row in await connection.execute(query)]


def _dispute(row: Row[Any]) -> Dispute:
    return Dispute(**{name: getattr(row, name) for name in Dispute.__slots__})
