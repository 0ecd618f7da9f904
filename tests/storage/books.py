"""What storage tests share: small entries, and damage done as the owner with the guards off."""

from __future__ import annotations

import psycopg
from sqlalchemy.engine import make_url

from settlement.core.journal import Entry, Head, Posting
from settlement.storage import accounts, journal, windows
from settlement.storage.database import Connection
from tests.world import START, World


async def entry(connection: Connection, subject: str, *legs: tuple[str, int]) -> Head:
    """Append a deposit entry with these CU legs to the open window."""
    postings = tuple(Posting(account, "CU", amount) for account, amount in legs)
    number = await windows.enter(connection)
    return await journal.append(connection, Entry("deposit", subject, number, START, postings))


async def balance(world: World, account: str) -> int:
    """The settled balance of an account."""
    async with world.context.database.read() as connection:
        return (await accounts.get(connection, account)).settled


def damage(database_url: str, *statements: str) -> None:
    """Change what the service itself can't."""
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as owner:
        owner.execute("SET session_replication_role = replica")
        for statement in statements:
            owner.execute(statement.encode())
