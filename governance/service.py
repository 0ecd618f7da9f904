"""Governing: publishing what is governed, and founding a new installation.

For now one key governs, the operator's, with a threshold of one; the council of named keys takes its place here: the
same tally over the same bytes, with more keys and a higher threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from governance.tally import tally
from settlement.core import canonical, rates
from settlement.core.assessment import AHEAD
from settlement.core.errors import Conflict, Forbidden, Refused
from settlement.core.policy import Policy
from settlement.core.signatures import PublicKey, sign_document
from settlement.services.context import Context
from settlement.storage import governance as storage
from settlement.storage import service_keys, windows
from settlement.storage.database import Connection
from settlement.storage.governance import Signed


@dataclass(frozen=True, slots=True)
class Governors:
    """Whose signatures count, and how many of them it takes."""

    keys: tuple[PublicKey, ...]
    threshold: int


def governors(context: Context) -> Governors:
    """Who governs this installation: its operator's key, alone, until a council is founded."""
    return Governors((context.key.public,), 1)


async def publish_rates(context: Context, document: bytes, signatures: Sequence[dict[str, str]]) -> Signed:
    """Publish the next rate table: signed by enough governors, version exactly +1, never retroactive.

    Raises Malformed for a document that is no rates/1, Forbidden ``not_enough_signatures``, Conflict
    ``version_not_next``, ``parent_mismatch`` or ``effective_date_in_past``. Nothing is stored when it raises.
    """
    table = rates.parse(document)
    _check_signed(context, document, signatures)
    now = context.sources.clock()
    signed = Signed(
        table.version, canonical.digest_raw(table.digest), table.effective_from, document, [dict(s) for s in signatures]
    )

    async def use_case(connection: Connection) -> None:
        await windows.enter(connection)
        published = await storage.rate_tables(connection, lock=True)
        if published:
            _check_follows(published[-1], table, now)
        elif table.version != 1 or table.parent is not None:
            raise Conflict("version_not_next", "the first rate table is version 1 and has no parent")
        await storage.publish_rates(connection, signed, _names(table), now)

    await context.database.run(use_case)
    return signed


async def found(context: Context, policy: Policy, first_rates: bytes) -> bool:
    """Found an installation: window 1, the first policy and rate table. False when it was founded before."""
    now = context.sources.clock()
    table = rates.parse(first_rates)

    async def use_case(connection: Connection) -> bool:
        await windows.open_first(connection, now)
        if await storage.rate_tables(connection, lock=True):
            return False
        await service_keys.found(connection, context.key.public, now)
        document = policy.document()
        policy_signatures = [sign_document(context.key, document)]
        digest = canonical.digest_raw(canonical.digest(document))
        await storage.publish_policy(
            connection, Signed(policy.version, digest, policy.effective_from, document, policy_signatures)
        )
        signatures = [sign_document(context.key, first_rates)]
        digest = canonical.digest_raw(table.digest)
        await storage.publish_rates(
            connection, Signed(table.version, digest, table.effective_from, first_rates, signatures), _names(table), now
        )
        return True

    return await context.database.run(use_case)


def _names(table: rates.RateTable) -> list[str]:
    return [*table.models, *table.aliases]


def _check_signed(context: Context, document: bytes, signatures: Sequence[dict[str, str]]) -> None:
    who = governors(context)
    counted = tally(document, signatures, keys=who.keys, threshold=who.threshold)
    if not counted.reached:
        missing = counted.threshold - len(counted.signed)
        raise Forbidden("not_enough_signatures", f"{missing} more signature(s) of those who govern are needed")


def _check_follows(last: Signed, table: rates.RateTable, now: datetime) -> None:
    problem: Refused | None = None
    if table.version != last.version + 1:
        problem = Conflict("version_not_next", f"the next rate table is version {last.version + 1}")
    elif table.parent != f"sha256:{last.digest.hex()}":
        problem = Conflict("parent_mismatch", f"the parent is sha256:{last.digest.hex()}")
    elif table.effective_from <= now + AHEAD or table.effective_from <= last.effective_from:
        detail = "a rate table is in force from more than 5 minutes ahead: records may be dated so far ahead already"
        problem = Conflict("effective_date_in_past", detail)
    if problem is not None:
        raise problem
