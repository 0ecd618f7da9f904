"""Moulds: what many tests begin with, brought about once by each process of a run and copied for each test.

A copy is what building anew would have made, to the byte: rows and files are copied, and clock and entropy go on from
where they stood. A test asks for one by its fixture: `world`, `app`, `village`, `town` or `market`.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Awaitable, Callable, Collection
from copy import copy
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from settlement.core.signatures import SigningKey
from settlement.services import funding
from settlement.services.context import Context
from settlement.storage.database import Database
from tests.client import market, town
from tests.world import Member, SeededSources, World, new_world, open_chain


async def _nothing(_: World) -> None:
    """A world is founded, and that is all."""


async def _opened(world: World) -> None:
    await funding.open_chain(world.context, town.CHAIN)


async def _village(world: World) -> town.Town:
    return await town.build(world, rounds=1)


BUILDERS: dict[str, Callable[[World], Awaitable[Any]]] = {
    "market": market.build,
    "town": town.build,
    "village": _village,
    "app": _opened,
    "world": _nothing,
}
"""By fixture; who asks for several gets the first."""


def wanted(fixtures: Collection[str]) -> str | None:
    """The mould that a test with these fixtures begins with; None for an empty database."""
    return next((name for name in BUILDERS if name in fixtures), None)


@dataclass(frozen=True)
class Mould:
    """What stands in `database` and in the files of `folder`, and how far clock and entropy had come."""

    database: str
    folder: Path
    key: SigningKey
    now: datetime
    drawn: int
    made: Any
    export: tuple[bytes, ...]

    def cast(self, database: Database, sources: SeededSources, folder: Path) -> World:
        """The world over a copy of the database, which the caller made."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        sources.settable.now = self.now
        sources.seeded.drawn += self.drawn
        chain = open_chain(sources, folder)
        return World(Context(database, sources, self.key, {"simulated": chain}), sources, chain)

    def again(self, world: World) -> Any:
        """What the builder returned, in another world."""
        return replace(
            self.made, **{each.name: _fresh(getattr(self.made, each.name), world) for each in fields(self.made)}
        )


class Moulds:
    """Those of one process, each built when the first test asks for it."""

    def __init__(self, server_url: str, template: str, folder: Path) -> None:
        self._server_url = server_url
        self._template = template
        self._folder = folder
        self._found: dict[str, Mould] = {}

    def __getitem__(self, name: str) -> Mould:
        if name not in self._found:
            database = f"mould_{name}_{uuid.uuid4().hex[:8]}"
            copied(self._server_url, self._template, database)
            self._found[name] = asyncio.run(self._build(name, database))
        return self._found[name]

    async def _build(self, name: str, database: str) -> Mould:
        folder = self._folder / name
        folder.mkdir()
        sources = SeededSources()
        opened = Database(named(self._server_url, database))
        world = await new_world(opened, sources, folder)
        made = await BUILDERS[name](world)
        export = await town.exported(world.context) if made else []
        await world.chain.close()
        await opened.close()
        return Mould(database, folder, world.context.key, sources.clock(), sources.seeded.drawn, made, tuple(export))

    def drop(self) -> None:
        """Drop their databases."""
        for mould in self._found.values():
            dropped(self._server_url, mould.database)


def named(url: str, database: str) -> str:
    """The URL of another database on the same server."""
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def copied(url: str, source: str, name: str) -> None:
    """Make the database `name` as a copy of another, to which nobody is connected."""
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    _administer(url, copy.format(sql.Identifier(name), sql.Identifier(source)))


def dropped(url: str, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    _administer(url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _administer(url: str, statement: sql.Composed) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)


def _fresh(value: Any, world: World) -> Any:
    """Its own copy of whatever a test may change."""
    if isinstance(value, World):
        return world
    return replace(value, sent=[*value.sent], offers=[*value.offers]) if isinstance(value, Member) else copy(value)
