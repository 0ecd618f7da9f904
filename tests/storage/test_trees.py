"""The tree of usage records in rows: the same roots and paths as the plain tree, and no rewriting."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from settlement.core.errors import Broken
from settlement.core.merkle import EMPTY_ROOT, inclusion_path, leaf_hash, root_of, verify_inclusion
from settlement.core.tiles import TILE_WIDTH
from settlement.storage import trees
from settlement.storage.database import Connection, Database

pytestmark = pytest.mark.database
LEAVES = [leaf_hash(b"%d" % number) for number in range(3 * TILE_WIDTH + 5)]


async def grow(connection: Connection, size: int, leaves: list[bytes]) -> int:
    """Append to the stored tree of `size`, in two pieces."""
    growth = await trees.growth(connection, size)
    half = len(leaves) // 2
    for part in (leaves[:half], leaves[half:]):
        await trees.store(connection, growth.append(part))
    await trees.store(connection, growth.rest())
    return growth.size


async def test_it_grows_over_many_commits_to_the_plain_tree(database: Database) -> None:
    size = 0
    for step in (0, 1, 7, TILE_WIDTH - 8, 1, TILE_WIDTH + 3, TILE_WIDTH):
        async with database.begin() as connection:
            size = await grow(connection, size, LEAVES[size : size + step])
        async with database.read() as connection:
            assert await trees.root(connection, size) == (root_of(LEAVES[:size]) if size else EMPTY_ROOT)
    assert size == 3 * TILE_WIDTH + 4
    async with database.read() as connection:
        rows = await connection.execute(text("SELECT level, index FROM tree_tile ORDER BY level, index"))
        assert [tuple(row) for row in rows] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
        for past in (1, TILE_WIDTH, TILE_WIDTH + 1, size):
            assert await trees.root(connection, past) == root_of(LEAVES[:past]), "earlier trees stay readable"
            for index in {0, past // 2, past - 1}:
                path = await trees.inclusion(connection, index, past)
                assert path == inclusion_path(index, LEAVES[:past])
                assert verify_inclusion(LEAVES[index], index, past, path, root_of(LEAVES[:past]))


async def test_what_is_on_file_is_never_rewritten(database: Database) -> None:
    async with database.begin() as connection:
        await grow(connection, 0, LEAVES[:10])
    for size, leaves in ((0, LEAVES[1:20]), (0, LEAVES[:9]), (9, LEAVES[20:22])):
        with pytest.raises(Broken, match="tree_rewritten"):
            async with database.begin() as connection:
                await grow(connection, size, leaves)
    async with database.begin() as connection:
        await grow(connection, 9, LEAVES[9:12])
        assert await trees.root(connection, 12) == root_of(LEAVES[:12]), "a step that is done again stands"


async def test_every_tile_is_held_to_the_one_above_it_and_to_the_root(database: Database) -> None:
    """Also the full ones, of which no root is made any more, while proofs still are."""
    size, stated = len(LEAVES), root_of(LEAVES)
    async with database.begin() as connection:
        await grow(connection, 0, LEAVES)
    async with database.read() as connection:
        assert await trees.first_wrong(connection, size, stated) is None
        assert await trees.first_wrong(connection, 0, EMPTY_ROOT) is None
    found = {}
    for level, index in ((0, 0), (0, 2), (0, 3), (1, 0)):
        for change in (
            "hashes = overlay(hashes PLACING decode('00ff', 'hex') FROM 34)",
            "hashes = substr(hashes, 1, 32)",
        ):
            async with database.engine.connect() as connection:
                await connection.execute(
                    text(f"UPDATE tree_tile SET {change} WHERE level = {level} AND index = {index}")
                )
                found[level, index, change[9:16]] = await trees.first_wrong(connection, size, stated)
                await connection.rollback()
    assert found == {
        (0, 0, "overlay"): "tile 0 of level 0",
        (0, 0, "substr("): "tile 0 of level 0",
        (0, 2, "overlay"): "tile 2 of level 0",
        (0, 2, "substr("): "tile 2 of level 0",
        (0, 3, "overlay"): "the tiles at its end",
        (0, 3, "substr("): "tile 3 of level 0",
        (1, 0, "overlay"): "tile 1 of level 0",
        (1, 0, "substr("): "tile 0 of level 1",
    }


async def test_a_tile_that_is_gone_is_missed(database: Database) -> None:
    async with database.begin() as connection:
        await grow(connection, 0, LEAVES[:5])
        with pytest.raises(Broken, match="tile_missing"):
            await trees.root(connection, 6)
        with pytest.raises(Broken, match="tile_missing"):
            await trees.inclusion(connection, 0, 6)
        await connection.execute(text("DELETE FROM tree_tile"))
        with pytest.raises(Broken, match="tile_missing"):
            await grow(connection, 5, LEAVES[5:7])
