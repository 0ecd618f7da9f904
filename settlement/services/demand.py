"""Demand: the worker makes a step when it is due, and holds and quotes ask for the one in force.

A step is made with the gate shut, so that what was charged before it is what stands before its journal entry. It comes
into force later than any process can have made a hold that didn't know it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from settlement.core import canonical, demand, offers
from settlement.core.demand import NO_DEMAND, Demand, Demands
from settlement.core.errors import Conflict
from settlement.core.journal import Entry
from settlement.core.multipliers import ONE
from settlement.core.policy import Policy
from settlement.core.signatures import sign_document
from settlement.services.context import Context
from settlement.storage import demand as storage
from settlement.storage import governance, journal, windows
from settlement.storage.database import Connection, Database
from settlement.storage.demand import StoredDemand

KEPT = 4
"""How many steps a process keeps: the one in force is among the last two."""


@dataclass(frozen=True, slots=True)
class _Known:
    newest: int
    demands: Demands


_known: WeakKeyDictionary[Database, _Known] = WeakKeyDictionary()


async def make(context: Context) -> Demand:
    """Make the next step now. Raises Conflict ``demand_off`` or ``demand_too_soon``."""

    async def use_case(connection: Connection) -> Demand:
        await windows.open_since(connection, lock=True)
        now = context.sources.clock().replace(microsecond=0)
        rules = (await governance.policy_at(connection, now)).demand
        last = next(iter(await storage.newest(connection)), None)
        if not rules.curve:
            raise Conflict("demand_off", "the policy in force has no curve of demand")
        if last is not None and now < last.at + rules.step:
            raise Conflict("demand_too_soon", f"the next step of demand is made at {last.at + rules.step}")
        charged = {} if last is None else await storage.charged(connection, last.journal_seq)
        found = [offers.parse(body) for body in await storage.offers(connection, now)]
        made = demand.made(
            None if last is None else demand.read(last.document),
            None if last is None else f"sha256:{last.digest.hex()}",
            now,
            rules,
            charged,
            {offer.provider: offer for offer in found},
        )
        await _book(context, connection, made)
        return made

    return await context.database.run(use_case)


async def make_due(context: Context) -> Demand | None:
    """Make the next step if it is due; None when it isn't, or demand changes nothing."""
    now = context.sources.clock().replace(microsecond=0)
    async with context.database.read() as connection:
        rules = (await governance.policy_at(connection, now)).demand
        last = next(iter(await storage.newest(connection)), None) if rules.curve else None
    if not rules.curve or (last is not None and now < last.at + rules.step):
        return None
    try:
        return await make(context)
    except Conflict:
        return None  # another worker made it


async def newest(context: Context, many: int) -> list[StoredDemand]:
    """The last steps, the last one first."""
    async with context.database.read() as connection:
        return await storage.newest(connection, many)


async def up_to(context: Context, connection: Connection, newest: int) -> Demands:
    """The last steps, read again only when `newest` is one that this process hasn't seen."""
    if not newest:
        return NO_DEMAND
    found = _known.get(context.database)
    if found is None or found.newest != newest:
        found = await _current(context, connection)
    return found.demands


async def quoted(context: Context, connection: Connection, policy: Policy, provider: str | None, now: datetime) -> int:
    """The multiplier that a hold for a provider would have, in ten-thousandths. Without a curve, and where this process
    has never met a step, nothing is read."""
    if provider is None or (not policy.demand.curve and context.database not in _known):
        return ONE
    return (await _current(context, connection)).demands.multiplier(provider, now)


async def of_hold(connection: Connection, hold: str | None) -> StoredDemand | None:
    """The step that was in force when a hold was made, by the time in its id; None without a hold, or when none was."""
    at = demand.moment(hold)
    found = None if at is None else await storage.in_force(connection, at)
    return found if found is not None and at is not None and at < found.until else None


def multiplier(step: StoredDemand | None, provider: str) -> int:
    """A provider's multiplier by a step, in ten-thousandths."""
    return ONE if step is None else demand.read(step.document).multiplier(provider)


async def documents(connection: Connection, times: Collection[datetime]) -> list[dict[str, Any]]:
    """The signed steps that were the last at these times, for outsiders."""
    return [document(each) for each in await storage.at_any(connection, times)]


def document(stored: StoredDemand) -> dict[str, Any]:
    """A step with its signatures, for outsiders."""
    return {
        "number": stored.number,
        "digest": f"sha256:{stored.digest.hex()}",
        "document": stored.document.decode(),
        "signatures": list(stored.signatures),
    }


async def _current(context: Context, connection: Connection) -> _Known:
    stored = await storage.newest(connection, KEPT)
    found = _Known(stored[0].number if stored else 0, Demands([demand.read(each.document) for each in stored]))
    _known[context.database] = found
    return found


async def _book(context: Context, connection: Connection, made: Demand) -> None:
    document = made.document()
    digest = canonical.digest(document)
    number = await windows.enter(connection)
    entry = Entry("demand", f"dem_{made.number}", number, made.at, (), {"number": made.number, "digest": digest})
    head = await journal.append(connection, entry)
    signed = [sign_document(context.key, document)]
    raw = canonical.digest_raw(digest)
    await storage.add(
        connection,
        StoredDemand(made.number, made.at, made.effective_from, made.until, raw, document, signed, head.seq),
    )
