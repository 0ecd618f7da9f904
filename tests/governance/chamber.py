"""A council to test with: members with keys, documents that follow one another, and what members sign."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from governance import council, proposals, service
from governance.council import Threshold
from governance.proposals import Choice, Object
from governance.register import DECISION_TYPE, PROPOSAL_TYPE, Register
from settlement.core import canonical, times
from settlement.core.signatures import SigningKey, sign_detached, sign_document
from tests.world import World

DAY = timedelta(days=1)
FIVE: dict[Threshold, int] = {"ordinary": 2, "higher": 3, "pause": 1, "veto": 2}
CHARTER = "sha256:" + "c" * 64


def seat(key: SigningKey, name: str, since: datetime, **changed: Any) -> dict[str, object]:
    """A member as a council lists it."""
    found: dict[str, object] = {
        "name": name,
        "key": council.key_member(key.public),
        "since": times.text(since),
        "until": times.text(since + 365 * DAY),
        "interests": [],
    }
    return found | changed


def changed_document(document: bytes, **changes: Any) -> bytes:
    """The document with other members."""
    return canonical.encode(json.loads(document) | changes)


@dataclass
class Chamber:
    """A world with a council of four, each with a key."""

    world: World
    keys: list[SigningKey]
    first: bytes
    made: int = field(default=0)

    @property
    def now(self) -> datetime:
        return self.world.sources.clock()

    async def register(self) -> Register:
        return await service.current(self.world.context)

    def proposal(self, kind: Object, document: bytes, **more: Any) -> bytes:
        """A proposal with a new id."""
        proposal_id = self.world.sources.new_id("prp")
        return proposals.make(kind, document, proposal_id=proposal_id, statement="because", **more)

    async def propose(self, kind: Object, document: bytes, by: int = 0, **more: Any) -> proposals.Proposal:
        """Propose a document."""
        body = self.proposal(kind, document, **more)
        signature = sign_detached(self.keys[by], body, PROPOSAL_TYPE)
        return (await service.propose(self.world.context, body, signature)).standing.proposal

    async def decide(self, choice: Choice, proposal: proposals.Proposal, *by: int) -> str:
        """Let members decide one after another; returns the state at the end."""
        state = ""
        for each in by:
            body = proposals.decide(choice, proposal)
            signature = sign_detached(self.keys[each], body, DECISION_TYPE)
            found = await service.decide(self.world.context, proposal.id, body, signature)
            state = found.standing.state
        return state

    async def next_council(self, keys: Sequence[SigningKey], **changes: Any) -> bytes:
        """The council that follows the newest one, of other keys, in force in ten days."""
        newest = (await self.register()).newest("council")
        assert newest is not None
        seats = [seat(key, f"member {number}", self.now) for number, key in enumerate(keys)]
        at = times.text(self.now + 10 * DAY)
        more = {"version": newest.version + 1, "parent": newest.digest, "effective_from": at, "members": seats}
        return changed_document(self.first, **(more | changes))

    async def chained(self, kind: Object, subject: str = "", **members: Any) -> bytes:
        """The next participant/1 or pause/1 of a chain, in force from now on."""
        newest = (await self.register()).newest(kind, subject)
        found = {
            "type": f"{kind}/1",
            "version": 1 if newest is None else newest.version + 1,
            "parent": None if newest is None else newest.digest,
            "effective_from": times.text(self.now),
        }
        return canonical.encode(found | members)


def first_council(keys: Sequence[SigningKey], at: datetime, **changed: Any) -> bytes:
    """Version 1 of a council, in force from an hour after `at`."""
    made = council.document(
        version=1,
        parent=None,
        effective_from=times.text(at + timedelta(hours=1)),
        thresholds=FIVE,
        members=[seat(key, f"member {number}", at) for number, key in enumerate(keys)],
        charter=CHARTER,
    )
    return changed_document(made, **changed)


async def seated(world: World) -> Chamber:
    """Found a council of four and let its time come."""
    keys = [SigningKey(world.sources.entropy(32)) for _ in range(4)]
    document = first_council(keys, world.sources.clock())
    signatures = [sign_document(key, document) for key in (world.context.key, *keys)]
    await service.found_council(world.context, document, signatures)
    world.sources.settable.advance(hours=1)
    return Chamber(world, keys, document)
