"""Quotes by the rate table in force, at par or at what a provider asks. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from settlement.core import quotes
from settlement.core.demand import as_multipliers
from settlement.core.errors import NotFound
from settlement.core.holds import Ask
from settlement.core.offers import Offers
from settlement.core.quotes import Quote
from settlement.services import demand, offers, pricing, ratebook
from settlement.services.context import Context
from settlement.storage import governance, parties
from settlement.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Asked:
    """What a quote is asked for. `input_bytes` stands for input tokens; without `provider` it is at par."""

    model: str
    tier: str
    meters: Mapping[str, int]
    input_bytes: int | None
    expected_output: int | None
    ask: Ask
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote, the model that its name stands for, its tier, the version of the rate table, and the multiplier of
    demand in ten-thousandths."""

    model: str
    tier: str
    rates: int
    demand: int
    quote: Quote


async def quote(context: Context, asked: Asked) -> Quoted:
    """What the call is expected to cost.

    Raises Malformed for what the rate table in force does not price, ``context_exceeded`` or ``hold_out_of_bounds``,
    NotFound ``unknown_party`` for who is no provider.
    """
    now = context.sources.clock()
    async with context.database.read() as connection:
        book = await ratebook.current(context, connection, await governance.newest_rates(connection))
        policy = await governance.policy_at(connection, now)
        rules = policy.holds
        busy = await demand.quoted(context, connection, policy, asked.provider, now)
        known = await _offers(context, connection, asked.provider)
    table = pricing.table_at(book, now)
    model = table.resolve(asked.model) or asked.model
    multipliers = (*known.multipliers(model, asked.tier, now), *as_multipliers(busy))
    few, many = (
        quotes.estimated(asked.meters, asked.input_bytes, size)
        for size in (quotes.BYTES_PER_TOKEN, quotes.FEWEST_BYTES)
    )
    expected = pricing.terms(book, table.version, asked.model, asked.tier, few, multipliers, at=now)
    dearest = pricing.terms(book, table.version, asked.model, asked.tier, many, multipliers)
    ask = pricing.within(rules, asked.ask)
    ask = replace(ask, max_output_tokens=pricing.most_output(table, model, few, ask.max_output_tokens))
    found = quotes.quote(expected, dearest, ask, asked.expected_output, rules)
    return Quoted(dearest.model, asked.tier, table.version, busy, found)


async def _offers(context: Context, connection: Connection, provider: str | None) -> Offers:
    if provider is None:
        return Offers()
    if (await parties.get(connection, provider)).kind != "provider":
        raise NotFound("unknown_party", f"there is no provider {provider}")
    return (await offers.current(context, connection, provider)).offers
