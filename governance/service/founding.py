"""Founding: an installation by its operator, later its council; and what the operator publishes while alone.

An installation starts with the operator's key, alone. When the council is in force the operator governs no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from governance import council, proposals
from governance.proposals import Object
from governance.register import Entry, Register
from governance.service import log
from settlement.core import canonical
from settlement.core.keys import public_key
from settlement.core.policy import Policy
from settlement.core.signatures import sign_document
from settlement.services.context import Context
from settlement.storage import governance as storage
from settlement.storage import service_keys, windows
from settlement.storage.database import Connection
from settlement.storage.governance import Signed

Signatures = Sequence[dict[str, str]]


async def found(context: Context, policy: Policy, first_rates: bytes) -> bool:
    """Found an installation: window 1, the first policy and rate table. False when it was founded before."""
    document = policy.document()
    facts = {
        "operator": context.key.public.jwk(),
        "policy": canonical.digest(document),
        "rates": proposals.read_governed("rates", first_rates).digest,
        "signatures": {
            "policy": [sign_document(context.key, document)],
            "rates": [sign_document(context.key, first_rates)],
        },
    }

    async def use_case(connection: Connection) -> bool:
        await windows.open_first(connection, context.sources.clock())
        if await storage.rate_tables(connection, lock=True):
            return False
        await service_keys.found(connection, context.key.public, context.sources.clock())
        await log.write(context, connection, lambda _, now: [Entry("founded", now, facts)], [document, first_rates])
        return True

    return await context.database.run(use_case)


async def publish_rates(context: Context, document: bytes, signatures: Signatures) -> Signed:
    """Publish the next rate table as the operator, who governs alone: version exactly +1, never retroactive.

    Raises Malformed for a document that is no rates/1, Forbidden ``council_governs`` or ``not_enough_signatures``,
    Conflict ``version_not_next``, ``parent_mismatch`` or ``effective_date_in_past``. Nothing is stored when it raises.
    """
    return await _publish(context, "rates", document, signatures)


async def publish_policy(context: Context, document: bytes, signatures: Signatures) -> Signed:
    """Publish the next policy as the operator, who governs alone. Raises as `publish_rates` does."""
    return await _publish(context, "policy", document, signatures)


async def publish_ruling(context: Context, document: bytes, signatures: Signatures) -> None:
    """Rule on a dispute as the operator, who governs alone.

    Raises Malformed ``proposal_malformed``, Forbidden ``council_governs`` or ``not_enough_signatures``, NotFound
    ``unknown_dispute``, Conflict ``dispute_ended``, ``dispute_not_answered`` or ``ruling_out_of_bounds``.
    """
    proposals.ruling(document)
    await _publish(context, "ruling", document, signatures)


async def found_council(context: Context, document: bytes, signatures: Signatures) -> Register:
    """Found the council: signed by the operator and by every member, in force from a later time on.

    Raises Malformed ``council_malformed``, ``key_off_group``, Conflict ``council_exists``, ``version_not_next`` or
    ``effective_date_in_past``, Forbidden ``not_enough_signatures``.
    """
    for member in council.parse(document).members:
        public_key(member.key.raw)
    facts = {"digest": canonical.digest(document), "signatures": [dict(each) for each in signatures]}
    return await _as_operator(context, "council_founded", facts, document)


async def _publish(context: Context, kind: Object, document: bytes, signatures: Signatures) -> Signed:
    found = proposals.read_governed(kind, document)
    facts = {"object": kind, "digest": found.digest, "signatures": [dict(each) for each in signatures]}
    await _as_operator(context, "published", facts, document)
    digest = canonical.digest_raw(found.digest)
    return Signed(found.version, digest, found.effective_from, document, [dict(each) for each in signatures])


async def _as_operator(context: Context, kind: str, facts: dict[str, Any], document: bytes) -> Register:
    """Write what the operator signed, behind the hand-overs of its key that the log has not seen."""

    async def use_case(connection: Connection) -> Register:
        keys = await service_keys.every(connection)

        def make(register: Register, now: datetime) -> list[Entry]:
            known = [key.public for key in keys].index(register.operator) if register.operator else 0
            handovers = [
                {"document": key.document.decode(), "signatures": [dict(each) for each in key.signatures]}
                for key in keys[known + 1 :]
                if key.document is not None
            ]
            return [*(Entry("operator", now, each) for each in handovers), Entry(kind, now, facts)]

        return await log.write(context, connection, make, [document])

    return await context.database.run(use_case)
