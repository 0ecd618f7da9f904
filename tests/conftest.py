"""Fixtures: a real PostgreSQL for the session, a fresh migrated database for each test, a clock that tests set."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from sqlalchemy.engine import make_url

from settlement.services.context import Context
from settlement.storage import schema
from settlement.storage.database import Database
from settlement.storage.embedded import EmbeddedServer
from tests.world import SeededSources, World, new_world

TEMPLATE = "settlement_template"
IN_MEMORY = Path("/dev/shm")
ROOM = 6 * 2**30
"""The bytes that must be free there: some databases, and what PostgreSQL keeps to replay."""

pytest_plugins = ["tests.house.sockets"]

settings.register_profile("tests", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("tests")


def _write_to_memory() -> None:
    """Databases of tests live in memory where there is room: making and dropping one costs a disk fifty times as much.

    Nothing is proven by a disk here: PostgreSQL syncs as it does everywhere, and what is killed is a process.
    """
    if "TMPDIR" not in os.environ and IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ["TMPDIR"] = str(IN_MEMORY)
        tempfile.tempdir = None  # it is asked for again


_write_to_memory()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and what they start


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The server to make test databases on: the one configured, or an embedded one of this session."""
    configured = os.environ.get("SETTLEMENT_DATABASE_URL")
    if configured:
        yield configured
        return
    with tempfile.TemporaryDirectory(prefix="settlement-tests-") as folder:
        Path(folder).chmod(0o711)  # as root, PostgreSQL runs as another user, who must get through to its own folder
        server = EmbeddedServer.attach(Path(folder) / "postgres")
        try:
            yield server.url("postgres")
        finally:
            server.close(wait=True)


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a database that the real migrations have built."""
    name = f"{TEMPLATE}_{uuid.uuid4().hex[:8]}"
    _administer(server_url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    schema.upgrade(_named(server_url, name))
    yield name
    _administer(server_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(server_url: str, template: str) -> Iterator[str]:
    """A fresh migrated database."""
    name = f"test_{uuid.uuid4().hex}"
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    _administer(server_url, copy.format(sql.Identifier(name), sql.Identifier(template)))
    yield _named(server_url, name)
    _administer(server_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The production database class on a fresh database."""
    found = Database(database_url)
    yield found
    await found.close()


@pytest.fixture
def sources() -> SeededSources:
    """Seeded randomness and a clock that stands still until a test moves it."""
    return SeededSources()


@pytest.fixture
async def world(database: Database, sources: SeededSources, tmp_path: Path) -> AsyncIterator[World]:
    """A founded installation with a simulated chain, and builders for everything that happens in it."""
    made = await new_world(database, sources, tmp_path)
    yield made
    for adapter in made.context.chains.values():
        await adapter.close()


@pytest.fixture
def context(world: World) -> Context:
    """The context of `world`."""
    return world.context


@pytest.fixture
def anyio_backend() -> str:
    """asyncio only: psycopg and uvicorn run on it."""
    return "asyncio"


def _named(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def _administer(url: str, statement: sql.Composed) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)
