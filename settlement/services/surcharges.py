"""Surcharges for holds that reserve and are not used: measured a day at a time, noticed first, then charged.

There is no table beside the journal: its entries are the notices and the charges, and (kind, subject) of an entry
happens once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from settlement.core import surcharges, times
from settlement.core.errors import NotFound
from settlement.core.journal import CU, Entry, Posting
from settlement.core.standing import day_of
from settlement.core.surcharges import Day, Notice, SurchargeRules
from settlement.services import events
from settlement.services.context import Context
from settlement.storage import accounts, governance, journal, windows
from settlement.storage import surcharges as storage
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection
from settlement.storage.surcharges import StoredSurcharge


async def judge(context: Context) -> int:
    """Judge the last day that can be: a notice or a charge for whoever was above the rules. Returns how many.

    Doing it again does nothing. A day that nobody judged before the next one can be is never charged.
    """
    begins = day_of(context.sources.clock() - surcharges.MEASURED_AFTER) - timedelta(days=1)
    async with context.database.read() as connection:
        try:
            rules = (await governance.policy_at(connection, begins)).surcharge
        except NotFound:
            return 0
        if not rules.fee:
            return 0
        found = [each for each in await storage.used(connection, begins) if rules.due(each[2])]
    done = 0
    for number, consumer, day in found:
        done += await _judge(context, rules, number, consumer, day)
    return done


async def of_consumer(context: Context, consumer: str) -> list[StoredSurcharge]:
    """Every notice and charge of a consumer, oldest first."""
    async with context.database.read() as connection:
        return await storage.of_consumer(connection, consumer)


def document(found: StoredSurcharge) -> dict[str, Any]:
    """A notice or a charge, for its consumer and whoever checks its statement."""
    charged = found.kind == "surcharge"
    return {
        "journal_seq": found.seq,
        "at": times.text(found.at),
        **found.facts,
        **({"amount": str(found.amount)} if charged else {}),
    }


async def _judge(context: Context, rules: SurchargeRules, number: int, consumer: str, day: Day) -> bool:
    async def use_case(connection: Connection) -> bool:
        window = await windows.enter(connection)
        await accounts.ensure(connection, system_account("fees"), "fees", CU)
        locked = await accounts.lock(connection, [consumer, system_account("fees")])
        earlier = await storage.of_consumer(connection, consumer)
        subject = surcharges.subject(consumer, day.begins)
        if any(each.subject == subject for each in earlier):
            return False
        now, last = context.sources.clock(), _last_notice(earlier)
        facts: dict[str, object] = {
            "day": times.text(day.begins),
            "holds": day.holds,
            "unused": day.unused,
            "due": str(rules.due(day)),
        }
        if surcharges.needs_notice(last, day.begins):
            notice = surcharges.noticed(now, rules)
            facts |= {"since": times.text(notice.since), "until": times.text(notice.until)}
            await journal.append(connection, Entry("surcharge_noticed", subject, window, now, (), facts))
            await events.surcharge_noticed(context, connection, number, subject, facts)
            return True
        amount = min(rules.due(day), locked[consumer].available)
        if last is None or not last.covers(day.begins) or amount <= 0:
            return False
        legs = (Posting(consumer, CU, -amount), Posting(system_account("fees"), CU, amount))
        await journal.append(connection, Entry("surcharge", subject, window, now, legs, facts))
        return True

    return await context.database.run(use_case)


def _last_notice(earlier: list[StoredSurcharge]) -> Notice | None:
    for each in reversed(earlier):
        if each.kind == "surcharge_noticed":
            return Notice(times.parse(each.facts["since"]), times.parse(each.facts["until"]))
    return None
