"""Migrating: again is nothing, and several processes at once are one."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy.engine import make_url

from settlement.storage import schema
from settlement.storage.tables import metadata

pytestmark = pytest.mark.database


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """A database without a single table."""
    plain = make_url(server_url).set(drivername="postgresql").render_as_string(hide_password=False)
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def rows(url: str, query: str) -> list[str]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        return [row[0] for row in connection.execute(query.encode()).fetchall()]


def test_many_processes_migrate_an_empty_database_once(empty_url: str) -> None:
    code = "import sys; from settlement.storage import schema; schema.upgrade(sys.argv[1])"
    running = [subprocess.Popen([sys.executable, "-c", code, empty_url]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    tables = rows(empty_url, "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'")
    assert set(tables) == {*metadata.tables, "alembic_version"}
    assert len(rows(empty_url, "SELECT version_num FROM alembic_version")) == 1


def test_migrating_again_keeps_what_is_there(database_url: str) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        connection.execute("INSERT INTO account (id, kind, asset, overdraft) VALUES ('a', 'equity', 'CU', true)")
    before = rows(database_url, "SELECT version_num FROM alembic_version")
    schema.upgrade(database_url)
    assert rows(database_url, "SELECT version_num FROM alembic_version") == before
    assert rows(database_url, "SELECT id FROM account") == ["a"]


def test_a_database_that_is_not_there_is_an_error(server_url: str) -> None:
    missing = make_url(server_url).set(database="nobody_made_this").render_as_string(hide_password=False)
    with pytest.raises(Exception, match="nobody_made_this"):
        schema.upgrade(missing)
