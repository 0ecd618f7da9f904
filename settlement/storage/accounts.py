"""Ledger accounts and their balances. Balances change only together with a journal entry, in `storage.journal`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert

from settlement.core.errors import NotFound
from settlement.core.journal import CU
from settlement.storage.database import Connection
from settlement.storage.tables import account, hold, party

Kind = Literal["consumer", "provider", "suspense", "treasury", "conversion", "transit", "fees", "equity", "fx"]

OURS: frozenset[Kind] = frozenset({"treasury", "conversion", "fees", "equity", "fx"})
"""Our own side of the books; the other side's balances never fall below zero."""
_OPEN_HOLD: list[Any] = [
    *(hold.c.id, party.c.id, hold.c.key_id, hold.c.model, hold.c.tier, hold.c.requests, hold.c.uses),
    *(hold.c.amount - hold.c.captured - hold.c.released, hold.c.created_at, hold.c.expires_at),
]


@dataclass(frozen=True, slots=True)
class Account:
    """One account: `settled` is what the journal says, `held` is reserved, the difference is available."""

    no: int
    id: str
    kind: str
    asset: str
    settled: int
    held: int

    @property
    def available(self) -> int:
        """The one formula for what can be spent (RELIABILITY N10)."""
        return self.settled - self.held


@dataclass(frozen=True, slots=True)
class OpenHold:
    """What one open hold keeps of an account, for whom, and by which spending key."""

    id: str
    provider: str
    key: str
    model: str
    tier: str
    requests: int
    uses: int
    held: int
    created_at: datetime
    expires_at: datetime


def system_account(kind: Kind, chain: str = "", asset: str = CU) -> str:
    """The id of one of our own accounts, such as ``treasury/simulated/USD:sim1...`` or ``transit/CU``."""
    return "/".join(part for part in (kind, chain, asset) if part)


async def ensure(connection: Connection, account_id: str, kind: Kind, asset: str, party_no: int | None = None) -> None:
    """Make the account if it isn't there."""
    values = {"id": account_id, "kind": kind, "asset": asset, "party_no": party_no, "overdraft": kind in OURS}
    await connection.execute(insert(account).values(values).on_conflict_do_nothing(index_elements=["id"]))


async def lock(connection: Connection, ids: Iterable[str]) -> dict[str, Account]:
    """The accounts by id, locked in the one order that everybody locks them in. Unknown ids are left out."""
    query = select(account).where(account.c.id.in_(sorted(set(ids)))).order_by(account.c.no).with_for_update()
    return {row.id: _account(row) for row in await connection.execute(query)}


async def get(connection: Connection, account_id: str) -> Account:
    """The account as it stands. Raises NotFound ``unknown_account``."""
    row = (await connection.execute(select(account).where(account.c.id == account_id))).first()
    if row is None:
        raise NotFound("unknown_account", f"there is no account {account_id}")
    return _account(row)


async def open_holds(connection: Connection, party_no: int, *, before: str | None, limit: int) -> list[OpenHold]:
    """A consumer's open holds, the newest first: together they are what its account holds."""
    query = select(*_OPEN_HOLD).join(party, party.c.no == hold.c.provider_no)
    query = query.where(hold.c.state == "open", hold.c.consumer_no == party_no)
    if before is not None:
        query = query.where(hold.c.id < before)
    rows = await connection.execute(query.order_by(hold.c.id.desc()).limit(limit))
    return [OpenHold(*row) for row in rows]


async def of_kinds(connection: Connection, *kinds: Kind) -> list[Account]:
    """All accounts of these kinds in order of their ids (byte order, as in the trees)."""
    rows = await connection.execute(select(account).where(account.c.kind.in_(kinds)))
    return sorted((_account(row) for row in rows), key=lambda found: found.id)


def _account(row: Row[Any]) -> Account:
    return Account(row.no, row.id, row.kind, row.asset, row.settled, row.held)
