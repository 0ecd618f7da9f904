"""Planning payouts: what a window's positions say is owed is set aside in the books before anything goes to a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from settlement.core.errors import Broken, Conflict, Unavailable
from settlement.core.ids import fact_id
from settlement.core.journal import CU, Entry, Posting
from settlement.services import anchoring, outcomes, pauses
from settlement.services.context import Context
from settlement.storage import accounts, halts, journal, payouts, windows
from settlement.storage.accounts import Account, system_account
from settlement.storage.database import Connection
from settlement.storage.payouts import Due, Payout
from settlement.storage.windows import Window

TAKEN_IN = frozenset({"slots_unaccounted"})
"""Halts while which requests for payouts are taken in all the same, though nothing is signed: restored books learn by
them what the chain has seen already."""


async def plan(context: Context, window_no: int) -> int:
    """Set aside every payout of a checkpointed window and plan its anchors, in one commit; returns how many payouts.

    A window that was planned before is left as it is. Raises NotFound, Conflict ``window_not_checkpointed``,
    Unavailable ``halted`` while a halt is open and ``paused`` while the council has paused payouts, Broken
    ``payout_uncovered`` or ``payout_without_address`` when books and positions disagree.
    """

    async def use_case(connection: Connection) -> int:
        number = await windows.enter(connection)
        window = await windows.get(connection, window_no, lock=True)
        if window.state == "planned":
            return 0
        if window.state != "checkpointed" or window.closed_at is None:
            raise Conflict("window_not_checkpointed", f"{window.id} is {window.state}")
        await refuse_while_halted(connection)
        stopped = await pauses.payouts_stopped(connection, context.sources.clock())
        if stopped is not None:
            raise stopped
        due = await payouts.due(connection, window_no, window.closed_at)
        netted = await journal.facts_of(connection, "netting", window.id) or {}
        await _set_aside(context, connection, number, window, due, netted.get("fixing"))
        await anchoring.add_missing(context, connection, window_no)
        await windows.advance(connection, window_no, "planned")
        return len(due)

    return await context.database.run(use_case)


async def of_window(context: Context, window_no: int) -> list[Payout]:
    """All payouts of a window, oldest first."""
    async with context.database.read() as connection:
        return await payouts.of_window(connection, window_no)


async def refuse_while_halted(connection: Connection, *, but: frozenset[str] = frozenset()) -> None:
    """Raises Unavailable ``halted``, naming the first open halt with a code other than these."""
    found = [each for each in await halts.open_halts(connection) if each.code not in but]
    if found:
        raise Unavailable("halted", f"payouts and anchors are halted: {found[0].code}: {found[0].detail}")


async def _set_aside(
    context: Context, connection: Connection, number: int, window: Window, due: list[Due], fixing: int | None
) -> None:
    """Payout rows, and an entry for each: from the provider's balance to transit. `fixing` is the netting's."""
    window_no, closed_at = window.no, window.closed_at
    assert closed_at is not None, "only a checkpointed window is planned"
    transit = system_account("transit")
    await accounts.ensure(connection, transit, "transit", CU)
    locked = await accounts.lock(connection, [transit, *(each.party_id for each in due)])
    now = context.sources.clock()
    planned = [replace(_planned(window_no, closed_at, each, locked, now), fixing=fixing) for each in due]
    await payouts.add(connection, planned)
    numbers = {name: account.no for name, account in locked.items()}
    for payout in planned:
        legs = (Posting(outcomes.party_of(payout), CU, -payout.micro), Posting(transit, CU, payout.micro))
        facts: dict[str, str | int] = {
            "window": f"win_{window_no}",
            "chain": payout.chain,
            "asset": payout.asset,
            "amount": str(payout.amount),
            "address": payout.address,
        }
        if payout.reference is not None:
            facts["reference"] = str(payout.reference)
        if fixing is not None:
            facts["fixing"] = fixing
        await journal.append_locked(connection, Entry("payout_planned", payout.id, number, now, legs, facts), numbers)


def _planned(window_no: int, closed_at: datetime, due: Due, locked: Mapping[str, Account], now: datetime) -> Payout:
    if due.address is None:
        raise Broken("payout_without_address", f"win_{window_no} pays {due.party_id}, which had no such address then")
    balance = locked[due.party_id].available if due.party_id in locked else 0
    if due.micro > balance:
        raise Broken("payout_uncovered", f"win_{window_no} pays {due.party_id} {due.micro} microCU of {balance}")
    return Payout(
        fact_id("pay", closed_at, f"win_{window_no}", due.party_id, due.chain, due.asset),
        window_no,
        due.party_no,
        due.party_id,
        due.chain,
        due.asset,
        due.amount,
        due.micro,
        due.address,
        due.reference,
        "planned",
        None,
        None,
        None,
        now,
    )
