"""Quotes by the rate table in force, at par. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from settlement.core import quotes
from settlement.core.holds import Ask
from settlement.core.quotes import Quote
from settlement.services import pricing, ratebook
from settlement.services.context import Context
from settlement.storage import governance


@dataclass(frozen=True, slots=True)
class Asked:
    """What a quote is asked for. `input_bytes` stands for input tokens."""

    model: str
    tier: str
    meters: Mapping[str, int]
    input_bytes: int | None
    expected_output: int | None
    ask: Ask


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote, the model that its name stands for, its tier, and the version of the rate table."""

    model: str
    tier: str
    rates: int
    quote: Quote


async def quote(context: Context, asked: Asked) -> Quoted:
    """What the call is expected to cost. Raises Malformed for what the rate table in force does not price."""
    now = context.sources.clock()
    async with context.database.read() as connection:
        book = await ratebook.current(context, connection, await governance.newest_rates(connection))
    table = pricing.table_at(book, now)
    few, many = (
        quotes.estimated(asked.meters, asked.input_bytes, size)
        for size in (quotes.BYTES_PER_TOKEN, quotes.FEWEST_BYTES)
    )
    expected = pricing.terms(book, table.version, asked.model, asked.tier, few, (), at=now)
    dearest = pricing.terms(book, table.version, asked.model, asked.tier, many, ())
    found = quotes.quote(expected, dearest, asked.ask, asked.expected_output)
    return Quoted(dearest.model, asked.tier, table.version, found)
