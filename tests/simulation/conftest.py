"""Databases by the handful: several simulations run side by side, each on its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url


@pytest.fixture
def new_database(server_url: str, template: str) -> Iterator[Callable[[], str]]:
    """Makes a fresh migrated database and returns its URL; all are dropped after the test."""
    plain = make_url(server_url).set(drivername="postgresql").render_as_string(hide_password=False)
    made: list[str] = []

    def make() -> str:
        name = f"simulation_{uuid.uuid4().hex}"
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
        made.append(name)
        return make_url(server_url).set(database=name).render_as_string(hide_password=False)

    yield make
    with psycopg.connect(plain, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
