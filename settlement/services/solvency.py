"""Whether the books and the chain agree, and whether what is owed is covered (RELIABILITY I12, I13)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from settlement.chain import Holdings, Unreachable
from settlement.core.errors import NotFound, Unavailable
from settlement.core.journal import CU
from settlement.core.policy import Policy
from settlement.core.states import IN_FLIGHT
from settlement.services.context import Context
from settlement.services.funding import read_deposits
from settlement.storage import accounts, chain_orders, funding, governance, halts
from settlement.storage.accounts import Account, system_account
from settlement.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Coverage:
    """Everything owed and everything held, in microCU at today's value, assets rounded down. `short` names an asset of
    which less is held than sits in suspense."""

    owed: int
    held: int
    short: str | None

    @property
    def covered(self) -> bool:
        """Whether every claim could be paid now."""
        return self.short is None and self.held >= self.owed


async def reconcile_holdings(context: Context, chain_name: str) -> Holdings | None:
    """Compare the chain's holdings with the books, and what is owed with what is held; halts when either is wrong.

    Takes place only at a moment when nothing is out, and says None when there is none now: something is in flight, a
    node lags, or deposits can't be read. Halts: ``holdings_mismatch``, ``assets_below_liabilities``.
    """
    before = await _still(context, chain_name)
    if before is None:
        return None
    try:
        holdings = await context.chains[chain_name].holdings()
        await read_deposits(context, chain_name)
    except (Unreachable, Unavailable):
        return None
    if await _still(context, chain_name) != before:
        return None

    async def use_case(connection: Connection) -> bool:
        state = await funding.state(connection, chain_name)
        newest = await chain_orders.newest_ledger(connection, chain_name)
        if state is None or not newest <= holdings.at.number <= state.tip:
            return False
        later = await funding.received_after(connection, chain_name, holdings.at.number)
        now = context.sources.clock()
        for asset, amount in sorted(holdings.amounts.items(), key=lambda pair: pair[0].text):
            treasury = await accounts.get(connection, system_account("treasury", chain_name, asset.text))
            booked = -treasury.settled - later.get(asset.text, 0)
            if booked != amount:
                detail = f"{chain_name}: {amount} of {asset.text} in ledger {holdings.at.number}, {booked} in the books"
                await halts.add(connection, "holdings_mismatch", detail, now)
        found = await coverage(context, connection)
        if not found.covered:
            what = (
                f"less {found.short} than in suspense"
                if found.short
                else f"owed {found.owed}, held {found.held} microCU"
            )
            await halts.add(connection, "assets_below_liabilities", what, now)
        return True

    return holdings if await context.database.run(use_case) else None


async def _still(context: Context, chain_name: str) -> int | None:
    """The newest event of all orders, None while an order of this chain is out or contested."""
    async with context.database.read() as connection:
        if await chain_orders.in_states(connection, chain_name, (*IN_FLIGHT, "contested")):
            return None
        return await chain_orders.last_event(connection)


async def coverage(context: Context, connection: Connection) -> Coverage:
    """By the books, over all configured chains; an asset without a value, or of a chain that isn't configured, counts
    as nothing."""
    owed = sum(each.settled for each in await accounts.of_kinds(connection, "consumer", "provider", "transit"))
    treasury = await accounts.of_kinds(connection, "treasury")
    suspense = {each.asset: each.settled for each in await accounts.of_kinds(connection, "suspense")}
    try:
        policy = await governance.policy_at(connection, context.sources.clock())
    except NotFound:
        return Coverage(owed, 0, None)
    held, short = Fraction(0), None
    for each in treasury:
        ours = -each.settled - suspense.get(each.asset, 0)
        if ours < 0:
            short = each.asset
        held += ours * _worth(context, policy, each)
    return Coverage(owed, held.numerator // held.denominator, short)


def _worth(context: Context, policy: Policy, account: Account) -> Fraction:
    chain, _, text = account.asset.partition("/")
    if account.asset == CU or chain not in context.chains:
        return Fraction(0)
    for asset, decimals in context.chains[chain].facts.assets.items():
        if asset.text == text:
            return policy.micro_per_unit(asset.code, decimals) or Fraction(0)
    return Fraction(0)
