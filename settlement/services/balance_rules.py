"""Balance rules: telling a consumer that little is left, and asking for a payment, once for each time it gets low.

Balances change on paths that must be quick, and in many places. So nothing there knows of these rules: the worker
compares balances with them every few seconds. What went low and recovered in between is not told.
"""

from __future__ import annotations

from settlement.core.errors import Conflict, NotFound
from settlement.core.units import decimal_text
from settlement.services import events, funding
from settlement.services.context import Context
from settlement.storage import balance_rules as storage
from settlement.storage import parties
from settlement.storage.balance_rules import BalanceRule
from settlement.storage.database import Connection
from settlement.storage.funding import Intent
from settlement.storage.parties import Party

MOST_RULES = 10
"""How many rules an account may have."""
TOGETHER = 100
"""How many rules one transaction sets off."""


async def create(
    context: Context, owner: Party, below: int, *, chain: str | None = None, asset: str | None = None, amount: int = 0
) -> BalanceRule:
    """Tell the consumer when less than `below` microCU are available; with a chain, ask for `amount` of the asset too.

    Raises NotFound ``unknown_chain`` or ``unknown_asset``, Conflict ``too_many_balance_rules``.
    """
    text = None if chain is None else funding.accepted(context, chain, asset or "")[1].text

    async def use_case(connection: Connection) -> BalanceRule:
        await parties.lock(connection, owner.no)
        if len(await storage.listed(connection, owner.no)) >= MOST_RULES:
            raise Conflict("too_many_balance_rules", f"an account has at most {MOST_RULES} balance rules; remove one")
        now = context.sources.clock()
        rule = BalanceRule(
            id=context.sources.id_at("rul", now),
            party_no=owner.no,
            below=below,
            chain=chain,
            asset=text,
            amount=None if chain is None else amount,
            fired=False,
            times=0,
            fired_at=None,
            intent_id=None,
            created_at=now,
        )
        await storage.add(connection, rule)
        return rule

    return await context.database.run(use_case)


async def listed(context: Context, owner: Party) -> list[BalanceRule]:
    """An account's rules, oldest first."""
    async with context.database.read() as connection:
        return await storage.listed(connection, owner.no)


async def remove(context: Context, owner: Party, rule_id: str) -> None:
    """Remove a rule. Raises NotFound ``unknown_balance_rule``."""

    async def use_case(connection: Connection) -> None:
        await storage.remove(connection, owner.no, rule_id)

    await context.database.run(use_case)


async def watch(context: Context) -> int:
    """Arm rules whose balance has recovered, and set off those whose balance is below their mark; how many fired."""

    async def use_case(connection: Connection) -> int:
        await storage.recover(connection)
        found = await storage.due(connection, TOGETHER)
        for rule, available in found:
            await _fire(context, connection, rule, available)
        return len(found)

    return await context.database.run(use_case)


async def _fire(context: Context, connection: Connection, rule: BalanceRule, available: int) -> None:
    """Record it, tell of it, and ask for the payment with a fresh reference, all in one commit."""
    await events.balance_low(context, connection, rule, available)
    intent = None
    if rule.chain is not None and rule.asset is not None:
        owner = await parties.by_number(connection, rule.party_no)
        try:
            made = await funding.make_intent(
                context, connection, owner, chain=rule.chain, asset=rule.asset, amount=rule.amount
            )
        except NotFound:  # the chain or the asset is not served any more: what is low is told all the same
            made = None
        if made is not None:
            intent = made.id
            await _ask(context, connection, rule, made)
    await storage.fire(connection, rule.id, context.sources.clock(), intent)


async def _ask(context: Context, connection: Connection, rule: BalanceRule, intent: Intent) -> None:
    """Tell of the payment that is asked for; whether it is made is the payer's affair."""
    adapter, asset = funding.accepted(context, intent.chain, intent.asset)
    data = {
        "rule": rule.id,
        "intent": intent.id,
        "chain": intent.chain,
        "asset": intent.asset,
        "amount": decimal_text(intent.amount or 0, adapter.facts.assets[asset]),
        "address": adapter.treasury,
        "reference": str(intent.reference),
    }
    await events.tell(context, connection, rule.party_no, "topup.requested", f"{rule.id}/{rule.times + 1}", data)
