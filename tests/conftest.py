"""Fixtures: a real PostgreSQL for the session, a fresh migrated database for each test, a clock that tests set."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from settlement.services.context import Context
from settlement.storage import schema
from settlement.storage.database import Database
from settlement.storage.embedded import EmbeddedServer
from tests.client.market import Market
from tests.client.town import Town
from tests.moulds import Moulds, copied, dropped, named, wanted
from tests.world import SeededSources, World

TEMPLATE = "settlement_template"
IN_MEMORY = Path("/dev/shm")
ROOM = 6 * 2**30
"""The bytes that must be free there: some databases, and what PostgreSQL keeps to replay."""

LONG = ("adapters/test_simulated.py", "demo/", "docs/", "independent/", "simulation/")
"""Where tests take longest: they are begun first, since one of them at the very end leaves the other workers idle."""

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


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not look through all of it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; otherwise the order stays."""
    here = Path(__file__).parent
    items.sort(key=lambda item: not item.path.relative_to(here).as_posix().startswith(LONG))


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
    copied(server_url, "template1", name)
    schema.upgrade(named(server_url, name))
    yield name
    dropped(server_url, name)


@pytest.fixture(scope="session")
def moulds(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moulds]:
    """What tests begin with, built once."""
    found = Moulds(server_url, template, tmp_path_factory.mktemp("moulds"))
    yield found
    found.drop()


@pytest.fixture
def database_url(server_url: str, template: str, moulds: Moulds, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh migrated database: empty, or with what the fixtures of the test begin with."""
    name, mould = f"test_{uuid.uuid4().hex}", wanted(request.fixturenames)
    copied(server_url, moulds[mould].database if mould else template, name)
    yield named(server_url, name)
    dropped(server_url, name)


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
async def world(
    database: Database, sources: SeededSources, tmp_path: Path, moulds: Moulds, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    """A founded installation with a simulated chain, and builders for everything that happens in it."""
    mould = wanted(request.fixturenames)
    assert mould is not None, "this fixture is one"
    made = moulds[mould].cast(database, sources, tmp_path)
    yield made
    for adapter in made.context.chains.values():
        await adapter.close()


@pytest.fixture
def town(world: World, moulds: Moulds) -> Town:
    """The town with two settled windows, in `world`."""
    found: Town = moulds["town"].again(world)
    return found


@pytest.fixture
def village(world: World, moulds: Moulds) -> Town:
    """The town with one settled window, in `world`."""
    found: Town = moulds["village"].again(world)
    return found


@pytest.fixture
def market(world: World, moulds: Moulds) -> Market:
    """The market that follows the index, in `world`."""
    found: Market = moulds["market"].again(world)
    return found


@pytest.fixture
def town_export(moulds: Moulds) -> list[bytes]:
    """The export of the town, for tests that read nothing else."""
    return [*moulds["town"].export]


@pytest.fixture
def market_export(moulds: Moulds) -> list[bytes]:
    """The export of the market, for tests that read nothing else."""
    return [*moulds["market"].export]


@pytest.fixture
def context(world: World) -> Context:
    """The context of `world`."""
    return world.context


@pytest.fixture
def anyio_backend() -> str:
    """asyncio only: psycopg and uvicorn run on it."""
    return "asyncio"
