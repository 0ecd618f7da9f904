"""The database as the rest of storage sees it: one engine, short transactions, and a refusal to run unsafely.

Every use case is one transaction (decision 5). A serialisation failure or a deadlock restarts the use case a bounded
number of times and then ends as Unavailable, never as a business refusal (RELIABILITY N15).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from settlement.core.errors import Broken, Unavailable

Result = TypeVar("Result")

SERVICE_ROLE = "settlement_service"
RESTARTS = 5
_RESTARTABLE = {"40001", "40P01"}
_TEMPORARY = {"55P03", "57P01", "57P02", "57P03", "53300", "08006", "08001", "08003", "08004"}

Connection = AsyncConnection
Cursor = psycopg.AsyncCursor[Any]


class Database:
    """Connections to one PostgreSQL database, 15 or newer."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.engine: AsyncEngine = create_async_engine(
            url, pool_size=pool_size, max_overflow=8, pool_timeout=20, pool_pre_ping=False, pool_use_lifo=True
        )
        event.listen(self.engine.sync_engine, "connect", _as_service)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """One transaction: committed at the end of the block, rolled back when it raises."""
        try:
            async with self.engine.begin() as connection:
                yield connection
        except (DBAPIError, psycopg.Error) as error:
            raise _translated(error) from error

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """One consistent snapshot for reading."""
        try:
            async with self.engine.connect() as connection:
                await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                # Committed, because a rollback makes the driver forget all statements that it has prepared.
                async with connection.begin():
                    yield connection
        except (DBAPIError, psycopg.Error) as error:
            raise _translated(error) from error

    async def run(self, use_case: Callable[[Connection], Awaitable[Result]]) -> Result:
        """`use_case` in one transaction, restarted when the database asks for it (40001, 40P01)."""
        for turn in range(RESTARTS):
            try:
                async with self.begin() as connection:
                    return await use_case(connection)
            except Restart:
                if turn == RESTARTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def check_durability(self) -> None:
        """Refuses a server that may lose what it acknowledged.

        Raises Broken ``database_unsafe`` or ``database_too_old``, Unavailable when it does not answer.
        """
        async with self.begin() as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                value = (await connection.execute(text(f"SHOW {setting}"))).scalar_one()
                if value == "off":
                    raise Broken("database_unsafe", f"PostgreSQL runs with {setting}=off; money needs it on")
            version = int((await connection.execute(text("SHOW server_version_num"))).scalar_one())
            if version < 150000:
                raise Broken("database_too_old", f"PostgreSQL 15 or newer is needed, this is {version}")

    async def checksums(self) -> bool:
        """Whether the server would notice a page that rotted on its disk."""
        async with self.read() as connection:
            return bool((await connection.execute(text("SHOW data_checksums"))).scalar_one() == "on")

    async def close(self) -> None:
        """Give all connections back."""
        await self.engine.dispose()


class Restart(Unavailable):
    """The database asked for the transaction to be run again."""


async def driver(connection: Connection) -> psycopg.AsyncConnection[Any]:
    """psycopg's own connection on the same transaction: for COPY, pipelines and the statements of the hot path."""
    raw = await connection.get_raw_connection()
    found: psycopg.AsyncConnection[Any] | None = raw.driver_connection
    assert found is not None, "a checked-out connection has its driver's"
    return found


@asynccontextmanager
async def raw_cursor(connection: Connection) -> AsyncIterator[Cursor]:
    """psycopg's own binary cursor on the same transaction."""
    async with (await driver(connection)).cursor(binary=True) as cursor:
        yield cursor


def array(values: Iterable[int]) -> str:
    """Integers as the text of a PostgreSQL array: ten times quicker to make than the driver's own form."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str]) -> str:
    """Texts as the text of a PostgreSQL array."""
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def _as_service(connection: Any, _record: Any) -> None:
    """Work as the service role, which has no right to change what is append-only."""
    cursor = connection.cursor()
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (SERVICE_ROLE,))
    if cursor.fetchone():
        cursor.execute(f"SET ROLE {SERVICE_ROLE}")
    cursor.execute("SET timezone TO 'UTC'")
    cursor.execute("SET random_page_cost TO 1.1")  # hot tables are in memory; at 4, small ones are read from end to end
    cursor.close()
    connection.commit()


def _translated(error: DBAPIError | psycopg.Error) -> Exception:
    original = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    if state in _RESTARTABLE:
        return Restart("database_busy", "too many changes of the same rows at once; send the request again")
    if state in _TEMPORARY or (isinstance(original, psycopg.OperationalError) and state is None):
        return Unavailable("database_unavailable", "the database does not answer; send the request again later")
    return error
