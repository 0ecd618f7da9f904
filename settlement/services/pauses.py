"""What stands still by decision of the council, or because nobody renewed the rates: new holds, payouts.

A pause ends by itself (`pause/1`). Rates that are older than the policy's `rates_valid` keep rating usage;
`rates_grace` later no new holds are given, so that nobody is promised a price that nobody stands for any more.
"""

from __future__ import annotations

from datetime import datetime

from settlement.core import times
from settlement.core.errors import Unavailable
from settlement.storage import governance_log
from settlement.storage.database import Connection
from settlement.storage.pauses import Standing


async def payouts_stopped(connection: Connection, now: datetime) -> Unavailable | None:
    """Why no payout leaves now; None when payouts may leave."""
    pause = await governance_log.pause_at(connection, now)
    if pause is None or not pause.payouts:
        return None
    until = times.text(pause.until)
    return Unavailable("paused", f"the council has paused payouts until {until}: {pause.reason}")


def holds_stopped(standing: Standing, now: datetime) -> Unavailable | None:
    """Why no new hold is given now; None when holds may be placed.

    A hold that was given before is extended, captured and released as ever: an answer that runs is not cut off.
    """
    if standing.until is not None:
        until = times.text(standing.until)
        return Unavailable("paused", f"the council has paused new holds until {until}: {standing.reason}")
    rules, since = standing.policy.governance, standing.rates_since
    if since is not None and now >= since + rules.rates_valid + rules.rates_grace:
        return Unavailable("rates_expired", "the rate table has run out and no other followed it; tell the council")
    return None
