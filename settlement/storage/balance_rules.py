"""Balance rules, and which of them the balances of now set off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, text, update

from settlement.core.errors import NotFound
from settlement.storage.database import Connection
from settlement.storage.tables import balance_rule


@dataclass(frozen=True, slots=True)
class BalanceRule:
    """Below so many microCU available a consumer is told, and asked for `amount` of an asset on a chain, if one is set.

    `fired` until the balance has recovered; `times` is how often that was, `intent_id` what the last time asked for.
    """

    id: str
    party_no: int
    below: int
    chain: str | None
    asset: str | None
    amount: int | None
    fired: bool
    times: int
    fired_at: datetime | None
    intent_id: str | None
    created_at: datetime


_RULE = [balance_rule.c[name] for name in BalanceRule.__slots__]

_RECOVER = text("""
UPDATE balance_rule r SET fired = false FROM account a
WHERE a.party_no = r.party_no AND r.fired AND a.settled - a.held >= r.below + r.below / 10
""")

_DUE = text("""
SELECT r.id, a.settled - a.held AS available FROM balance_rule r JOIN account a ON a.party_no = r.party_no
WHERE NOT r.fired AND a.settled - a.held < r.below ORDER BY r.id LIMIT :limit FOR UPDATE OF r SKIP LOCKED
""")


async def add(connection: Connection, rule: BalanceRule) -> None:
    """A new rule."""
    await connection.execute(insert(balance_rule).values({name: getattr(rule, name) for name in BalanceRule.__slots__}))


async def listed(connection: Connection, party_no: int) -> list[BalanceRule]:
    """A party's rules, oldest first."""
    query = select(*_RULE).where(balance_rule.c.party_no == party_no).order_by(balance_rule.c.id)
    return [BalanceRule(*row) for row in await connection.execute(query)]


async def remove(connection: Connection, party_no: int, rule_id: str) -> None:
    """Delete a party's rule. Raises NotFound ``unknown_balance_rule``."""
    query = delete(balance_rule).where(balance_rule.c.id == rule_id, balance_rule.c.party_no == party_no)
    if not (await connection.execute(query)).rowcount:
        raise NotFound("unknown_balance_rule", "this account has no such balance rule")


async def recover(connection: Connection) -> int:
    """Arm the rules whose balance is a tenth above their mark again; returns how many."""
    return int((await connection.execute(_RECOVER)).rowcount)


async def due(connection: Connection, limit: int) -> list[tuple[BalanceRule, int]]:
    """Armed rules whose balance is below their mark, locked, each with what is available. Those that another worker has
    are left to it."""
    found: Sequence[Any] = (await connection.execute(_DUE, {"limit": limit})).all()
    query = select(*_RULE).where(balance_rule.c.id.in_([row.id for row in found]))
    rules = {row.id: BalanceRule(*row) for row in await connection.execute(query)}
    return [(rules[row.id], row.available) for row in found]


async def fire(connection: Connection, rule_id: str, now: datetime, intent_id: str | None) -> None:
    """Record that a rule was set off."""
    values = {"fired": True, "times": balance_rule.c.times + 1, "fired_at": now, "intent_id": intent_id}
    await connection.execute(update(balance_rule).where(balance_rule.c.id == rule_id).values(values))
