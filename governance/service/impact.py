"""The impact preview: the last 30 days of every account, rated again by a proposed table.

Bounded: at most `MOST_RECORDS` records, the newest ones, one report in memory at a time, off the event loop. What was
found is kept for an hour, and of those who ask at once one computes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from governance import proposals
from governance.impact import Bill, Impact, Replay, distribution, most_affected
from governance.service import log
from settlement.core import rates, times, usage
from settlement.core.errors import Conflict
from settlement.core.rates import RateTable
from settlement.core.units import PICO_PER_MICRO, cu_text
from settlement.services.context import Context
from settlement.storage import governance, governance_log, usage_replay
from settlement.storage.database import Database

SPAN = timedelta(days=30)
KEPT_FOR = timedelta(hours=1)
MOST_RECORDS = 2_000_000
MOST_KEPT = 8


@dataclass(frozen=True, slots=True)
class Preview:
    """What was replayed: `complete` unless there were more records than `MOST_RECORDS` in the 30 days."""

    made_at: datetime
    since: datetime
    complete: bool
    impact: Impact


class _Desk:
    """The previews that a process knows, by proposal, and the lock of whoever computes one."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, Preview] = OrderedDict()
        self.working = asyncio.Lock()


_desks: WeakKeyDictionary[Database, _Desk] = WeakKeyDictionary()


async def preview(context: Context, proposal_id: str) -> Preview:
    """What a proposed rate table would have changed. Raises NotFound, Conflict ``no_impact`` for other objects."""
    register = await log.current(context)
    standing = register.standing(proposal_id)
    if standing.governed.kind != "rates":
        raise Conflict("no_impact", "only a rate table changes what somebody pays")
    desk = _desks.setdefault(context.database, _Desk())
    async with desk.working:
        now = context.sources.clock()
        found = desk.known.get(proposal_id)
        if found is None or now - found.made_at >= KEPT_FOR:
            async with context.database.read() as connection:
                bodies = await governance_log.documents(connection, [standing.proposal.digest])
            (body,) = bodies.values()
            proposed = rates.parse(proposals.parse(body).governed.document)
            found = desk.known[proposal_id] = await replayed(context, proposed, now)
            while len(desk.known) > MOST_KEPT:
                desk.known.popitem(last=False)
    return found


async def replayed(context: Context, proposed: RateTable, now: datetime) -> Preview:
    """The last 30 days of every account before `now`, rated by the table in force and by a proposed one."""
    since, complete = now - SPAN, True
    async with context.database.read() as connection:
        in_force = rates.parse((await governance.rates_at(connection, now)).document)
        replay = Replay(in_force, proposed)
        async for past in usage_replay.backwards(connection, since):
            report = await asyncio.to_thread(usage.decode, past.body)
            if replay.impact.total.records + len(report.ids) > MOST_RECORDS:
                since, complete = past.received_at, False
                break
            await asyncio.to_thread(replay.add, report, past.refused)
    return Preview(now, since, complete, replay.impact)


def document(proposal_id: str, found: Preview) -> dict[str, Any]:
    """The preview for everybody: sums, classes, the ten most affected without their names."""
    impact = found.impact
    return {
        "proposal": proposal_id,
        "made_at": times.text(found.made_at),
        "since": times.text(found.since),
        "complete": found.complete,
        "total": bill(impact.total),
        "consumers": distribution(impact.consumers),
        "providers": distribution(impact.providers),
        "most_affected": [bill(each) for _, each in most_affected(impact.consumers)],
    }


def own(found: Preview, party: str) -> dict[str, Any]:
    """What it means for one participant: as a consumer, and as a provider; and its rank among the most affected."""
    impact = found.impact
    bills = impact.providers if party.startswith("prv_") else impact.consumers
    ranked = [name for name, _ in most_affected(impact.consumers)]
    rank = ranked.index(party) + 1 if party in ranked else None
    return {"party": party, "rank": rank, **bill(bills.get(party, Bill()))}


def bill(found: Bill) -> dict[str, Any]:
    """A bill in CU, rounded down to microCU, and its change in hundredths of a percent of what it was."""
    before, after = found.before // PICO_PER_MICRO, found.after // PICO_PER_MICRO
    percent = None if found.before == 0 else f"{_hundredths(found.change, found.before)}"
    return {
        "records": found.records,
        "before": cu_text(before),
        "after": cu_text(after),
        "change_percent": percent,
        "unrated": found.unrated,
    }


def _hundredths(change: int, before: int) -> str:
    """The change in percent with two places, rounded towards zero."""
    value = abs(change) * 10_000 // before
    sign = "-" if change < 0 and value else ""
    return f"{sign}{value // 100}.{value % 100:02d}"
