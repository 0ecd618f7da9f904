"""The governance log: entries in one gapless, hash-chained order, the documents they name, and what they decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from governance import proposals
from governance.register import Entry, read_entry
from settlement.core import canonical
from settlement.core.governing import EMPTY, LogHead
from settlement.storage.database import Connection
from settlement.storage.governance import PUBLISHING
from settlement.storage.tables import (
    emergency_pause,
    governance_comment,
    governance_document,
    governance_entry,
    governed,
    party,
)


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is chained."""

    no: int
    payload: bytes
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Comment:
    """What a participant said of a proposal; `entry_no` is its place in the log."""

    entry_no: int
    party: str
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class PauseRow:
    """An emergency pause: what it stops until when."""

    version: int
    holds: bool
    payouts: bool
    until: datetime
    reason: str


async def lock(connection: Connection) -> None:
    """Nobody else writes to the log or publishes until the transaction ends. After the gate, before any other lock."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PUBLISHING})


async def head(connection: Connection) -> LogHead:
    """The end of the log as this transaction sees it."""
    query = select(governance_entry.c.no, governance_entry.c.hash).order_by(governance_entry.c.no.desc()).limit(1)
    row = (await connection.execute(query)).first()
    return EMPTY if row is None else LogHead(row.no, row.hash)


async def after(connection: Connection, no: int, *, limit: int | None = None) -> list[StoredEntry]:
    """Entries behind number `no`, in order."""
    query = select(governance_entry).where(governance_entry.c.no > no).order_by(governance_entry.c.no).limit(limit)
    rows = await connection.execute(query)
    return [StoredEntry(row.no, row.payload, row.previous, row.hash) for row in rows]


async def about(connection: Connection, proposal: str) -> list[StoredEntry]:
    """The entries about one proposal, in order."""
    query = select(governance_entry).where(governance_entry.c.proposal == proposal).order_by(governance_entry.c.no)
    rows = await connection.execute(query)
    return [StoredEntry(row.no, row.payload, row.previous, row.hash) for row in rows]


async def append(connection: Connection, previous: LogHead, entry: Entry) -> LogHead:
    """Write the next entry; the caller holds the lock. Its primary key lets one writer win."""
    payload = entry.payload()
    made = previous.extended(payload)
    values = {
        "no": made.size,
        "kind": entry.kind,
        "proposal": entry.facts.get("proposal"),
        "at": entry.at,
        "payload": payload,
        "previous": previous.hash,
        "hash": made.hash,
    }
    await connection.execute(insert(governance_entry).values(values))
    return made


async def keep(connection: Connection, documents: Iterable[bytes]) -> None:
    """Keep documents under their digests."""
    rows = [{"digest": canonical.digest_raw(canonical.digest(each)), "document": each} for each in documents]
    if rows:
        await connection.execute(upsert(governance_document).on_conflict_do_nothing(), rows)


async def documents(connection: Connection, digests: Sequence[str]) -> dict[str, bytes]:
    """The kept documents of these digest texts."""
    raw = [canonical.digest_raw(each) for each in digests]
    rows = await connection.execute(select(governance_document).where(governance_document.c.digest.in_(raw)))
    return {f"sha256:{row.digest.hex()}": row.document for row in rows}


async def enter(
    connection: Connection,
    *,
    kind: str,
    subject: str,
    version: int,
    digest: str,
    effective_from: datetime,
    entry_no: int,
) -> None:
    """Record that a version is enacted. Its primary key lets that happen once."""
    values = {
        "object": kind,
        "subject": subject,
        "version": version,
        "digest": canonical.digest_raw(digest),
        "effective_from": effective_from,
        "entry_no": entry_no,
    }
    await connection.execute(insert(governed).values(values))


async def decided_status(connection: Connection, party_id: str) -> str | None:
    """The status that the council has given a participant; None when it has never decided about it."""
    mine = (governed.c.object == "participant") & (governed.c.subject == party_id)
    query = (
        select(governance_entry.c.proposal)
        .join(governed, governed.c.entry_no == governance_entry.c.no)
        .where(mine)
        .order_by(governed.c.version.desc())
        .limit(1)
    )
    proposal = (await connection.execute(query)).scalar_one_or_none()
    if proposal is None:
        return None
    proposed = read_entry((await about(connection, proposal))[0].payload)
    (body,) = (await documents(connection, [proposed.facts["digest"]])).values()
    return proposals.status(proposals.parse(body).governed.document).status


async def add_comment(connection: Connection, entry_no: int, proposal: str, party_no: int, said: str) -> None:
    """Keep the text of a comment beside its entry."""
    values = {"entry_no": entry_no, "proposal": proposal, "party_no": party_no, "text": said}
    await connection.execute(insert(governance_comment).values(values))


async def comments(connection: Connection, proposal: str, *, after: int = 0, limit: int = 50) -> list[Comment]:
    """Comments on a proposal in order, those behind entry number `after`."""
    query = (
        select(governance_comment.c.entry_no, party.c.id, governance_entry.c.at, governance_comment.c.text)
        .join(party, party.c.no == governance_comment.c.party_no)
        .join(governance_entry, governance_entry.c.no == governance_comment.c.entry_no)
        .where(governance_comment.c.proposal == proposal, governance_comment.c.entry_no > after)
        .order_by(governance_comment.c.entry_no)
        .limit(limit)
    )
    return [Comment(row.entry_no, row.id, row.at, row.text) for row in await connection.execute(query)]


async def comment_count(connection: Connection, proposal: str, party_no: int) -> int:
    """How often a participant has commented on a proposal."""
    mine = (governance_comment.c.proposal == proposal) & (governance_comment.c.party_no == party_no)
    return int(
        (await connection.execute(select(func.count()).select_from(governance_comment).where(mine))).scalar_one()
    )


async def add_pause(connection: Connection, pause: PauseRow) -> None:
    """An emergency pause that was enacted just now."""
    values = {
        "version": pause.version,
        "holds": pause.holds,
        "payouts": pause.payouts,
        "until": pause.until,
        "reason": pause.reason,
    }
    await connection.execute(insert(emergency_pause).values(values))


async def pause_at(connection: Connection, at: datetime) -> PauseRow | None:
    """The newest pause, while it stops something at that time."""
    row = (
        await connection.execute(select(emergency_pause).order_by(emergency_pause.c.version.desc()).limit(1))
    ).first()
    if row is None or at >= row.until or not (row.holds or row.payouts):
        return None
    return PauseRow(row.version, row.holds, row.payouts, row.until, row.reason)
