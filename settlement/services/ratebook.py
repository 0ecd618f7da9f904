"""The rate tables as this process knows them, compiled once for each version.

A process keeps them between requests; every request asks the database for the newest version in the same statement that
finds its key, so a table that was published a moment ago is in force here as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from settlement.core import rates
from settlement.core.assessment import RateBook
from settlement.services.context import Context
from settlement.storage import governance
from settlement.storage.database import Connection, Database


@dataclass(frozen=True, slots=True)
class KnownRates:
    """All rate tables up to version `newest`, and the row numbers of the names that they rate."""

    newest: int
    rates: RateBook
    model_numbers: Mapping[str, int]


_known: WeakKeyDictionary[Database, KnownRates] = WeakKeyDictionary()


async def latest(context: Context) -> KnownRates:
    """The rate tables that this process knows; whether there is a newer one is asked when a report is taken in."""
    known = _known.get(context.database)
    if known is not None:
        return known
    async with context.database.read() as connection:
        tables = await governance.rate_tables(connection)
        return await current(context, connection, tables[-1].version if tables else 0)


async def current(context: Context, connection: Connection, newest: int) -> KnownRates:
    """The rate tables, read again only when `newest` is a version that this process hasn't seen."""
    known = _known.get(context.database)
    if known is None or known.newest != newest:
        tables = [rates.parse(signed.document) for signed in await governance.rate_tables(connection)]
        known = KnownRates(newest, RateBook(tables), await governance.model_numbers(connection))
        _known[context.database] = known
    return known
