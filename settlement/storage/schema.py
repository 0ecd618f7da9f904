"""Bringing a database to the newest migration, and its audit views to the invariants of this program."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from settlement.storage import invariants

VIEWS = 0x5E7717
"""Advisory lock: making the views of schema `audit`."""


def upgrade(url: str) -> None:
    """Run every migration that the database at `url` has not seen. Safe to call from several processes at once."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(_folder()))
            config.attributes["connection"] = connection
            head = ScriptDirectory.from_config(config).get_current_head()
            if MigrationContext.configure(connection).get_current_revision() != head:
                connection.rollback()
                _without_views(connection)  # a table that a view reads can't change
                command.upgrade(config, "head")
            connection.rollback()
            _with_views(connection)
    finally:
        engine.dispose()


def _without_views(connection: Connection) -> None:
    with connection.begin():
        _lock(connection)
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS audit CASCADE")


def _with_views(connection: Connection) -> None:
    """The invariants as views, made anew when they are not those of this program."""
    with connection.begin():
        _lock(connection)
        if connection.exec_driver_sql(invariants.VIEWS_ON_FILE).scalar_one_or_none() != invariants.views_digest():
            connection.exec_driver_sql(invariants.views().replace("%", "%%"))


def _lock(connection: Connection) -> None:
    """One process at a time changes views."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({VIEWS})")


def _folder() -> Path:
    spec = find_spec("migrations")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package `migrations` is not installed beside `settlement`")
    return Path(next(iter(spec.submodule_search_locations)))
