"""What anybody may see of how this service is governed, as documents."""

from __future__ import annotations

import json
from typing import Any

from governance import proposals
from governance.council import Council
from governance.register import Head, Register, Standing
from governance.service import log
from settlement.core import canonical, times
from settlement.services.context import Context
from settlement.storage import governance_log as storage
from settlement.storage.pages import Published

Document = dict[str, Any]
MOST_ENTRIES = 100


async def council(context: Context) -> Document:
    """Who governs now, and the council that follows, if one is enacted already."""
    register = await log.current(context)
    now = context.sources.clock()
    found = register.council_at(now)
    pause = register.pause_at(now)
    later = register.councils[-1] if register.councils and register.councils[-1] is not found else None
    assert register.operator is not None, "an installation is founded when it is opened"
    return {
        "governed_by": "operator" if found is None else "council",
        "operator": register.operator.kid,
        "council": None if found is None else _council(register, found),
        "next": None if later is None else _council(register, later),
        "pause": None if pause is None else {"stop": sorted(pause.stop), "until": times.text(pause.until)},
        "log": {"size": register.head.size, "head": register.head.hash.hex()},
    }


async def listed(context: Context) -> list[Document]:
    """All proposals, the newest first."""
    register = await log.current(context)
    return [summary(register, each) for each in reversed(register.proposals.values())]


async def proposal(context: Context, proposal_id: str) -> Document:
    """One proposal and who has decided on it. Raises NotFound ``unknown_proposal``."""
    register = await log.current(context)
    return summary(register, register.standing(proposal_id))


async def body(context: Context, proposal_id: str) -> Published:
    """The exact bytes of a proposal: what a member looks at and signs about."""
    register = await log.current(context)
    digest = register.standing(proposal_id).proposal.digest
    async with context.database.read() as connection:
        (document,) = (await storage.documents(connection, [digest])).values()
    return Published(document=document, digest=canonical.digest_raw(digest), signatures=[])


async def comments(context: Context, proposal_id: str, after: int, limit: int) -> list[storage.Comment]:
    """Comments on a proposal in order, those behind entry number `after` of the log."""
    (await log.current(context)).standing(proposal_id)
    async with context.database.read() as connection:
        return await storage.comments(connection, proposal_id, after=after, limit=limit)


async def entries(context: Context, after: int, limit: int) -> list[Document]:
    """Entries of the log behind number `after`, with what is hashed as text."""
    async with context.database.read() as connection:
        found = await storage.after(connection, after, limit=min(limit, MOST_ENTRIES))
    return [
        {
            "no": each.no,
            "payload": each.payload.decode(),
            "previous": each.previous.hex(),
            "hash": each.hash.hex(),
        }
        for each in found
    ]


async def next_version(context: Context, kind: proposals.Object, subject: str = "") -> tuple[int, str | None]:
    """The version that follows in a chain, and its parent's digest."""
    newest = (await log.current(context)).newest(kind, subject)
    return (1, None) if newest is None else (newest.version + 1, newest.digest)


def summary(register: Register, found: Standing) -> Document:
    """A proposal as it stands."""
    governed, demand = found.governed, found.demand
    keys = {member.key.raw: member for one in [*register.councils, *([found.council] if found.council else [])]
            for member in one.members}  # fmt: skip

    def who(decided: Any) -> list[Document]:
        return [{"name": keys[raw].name, "kid": keys[raw].key.kid, "at": times.text(at)} for raw, at in decided.items()]

    return {
        "id": found.proposal.id,
        "object": governed.kind,
        "subject": governed.subject,
        "version": governed.version,
        "parent": governed.parent,
        "effective_from": times.text(governed.effective_from),
        "digest": found.proposal.digest,
        "document_digest": governed.digest,
        "statement": found.proposal.statement,
        "correction": found.proposal.correction,
        "state": found.state,
        "proposed_at": times.text(found.proposed_at),
        "changed_at": None if found.changed_at is None else times.text(found.changed_at),
        "threshold": demand.threshold,
        "notice_seconds": int(demand.notice.total_seconds()),
        "time_lock_seconds": int(demand.time_lock.total_seconds()),
        "approved": who(found.approved),
        "vetoed": who(found.vetoed),
    }


def _council(register: Register, found: Council) -> Document:
    heads: list[Head] = register.chains[("council", "")]
    head = next(each for each in heads if each.digest == found.digest)
    document: Document = json.loads(head.document)
    return {"digest": found.digest, **document}
