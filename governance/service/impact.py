"""The impact preview: the last 30 days of every account, rated again by a proposed table.

Bounded: at most `MOST_RECORDS` records in `MOST_REPORTS` reports, the newest ones, one report in memory at a time, off
the event loop. What was found is kept for an hour, and of those who ask at once one computes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from governance import proposals
from governance.impact import Bill, Counterfactual, Impact, Replay, distribution, most_affected
from governance.service import log
from settlement.core import rates, times, usage
from settlement.core.errors import Conflict, NotFound
from settlement.core.rates import RateTable
from settlement.core.units import PICO_PER_MICRO, cu_text
from settlement.services import statements
from settlement.services.context import Context
from settlement.storage import governance, governance_log, usage_replay
from settlement.storage.database import Database

SPAN = timedelta(days=30)
KEPT_FOR = timedelta(hours=1)
MOST_RECORDS = 2_000_000
MOST_REPORTS = 100_000
"""A report of one record takes a millisecond: a provider that sends each alone shall not make a preview last hours."""
MOST_KEPT = 8
TOGETHER = 1_000
"""How many records of a statement are rated at once."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What was replayed: `complete` unless there was more in the 30 days than the bounds let in."""

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
    proposed = await _proposed(context, proposal_id)
    desk = _desks.setdefault(context.database, _Desk())
    async with desk.working:
        now = context.sources.clock()
        found = desk.known.get(proposal_id)
        if found is None or now - found.made_at >= KEPT_FOR:
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
        reports = 0
        async for past in usage_replay.backwards(connection, since):
            reports += 1
            if reports > MOST_REPORTS or not await asyncio.to_thread(_fits, replay, past):
                since, complete = past.received_at, False
                break
    return Preview(now, since, complete, replay.impact)


def _fits(replay: Replay, past: usage_replay.PastReport) -> bool:
    """Count a report, if there is room for it."""
    report = usage.decode(past.body)
    fits = replay.impact.total.records + len(report.ids) <= MOST_RECORDS
    if fits:
        replay.add(report, past.refused)
    return fits


async def counterfactual(context: Context, party: str, window_no: int, named: str) -> tuple[Counterfactual, RateTable]:
    """What a party's window would have cost by another table: a version's number, or a proposal's id.

    Raises NotFound ``unknown_rate_table`` and for proposals, windows and parties; Conflict ``window_not_netted`` or
    ``no_impact``. One at a time in a process, in memory that does not grow with the records.
    """
    desk = _desks.setdefault(context.database, _Desk())
    async with desk.working:
        other = await _table(context, named)
        found = Counterfactual(other)
        async with statements.opened(context, party, window_no) as opened:
            tables = {each["version"]: rates.parse(each["document"].encode()) for each in opened.head["rate_tables"]}
            waiting: dict[tuple[int, str], list[dict[str, Any]]] = {}
            async for entry in opened.records:
                key = entry["rates"], entry["provider"]
                waiting.setdefault(key, []).append(entry)
                if len(waiting[key]) == TOGETHER:
                    await asyncio.to_thread(_count, found, tables, key, waiting.pop(key))
            for key, entries in waiting.items():
                await asyncio.to_thread(_count, found, tables, key, entries)
    return found, other


def _count(
    found: Counterfactual, tables: dict[int, RateTable], key: tuple[int, str], entries: list[dict[str, Any]]
) -> None:
    pico = sum(int(entry["charge_pico"]) for entry in entries)
    found.add(tables[key[0]], key[1], [entry["record"] for entry in entries], pico)


async def _table(context: Context, named: str) -> RateTable:
    if named.startswith("prp_"):
        return await _proposed(context, named)
    async with context.database.read() as connection:
        tables = await governance.rate_tables(connection)
    if not (named.isascii() and named.isdecimal()) or not 1 <= int(named) <= len(tables):
        raise NotFound("unknown_rate_table", f"there is no rate table {named}")
    return rates.parse(tables[int(named) - 1].document)


async def _proposed(context: Context, proposal_id: str) -> RateTable:
    standing = (await log.current(context)).standing(proposal_id)
    if standing.governed.kind != "rates":
        raise Conflict("no_impact", "only a rate table changes what somebody pays")
    async with context.database.read() as connection:
        (body,) = (await governance_log.documents(connection, [standing.proposal.digest])).values()
    return rates.parse(proposals.parse(body).governed.document)


def would_be(party: str, window_no: int, found: Counterfactual, other: RateTable) -> dict[str, Any]:
    """A counterfactual bill: `before` and `after` at par, `charged` what the records have cost."""
    return {
        "party": party,
        "window": f"win_{window_no}",
        "rates": {"version": other.version, "digest": other.digest},
        "charged": cu_text(found.charged // PICO_PER_MICRO),
        **bill(found.bill),
    }


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
