"""Records that name holds: what they take, in the transaction of the report that they are in.

A report without holds passes through here untouched. Otherwise its holds are locked before the accounts, each charge is
bounded by its hold, and what a capture frees is available again to the records of the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
from msgspec import UNSET
from msgspec.structs import replace as changed

from settlement.core import budgets, holds
from settlement.core.assessment import Assessed, RecordRefusal
from settlement.core.captures import HoldTerms
from settlement.core.holds import Hold
from settlement.core.ids import EPOCH
from settlement.core.usage import UsageReport
from settlement.services import events
from settlement.services.context import Context
from settlement.storage import holds as storage
from settlement.storage.database import Connection
from settlement.storage.holds import CaptureRow, Changes, Locked, StoredHold


@dataclass(frozen=True, slots=True)
class Taken:
    """What a report's records take of holds, if they are charged.

    `assessed` has the bounded charges and further refusals. Lines in `reserved` are paid for by their holds; those that
    capture an expired hold late are not. `freed` is what the captures free on each consumer's account.
    """

    assessed: Assessed
    captures: Mapping[int, tuple[StoredHold, holds.Capture]]
    reserved: frozenset[int]
    freed: Mapping[str, int]


async def terms_of(context: Context, report: UsageReport) -> Mapping[str, HoldTerms]:
    """What never changes of the holds that a report names, by which its records are rated. Nothing is locked."""
    names = (
        {name for name in report.holds if name is not UNSET} if report.holds.count(UNSET) != len(report.holds) else ()
    )
    if not names:
        return {}
    async with context.database.read() as connection:
        return await storage.terms_of(connection, sorted(names))


async def begin(connection: Connection, reports: Sequence[Assessed], now: datetime) -> Captures | None:
    """Lock the holds that reports are about to capture; None when they name none."""
    names = {name for each in reports for line, name in each.holds.items() if line not in each.refusals}
    if not names:
        return None
    return Captures(*await storage.lock_for_capture(connection, sorted(names)), now)


class Captures:
    """One transaction's captures, report after report: each sees what those before it have taken."""

    def __init__(self, stored: Mapping[str, StoredHold], locked: Locked, now: datetime) -> None:
        self._stored = dict(stored)
        self._locked = locked
        self._now = now
        self._changes = Changes()
        self._changed: dict[str, Hold] = {}
        self._freed: dict[str, int] = {}
        self._rows: list[CaptureRow] = []
        self._crossed: list[tuple[int, budgets.Crossing]] = []

    def take(self, assessed: Assessed, known: frozenset[int]) -> Taken:
        """Bound the charges of the records that name holds; lines in `known` were charged before."""
        refusals, pico = dict(assessed.refusals), assessed.pico.copy()
        captures: dict[int, tuple[StoredHold, holds.Capture]] = {}
        reserved, freed = set(), dict[str, int]()
        for line, name in assessed.holds.items():
            if line in refusals or line in known:
                continue
            stored = self._stored[name]
            done = self._capture(stored, int(assessed.at[line]), int(pico[line]))
            if isinstance(done, tuple):
                refusals[line] = RecordRefusal(line, *done)
                pico[line] = 0
                continue
            captures[line] = stored, done
            self._stored[name] = changed(stored, hold=done.hold)
            pico[line] = done.pico
            if not done.late:
                reserved.add(line)
                freed[stored.consumer] = freed.get(stored.consumer, 0) + done.freed
        return Taken(replace(assessed, pico=pico, refusals=refusals), captures, frozenset(reserved), freed)

    def keep(self, taken: Taken, accepted: npt.NDArray[np.bool_], report_no: int) -> None:
        """The report is charged: its captures count. A late one that the balance did not cover is taken back."""
        for line, (before, done) in taken.captures.items():
            if not accepted[line]:
                self._stored[before.id] = before
                continue
            self._changed[before.id] = done.hold
            self._freed[before.consumer] = self._freed.get(before.consumer, 0) + done.freed
            self._use(before, done.taken - done.freed)
            self._rows.append(CaptureRow(report_no, line, before.id, before.hold.left, done.taken, done.late))

    def reserved(self, account_numbers: Mapping[str, int]) -> Mapping[int, int]:
        """By how much what is reserved changes with what was kept, by account number."""
        return {account_numbers[consumer]: -freed for consumer, freed in self._freed.items()}

    async def store(self, connection: Connection) -> None:
        """Write what was kept, but for what is reserved: accounts change once, with the balances."""
        await storage.store_captures(connection, self._changed, self._rows, self._changes)

    async def tell(self, context: Context, connection: Connection) -> None:
        """Tell of the thresholds that late captures have reached."""
        for consumer_no, crossed in self._crossed:
            await events.budget_reached(context, connection, consumer_no, crossed)

    def _capture(self, stored: StoredHold, at: int, pico: int) -> holds.Capture | tuple[str, str]:
        refused = holds.refusal(stored.hold, EPOCH + timedelta(microseconds=at))
        if refused is not None:
            return refused
        done = holds.capture(stored.hold, pico, self._now)
        if done.late:
            periods = budgets.periods(stored.hold.created_at)
            chain = self._locked.chain(stored.budget_no)
            bound = budgets.tightest(chain, self._locked.uses, periods)
            if bound is not None and bound.left < done.taken:
                return "budget_exceeded", f"{bound.what} of budget {bound.budget.id} does not cover it"
        return done

    def _use(self, stored: StoredHold, amount: int) -> None:
        if not amount:
            return
        chain, periods = self._locked.chain(stored.budget_no), budgets.periods(stored.hold.created_at)
        for budget in chain:
            for period in periods:
                self._locked.uses[budget.no, period].used += amount
                self._changes.use(budget.no, period, amount)
        if amount > 0:
            for crossed in budgets.crossings(chain, self._locked.uses, periods):
                key = crossed.budget.no, crossed.period
                self._locked.uses[key].alerted = self._changes.alerted[key] = crossed.percent
                self._crossed.append((stored.consumer_no, crossed))
