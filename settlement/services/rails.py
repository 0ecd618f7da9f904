"""One service, several rails: which chain a window pays a provider on, and giving a chain up without paying twice.

A payout is on one rail for good: its position, its checkpoint and the anchor of that state the chain. To be paid on
another one, the money first goes back to the provider's balance, in the commit that ends its order, and an order ends
here only when nothing of it can land any more: it was never signed, or every attempt is proven expired. The next window
then pays the balance on a rail that can be used. So no two chains ever carry the same money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction

from settlement.chain import Asset
from settlement.core.errors import Conflict, NotFound
from settlement.core.policy import Policy, to_micro, to_units
from settlement.core.rails import ChainRule, Choice, Condition, Rail, choose, trouble
from settlement.services import chains, outcomes
from settlement.services.context import Context
from settlement.storage import accounts, chain_orders, funding, governance, rails
from settlement.storage.accounts import system_account
from settlement.storage.database import Connection
from settlement.storage.parties import PayoutAddress
from settlement.storage.positions import Payee
from settlement.storage.rails import MadeChoice


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What giving a chain up did: payouts whose money went back, and orders that must end by themselves first."""

    payouts: int
    in_flight: int


# --- choosing ---------------------------------------------------------------------------------------------------------


async def choose_rails(
    context: Context,
    connection: Connection,
    window_no: int,
    due: Sequence[Payee],
    conversions: Mapping[tuple[str, str], Fraction],
    policy: Policy,
) -> list[Payee]:
    """Each payee on the rail that its payout of this window takes; choices between two are recorded with their reason.

    Part of the netting of a window; asks nothing of any chain.
    """
    now = context.sources.clock()
    fallbacks = await rails.fallbacks(connection, now)
    conditions: dict[str, Condition] = {}
    free: dict[tuple[str, str], int] = {}
    found = []
    for payee in due:
        second = fallbacks.get(payee.party)
        if second is None or (second.chain, second.asset) == (payee.chain, payee.asset):
            found.append(payee)
            continue
        for chain, asset in ((payee.chain, payee.asset), (second.chain, second.asset)):
            if chain not in conditions:
                conditions[chain] = await rails.condition(connection, chain)
            if (chain, asset) not in free:
                free[chain, asset] = await rails.free(connection, chain, asset)
        choice = _choice(payee, second, conditions, free, conversions, policy, now)
        free[choice.rail.chain, choice.rail.asset] -= choice.rail.due
        await rails.record(connection, window_no, payee.party, choice, now)
        found.append(replace(payee, chain=choice.rail.chain, asset=choice.rail.asset))
    return found


def _choice(
    payee: Payee,
    second: PayoutAddress,
    conditions: Mapping[str, Condition],
    free: Mapping[tuple[str, str], int],
    conversions: Mapping[tuple[str, str], Fraction],
    policy: Policy,
    now: datetime,
) -> Choice:
    def rail(chain: str, asset: str) -> Rail:
        worth = conversions.get((chain, Asset.parse(asset).text))
        enough = payee.due >= policy.rails.least(chain, policy.minimum_payout)
        units = to_units(payee.due, worth)[0] if enough and worth is not None else 0
        return Rail(chain, asset, units, free[chain, asset], conditions[chain])

    return choose(rail(payee.chain, payee.asset), rail(second.chain, second.asset), now, policy.rails)


async def choices(context: Context, window_no: int) -> list[MadeChoice]:
    """Which rails a window's payouts took, for providers that have two, and why."""
    async with context.database.read() as connection:
        return await rails.choices(connection, window_no)


FIGURES = (
    "rail_usable",
    "rail_waiting_seconds",
    "rail_held_units",
    "rail_free_units",
    "rail_free_microcu",
    "rail_float_least_microcu",
    "rail_float_most_microcu",
    "rail_fees_units",
)
SECOND = timedelta(seconds=1)


# --- health -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Float:
    """An asset of a treasury, in its units: what the books hold, what of it is free, and what fees have cost so far.

    `level` is ``low``, ``high`` or ``well`` by the policy's floats, and empty for an asset without a worth or a rule.
    """

    asset: str
    held: int
    free: int
    fees: int
    level: str
    worth: int | None
    """What is free in microCU, by the policy; None for an asset without a worth."""


@dataclass(frozen=True, slots=True)
class Health:
    """A chain as a way to pay: `trouble` is why it is not relied on now, and None while it is well."""

    chain: str
    network: str
    condition: Condition
    trouble: str | None
    in_flight: int
    minimum: int
    """microCU."""
    rule: ChainRule
    floats: tuple[Float, ...]


async def overview(context: Context) -> list[Health]:
    """Every chain of the service with its floats, from the books alone: no node is asked."""
    async with context.database.read() as connection:
        now = context.sources.clock()
        policy = await governance.policy_at(connection, now)
        return [await _health(context, connection, chain, policy, now) for chain in context.chains]


async def _health(context: Context, connection: Connection, chain: str, policy: Policy, now: datetime) -> Health:
    condition = await rails.condition(connection, chain)
    state = await funding.state(connection, chain)
    held = {each.id: -each.settled for each in await accounts.of_kinds(connection, "treasury", "fees")}
    floats = []
    for asset, decimals in context.chains[chain].facts.assets.items() if state else ():
        free = await rails.free(connection, chain, asset.text)
        rate = policy.micro_per_unit(asset.code, decimals)
        worth = None if rate is None else to_micro(max(free, 0), rate)
        treasury, fees = (held.get(system_account(kind, chain, asset.text), 0) for kind in ("treasury", "fees"))
        floats.append(Float(asset.text, treasury, free, fees, _level(policy.rails.of(chain), worth), worth))
    return Health(
        chain,
        context.chains[chain].facts.network,
        condition,
        trouble(condition, now, policy.rails),
        await rails.waiting_orders(connection, chain),
        policy.rails.least(chain, policy.minimum_payout),
        policy.rails.of(chain),
        tuple(floats),
    )


def _level(rule: ChainRule, worth: int | None) -> str:
    if worth is None or not (rule.float_least or rule.float_most):
        return ""
    if worth < rule.float_least:
        return "low"
    return "high" if rule.float_most and worth > rule.float_most else "well"


async def figures(context: Context) -> dict[str, list[tuple[str, int]]]:
    """Every chain of the service in figures for the operator's monitoring, by name and labels."""
    found: dict[str, list[tuple[str, int]]] = {name: [] for name in FIGURES}
    now = context.sources.clock()
    for each in await overview(context):
        since, rule = each.condition.waiting_since, each.rule
        found["rail_usable"].append((each.chain, int(each.trouble is None)))
        found["rail_waiting_seconds"].append((each.chain, 0 if since is None else (now - since) // SECOND))
        found["rail_float_least_microcu"].append((each.chain, rule.float_least))
        found["rail_float_most_microcu"].append((each.chain, rule.float_most))
        for one in each.floats:
            label = f"{each.chain}/{one.asset}"
            found["rail_held_units"].append((label, one.held))
            found["rail_free_units"].append((label, one.free))
            found["rail_fees_units"].append((label, one.fees))
            if one.worth is not None:
                found["rail_free_microcu"].append((label, one.worth))
    return found


# --- closing and giving up --------------------------------------------------------------------------------------------


async def close(context: Context, chain: str, reason: str) -> None:
    """From now on nothing is signed or handed over on a chain; what is out is still looked up.

    Raises NotFound ``unknown_chain``, Conflict ``rail_closed``.
    """
    _check(context, chain)

    async def use_case(connection: Connection) -> bool:
        return await rails.close(connection, chain, reason, context.sources.clock())

    if not await context.database.run(use_case):
        raise Conflict("rail_closed", f"{chain} is closed already")


async def open_again(context: Context, chain: str) -> None:
    """Use a closed chain again. Raises NotFound ``unknown_chain``, Conflict ``rail_open``."""
    _check(context, chain)

    async def use_case(connection: Connection) -> bool:
        return await rails.open_again(connection, chain)

    if not await context.database.run(use_case):
        raise Conflict("rail_open", f"{chain} is not closed")


async def give_up(context: Context, chain: str) -> GivenUp:
    """Take back what a closed chain can provably not pay any more, so that another rail may.

    Payouts without an order, and those of orders of which nothing can land, go back to their providers' balances.
    Orders of which bytes may be out stay: look them up with `chains.run_once` and call this again. Raises NotFound
    ``unknown_chain``, Conflict ``rail_open``.
    """
    _check(context, chain)
    async with context.database.read() as connection:
        reason = await rails.closed(connection, chain)
    if reason is None:
        raise Conflict("rail_open", f"{chain} is not closed: close it first, so that nothing new is signed on it")
    await chains.make_orders(context, chain)
    async with context.database.read() as connection:
        planned = await chain_orders.in_states(connection, chain, ("planned",))
    returned = 0
    for order in planned:
        if order.kind == "payout":
            returned += await outcomes.give_up(context, order, f"rail_given_up: {reason}")
    async with context.database.read() as connection:
        return GivenUp(returned, await rails.waiting_orders(connection, chain))


def _check(context: Context, chain: str) -> None:
    if chain not in context.chains:
        raise NotFound("unknown_chain", f"this service does not settle on {chain!r}")
