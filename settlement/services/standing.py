"""The volumes that count for a day, read once for each day: they were settled before it began and never change."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from settlement.core.assessment import AHEAD, OLDEST
from settlement.core.errors import NotFound
from settlement.core.standing import PLAIN, Day, day_of
from settlement.core.usage import UsageReport
from settlement.services.context import Context
from settlement.storage import governance, obligations
from settlement.storage.database import Connection, Database

MOST_DAYS = 40
"""A record is at most 35 days late."""
_known: WeakKeyDictionary[Database, dict[datetime, Day]] = WeakKeyDictionary()


async def of_report(context: Context, report: UsageReport, now: datetime) -> Mapping[datetime, Day]:
    """The standings of the days of a report's records, by the beginning of the day: those on which there are tiers, as
    far as records of such a day are taken now."""
    oldest, newest = day_of(now - OLDEST), day_of(now + AHEAD)
    found = {}
    first, last = min(report.at)[:10], max(report.at)[:10]
    for text in {first} if first == last else {at[:10] for at in report.at}:
        with suppress(ValueError):  # a time that is none is refused where it is read
            day = datetime.fromisoformat(text).replace(tzinfo=UTC)
            if oldest <= day <= newest and (standing := await _cached(context, day)).rules.tiers:
                found[day] = standing
    return found


async def _cached(context: Context, day: datetime) -> Day:
    known = _known.setdefault(context.database, {})
    if day not in known:
        async with context.database.read() as connection:
            known[day] = await of_day(connection, day)
        if len(known) > MOST_DAYS:
            del known[min(each for each in known if each != day)]
    return known[day]


async def of_day(connection: Connection, day: datetime) -> Day:
    """The rules in force when a day begins, and everybody's volume for it."""
    try:
        rules = (await governance.policy_at(connection, day)).standing
    except NotFound:
        return PLAIN
    if not rules.tiers:
        return PLAIN
    return Day(rules, await obligations.volumes(connection, *rules.counted(day)))
