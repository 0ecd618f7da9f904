"""The door of conversions as the service uses it: policy and fixing as they stand in the books, decided by the core.

Call it behind the gate (`windows.enter`): a fixing is booked with the gate shut, so it stays the newest until the
transaction ends, and the verifier, which reads the journal in its order, finds the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from settlement.core import conversion
from settlement.core.conversion import Fresh, Lot, Use, Worth
from settlement.core.observations import read_fixing
from settlement.core.policy import Policy
from settlement.core.value import Fixing, deposit_price
from settlement.storage import fixings, funding, governance, payouts
from settlement.storage.accounts import Account
from settlement.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Door:
    """A policy, the newest fixing if the policy follows the index, and the time of the conversion."""

    policy: Policy
    fixing: Fixing | None
    at: datetime

    def worth(self, use: Use, code: str, decimals: int) -> Worth | None:
        """What an asset's smallest unit is worth; None when it has no worth. Raises Unavailable."""
        return conversion.worth(self.policy, self.fixing, use, code, decimals, self.at)

    @property
    def usable(self) -> Fixing | None:
        """The fixing that converts now; None when the policy follows none, or nothing is converted."""
        return None if conversion.paused(self.policy, self.fixing, self.at) is not None else self.fixing

    def measured(self, code: str, decimals: int) -> Fraction | None:
        """microCU per smallest unit, for counting what is held."""
        return conversion.measured(self.policy, self.fixing, code, decimals)


async def opened(connection: Connection, at: datetime, *, policy_at: datetime | None = None) -> Door:
    """The door at a time, by the policy in force then or at `policy_at`. Raises NotFound ``policy_not_in_force``."""
    policy = await governance.policy_at(connection, policy_at or at)
    stored = await fixings.journalled(connection) if policy.follows_index else None
    return Door(policy, None if stored is None else read_fixing(stored.document), at)


async def withdrawal(
    connection: Connection, door: Door, party_no: int, balance: Account, code: str, decimals: int, wanted: int
) -> Worth | None:
    """What an asset's smallest unit is worth for a withdrawal of `wanted` microCU. Raises Unavailable."""
    fresh = Fresh()
    if door.usable is not None:
        since = door.at - door.policy.index.rules.own_rate_for
        lots = await funding.lots(connection, party_no, since)
        documents = await fixings.numbered(connection, {number for _, number in lots})
        found = {each.number: deposit_price(read_fixing(each.document)) for each in documents}
        returned = await payouts.at_own_rate(connection, party_no, since)
        fresh = Fresh([Lot(micro, found[number]) for micro, number in lots], returned, balance.settled)
    return conversion.withdrawal(door.policy, door.fixing, code, decimals, door.at, wanted, fresh)


async def usd_per_cu(connection: Connection, policy: Policy, last_seq: int) -> Fraction:
    """What invoices up to a journal entry take a CU to be worth in USD."""
    stored = await fixings.journalled(connection, last_seq) if policy.follows_index else None
    return policy.usd_per_cu if stored is None else read_fixing(stored.document).usd_per_cu
