"""Proposals from a member's signature to what is in force: propose, comment, approve, veto, withdraw, enact."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from governance import council, proposals
from governance.register import Entry, Register, Standing
from governance.service import log
from settlement.core import canonical
from settlement.core.errors import Conflict, Malformed
from settlement.core.keys import public_key
from settlement.services.context import Context
from settlement.storage import governance_log as storage
from settlement.storage.database import Connection
from settlement.storage.parties import Party

MOST_COMMENTS = 20
"""How often one participant may comment on one proposal."""
LONGEST_COMMENT = 4000

_KINDS: dict[proposals.Choice, str] = {"approve": "approved", "veto": "vetoed", "withdraw": "withdrawn"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A proposal after a call; `replayed` when the same bytes had been taken before."""

    standing: Standing
    replayed: bool


async def propose(context: Context, body: bytes, signature: str) -> Outcome:
    """Take a member's proposal (`proposal/1`, signed over its bytes). The same proposal twice is taken once.

    Raises Malformed, Unauthenticated, Forbidden ``not_a_member``, Conflict ``council_missing``, ``proposal_conflict``,
    ``version_not_next``, ``parent_mismatch``, ``effective_date_in_past``, ``notice_too_short``, ``pause_too_long``.
    """
    proposal = proposals.parse(body)
    if proposal.governed.kind == "council":
        for member in council.parse(proposal.governed.document).members:
            public_key(member.key.raw)
    facts = {"proposal": proposal.id, "digest": proposal.digest, "signature": signature}
    replayed = False

    def make(register: Register, now: datetime) -> list[Entry]:
        nonlocal replayed
        known = register.proposals.get(proposal.id)
        replayed = known is not None and known.proposal.digest == proposal.digest
        return [] if replayed else [Entry("proposed", now, facts)]

    register = await log.act(context, make, [body])
    return Outcome(register.standing(proposal.id), replayed)


async def decide(context: Context, proposal_id: str, body: bytes, signature: str) -> Outcome:
    """Take a member's decision about a proposal (`decision/1`, signed over its bytes), and what follows from it.

    Raises Malformed ``decision_malformed``, NotFound, Unauthenticated, Forbidden ``not_a_member``, ``member_recused``
    or ``not_the_proposer``, Conflict ``decision_of_another``, ``already_decided``, ``proposal_closed``,
    ``version_not_next``, ``parent_mismatch``, ``effective_date_in_past`` or ``notice_too_short``.
    """
    decision = proposals.parse_decision(body)
    facts = {"proposal": proposal_id, "signature": signature}

    def make(register: Register, now: datetime) -> list[Entry]:
        known = register.standing(proposal_id)
        if decision.proposal != proposal_id or decision.digest != known.proposal.digest:
            raise Conflict("decision_of_another", "this decision is about another proposal, or about other bytes")
        return [Entry(_KINDS[decision.choice], now, facts)]

    register = await log.act(context, make)
    return Outcome(register.standing(proposal_id), replayed=False)


async def comment(context: Context, party: Party, proposal_id: str, text: str) -> int:
    """Keep what a participant says of a proposal; returns the comment's place in the log.

    Raises NotFound ``unknown_proposal``, Malformed ``comment_malformed``, Conflict ``proposal_closed`` or
    ``too_many_comments``.
    """
    if not text.strip() or len(text) > LONGEST_COMMENT:
        raise Malformed("comment_malformed", f"a comment is text of at most {LONGEST_COMMENT} characters")
    facts = {"proposal": proposal_id, "party": party.id, "digest": canonical.digest(text.encode())}

    async def use_case(connection: Connection) -> Register:
        register = await log.write(context, connection, lambda _, now: [Entry("commented", now, facts)])
        if await storage.comment_count(connection, proposal_id, party.no) >= MOST_COMMENTS:
            raise Conflict("too_many_comments", f"a participant comments {MOST_COMMENTS} times at most")
        await storage.add_comment(connection, register.head.size, proposal_id, party.no, text)
        return register

    return (await context.database.run(use_case)).head.size


async def enact_due(context: Context) -> list[Entry]:
    """Enact what was adopted and whose time-lock is over, and close what has lapsed. Anybody may ask, at any time."""
    done: list[Entry] = []

    def make(register: Register, now: datetime) -> list[Entry]:
        found = register.due(now)
        done.extend(found)
        return found

    register = await log.current(context)
    while register.due(context.sources.clock()):
        register = await log.act(context, make)
    return done
