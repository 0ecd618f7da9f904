"""Ledger accounts and their balances. Balances change only together with a journal entry, in `storage.journal`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert

from settlement.core.errors import NotFound
from settlement.core.journal import CU
from settlement.storage.database import Connection
from settlement.storage.tables import account

Kind = Literal["consumer", "provider", "suspense", "treasury", "conversion", "transit", "fees", "equity", "fx"]

OURS: frozenset[Kind] = frozenset({"treasury", "conversion", "fees", "equity", "fx"})
"""Our own side of the books; the other side's balances never fall below zero."""


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


async def of_kinds(connection: Connection, *kinds: Kind) -> list[Account]:
    """All accounts of these kinds in order of their ids (byte order, as in the trees)."""
    rows = await connection.execute(select(account).where(account.c.kind.in_(kinds)))
    return sorted((_account(row) for row in rows), key=lambda found: found.id)


def _account(row: Row[Any]) -> Account:
    return Account(row.no, row.id, row.kind, row.asset, row.settled, row.held)
