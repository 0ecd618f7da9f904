"""Restarts, refusals and rights, against a real server that really deadlocks, ends sessions and forgets to fsync."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InternalError, ProgrammingError

from settlement.core.errors import Broken, Unavailable
from settlement.storage.binaries import Account, find, runnable_by
from settlement.storage.database import RESTARTS, SERVICE_ROLE, Connection, Database, Restart, raw_cursor
from settlement.storage.embedded import EmbeddedServer

pytestmark = [pytest.mark.anyio, pytest.mark.database]

TWO = "INSERT INTO account (id, kind, asset, overdraft) VALUES ('a', 'equity', 'CU', true), ('b', 'equity', 'CU', true)"


def failing(code: str) -> str:
    """SQL that fails with this SQLSTATE."""
    return f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{code}'; END $$"


async def add(connection: Connection, account: str, amount: int) -> None:
    """Change one balance."""
    await connection.execute(
        text("UPDATE account SET settled = settled + :amount WHERE id = :id"), {"amount": amount, "id": account}
    )


async def balances(database: Database) -> list[int]:
    """Both balances."""
    async with database.read() as connection:
        return list((await connection.execute(text("SELECT settled FROM account ORDER BY id"))).scalars())


async def test_begin_commits_or_rolls_back(database: Database) -> None:
    """All of a block or nothing of it."""
    async with database.begin() as connection:
        await connection.execute(text(TWO))
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as connection:
            await add(connection, "a", 5)
            raise ZeroDivisionError
    assert await balances(database) == [0, 0]


async def test_deadlock_restarts_and_both_succeed(database: Database) -> None:
    """Two use cases that lock in opposite order: PostgreSQL ends one with 40P01, and it runs again."""
    async with database.begin() as connection:
        await connection.execute(text(TWO))
    turns: list[str] = []
    both = asyncio.Barrier(2)

    async def crossing(first: str, second: str) -> None:
        async def use_case(connection: Connection) -> None:
            again = first in turns
            turns.append(first)
            await add(connection, first, 1)
            if not again:
                await both.wait()
            await add(connection, second, 1)

        await database.run(use_case)

    await asyncio.gather(crossing("a", "b"), crossing("b", "a"))
    assert len(turns) == 3
    assert await balances(database) == [2, 2]


async def test_serialisation_failure_restarts(database: Database) -> None:
    """A snapshot that another commit overtook: 40001, then a second turn sees the other's change."""
    async with database.begin() as connection:
        await connection.execute(text(TWO))
    seen: list[int] = []

    async def use_case(connection: Connection) -> int:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        found: int = (await connection.execute(text("SELECT settled FROM account WHERE id = 'a'"))).scalar_one()
        seen.append(found)
        if len(seen) == 1:
            async with database.begin() as other:
                await add(other, "a", 7)
        await add(connection, "a", 1)
        return found

    assert await database.run(use_case) == 7
    assert seen == [0, 7]
    assert await balances(database) == [8, 0]


@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_restarts_are_bounded_and_end_as_unavailable(database: Database, code: str) -> None:
    """Never as a business refusal: the same request may succeed later."""
    turns = []

    async def use_case(connection: Connection) -> None:
        turns.append(1)
        await connection.execute(text(failing(code)))

    with pytest.raises(Unavailable) as caught:
        await database.run(use_case)
    assert isinstance(caught.value, Restart)
    assert (caught.value.code, caught.value.status) == ("database_busy", 503)
    assert len(turns) == RESTARTS


async def test_restart_by_the_raw_driver(database: Database) -> None:
    """psycopg's own errors, on the hot path's cursor, are translated alike."""
    turns = []

    async def use_case(connection: Connection) -> str:
        turns.append(1)
        async with raw_cursor(connection) as cursor:
            if len(turns) < 3:
                await cursor.execute(failing("40001").encode())
        return "done"

    assert await database.run(use_case) == "done"
    assert len(turns) == 3


@pytest.mark.parametrize("code", ["55P03", "57P01", "53300"])
async def test_temporary_conditions_are_unavailable_at_once(database: Database, code: str) -> None:
    """A lock that isn't had in time, a server that goes down, too many sessions: 503 without a restart."""
    turns = []

    async def use_case(connection: Connection) -> None:
        turns.append(1)
        await connection.execute(text(failing(code)))

    with pytest.raises(Unavailable) as caught:
        await database.run(use_case)
    assert caught.value.code == "database_unavailable"
    assert len(turns) == 1


async def test_lost_session_is_unavailable(database: Database) -> None:
    """The administrator ends the session in the middle of a use case."""
    with pytest.raises(Unavailable, match="database_unavailable"):
        async with database.begin() as connection:
            me = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            async with database.begin() as other:
                await other.execute(text("RESET ROLE"))
                await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": me})
            await connection.execute(text("SELECT 1"))


async def test_absent_server_is_unavailable(tmp_path: Path) -> None:
    """Nobody listens at that socket."""
    absent = Database(f"postgresql+psycopg://postgres@/x?host={tmp_path}")
    with pytest.raises(Unavailable, match="database_unavailable"):
        async with absent.begin():
            pass
    with pytest.raises(Unavailable, match="database_unavailable"):
        await absent.check_durability()
    await absent.close()


async def test_constraints_are_neither_hidden_nor_restarted(database: Database) -> None:
    """A broken constraint is for the caller to explain."""
    turns = []

    async def use_case(connection: Connection) -> None:
        turns.append(1)
        await connection.execute(text(TWO))
        await connection.execute(text(TWO))

    with pytest.raises(IntegrityError):
        await database.run(use_case)
    assert len(turns) == 1


async def test_works_as_the_service_role_in_utc(database: Database) -> None:
    """Without the right to change what is append-only, from the first statement of each session."""
    async with database.begin() as connection:
        assert (await connection.execute(text("SELECT current_user"))).scalar_one() == SERVICE_ROLE
        assert (await connection.execute(text("SHOW timezone"))).scalar_one() == "UTC"
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with database.begin() as connection:
            await connection.execute(text("DELETE FROM posting"))


async def test_role_outlives_a_rollback(database: Database) -> None:
    """SET ROLE is the session's; a rolled back transaction on a pooled connection doesn't undo it."""
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as connection:
            raise ZeroDivisionError
    async with database.begin() as connection:
        assert (await connection.execute(text("SELECT current_user"))).scalar_one() == SERVICE_ROLE


async def test_read_is_one_snapshot_that_cannot_write(database: Database) -> None:
    """What others commit meanwhile isn't seen, and nothing can be changed."""
    async with database.begin() as connection:
        await connection.execute(text(TWO))
    count = text("SELECT sum(settled) FROM account")
    async with database.read() as connection:
        assert (await connection.execute(count)).scalar_one() == 0
        async with database.begin() as other:
            await add(other, "a", 3)
        assert (await connection.execute(count)).scalar_one() == 0
    assert await balances(database) == [3, 0]
    with pytest.raises(InternalError, match="read-only"):
        async with database.read() as connection:
            await add(connection, "a", 1)


async def test_reading_leaves_what_the_driver_has_prepared(database: Database) -> None:
    """A snapshot that ended by a rollback would make it forget, and all be planned again."""
    for _ in range(7):
        async with database.read() as connection, raw_cursor(connection) as cursor:
            await cursor.execute("SELECT 'hot'")
    async with database.begin() as connection:
        kept = text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%hot%'")
        assert (await connection.execute(kept)).scalar_one() == 1


async def test_durable_server_passes(database: Database) -> None:
    """The embedded one, and any that is set up as it should be."""
    await database.check_durability()


async def test_synchronous_commit_off_is_refused(database: Database) -> None:
    """Set for this database by an administrator."""
    async with database.begin() as connection:
        name = (await connection.execute(text("SELECT current_database()"))).scalar_one()
        await connection.execute(text("RESET ROLE"))
        await connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
        await connection.execute(text(f"SET ROLE {SERVICE_ROLE}"))
    await database.engine.dispose()
    with pytest.raises(Broken, match="synchronous_commit=off") as caught:
        await database.check_durability()
    assert caught.value.code == "database_unsafe"


@pytest.fixture
def careless_server() -> Iterator[str]:
    """The URL of a server that somebody started with fsync=off on a cluster of ours."""
    with tempfile.TemporaryDirectory(prefix="settlement-careless-") as folder:
        Path(folder).chmod(0o711)  # see tests/conftest.py
        home = Path(folder) / "postgres"
        EmbeddedServer.attach(home).close(wait=True)
        data = home / "pgdata"
        version = int((data / "PG_VERSION").read_text())
        owner = data.stat()
        found = find(None, version)
        options = [f"-cunix_socket_directories={home}", "-clisten_addresses=", "-cfsync=off", "-cport=5432"]
        user = group = extra = None
        if os.geteuid() == 0:
            found = runnable_by(found, Account("owner", owner.st_uid, owner.st_gid), home)
            user, group, extra = owner.st_uid, owner.st_gid, list[int]()
        server = subprocess.Popen(
            [found.directory / "postgres", "-D", data, *options],
            cwd="/",
            stderr=subprocess.DEVNULL,
            user=user,
            group=group,
            extra_groups=extra,
        )
        try:
            for _ in range(300):
                try:
                    psycopg.connect(host=str(home), user="postgres", dbname="postgres").close()
                    break
                except psycopg.OperationalError:
                    time.sleep(0.1)
            yield f"postgresql+psycopg://postgres@/postgres?host={home}&port=5432"
        finally:
            server.terminate()
            server.wait()


async def test_fsync_off_is_refused(careless_server: str) -> None:
    """Such a server forgets, at a power cut, what it acknowledged."""
    database = Database(careless_server)
    with pytest.raises(Broken, match="fsync=off") as caught:
        await database.check_durability()
    assert caught.value.code == "database_unsafe"
    await database.close()
