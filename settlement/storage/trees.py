"""The usage-record tree as rows of tiles (`core.tiles`): it grows, and a proof of it reads a few rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import text

from settlement.core import tiles
from settlement.core.errors import Broken
from settlement.core.merkle import Frontier, Range, consistency_ranges, inclusion_ranges, peak_ranges, perfect_root
from settlement.core.tiles import TILE_LEVELS, TILE_WIDTH, Tile
from settlement.storage.database import Connection, raw_cursor

Place = tuple[int, int]
_AT_A_TIME = 64
"""Tiles that are read at a time when all of them are."""

_STORE = """
INSERT INTO tree_tile (level, index, hashes)
SELECT * FROM unnest(%(levels)s::smallint[], %(indexes)s::bigint[], %(hashes)s::bytea[])
ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes
WHERE substr(excluded.hashes, 1, length(tree_tile.hashes)) = tree_tile.hashes
"""

_READ = text("""
SELECT level, index, hashes FROM tree_tile
JOIN unnest(cast(:levels AS smallint[]), cast(:indexes AS bigint[])) asked(level, index) USING (level, index)
""")


class Growth:
    """A tree while leaves are appended to it: only the last tile of each level is kept in memory."""

    def __init__(self, size: int, last: dict[Place, bytes]) -> None:
        self.size = size
        self._last = last

    def append(self, leaf_hashes: Sequence[bytes]) -> list[Tile]:
        """Append leaves and take the tiles that became full; store them."""
        full = []
        for tile in tiles.append(self.size, self._read, leaf_hashes):
            if len(tile.hashes) == TILE_WIDTH * 32:
                self._last.pop((tile.level, tile.index), None)
                full.append(tile)
            else:
                self._last[tile.level, tile.index] = tile.hashes
        self.size += len(leaf_hashes)
        return full

    def rest(self) -> list[Tile]:
        """The partial tiles at the end; store them when all leaves are in."""
        return [Tile(level, index, hashes) for (level, index), hashes in sorted(self._last.items())]

    def _read(self, level: int, index: int) -> bytes:
        return self._last.get((level, index), b"")


async def growth(connection: Connection, size: int) -> Growth:
    """The stored tree of that size, ready to be appended to."""
    places: list[Place] = []
    level = 0
    while entries := size >> TILE_LEVELS * level:
        if entries % TILE_WIDTH:
            places.append((level, entries // TILE_WIDTH))
        level += 1
    stored = await _read(connection, places)
    widths = {place: (size >> TILE_LEVELS * place[0]) % TILE_WIDTH * 32 for place in places}
    return Growth(size, {place: stored.get(place, b"")[:width] for place, width in widths.items()})


async def store(connection: Connection, grown: Sequence[Tile]) -> None:
    """Write tiles. A stored tile may only grow: raises Broken ``tree_rewritten`` when one would change."""
    if not grown:
        return
    values = {
        "levels": [tile.level for tile in grown],
        "indexes": [tile.index for tile in grown],
        "hashes": [tile.hashes for tile in grown],
    }
    async with raw_cursor(connection) as cursor:
        await cursor.execute(_STORE, values)
        if cursor.rowcount != len(grown):
            raise Broken(
                "tree_rewritten", "the usage-record tree on file is not the beginning of the tree to be stored"
            )


async def root(connection: Connection, size: int) -> bytes:
    """The root of the first `size` leaves, from the tiles on file."""
    stored = await _read(connection, _places([(0, size)]))
    return tiles.root(size, lambda level, index: stored.get((level, index), b""))


async def frontier(connection: Connection, size: int) -> Frontier:
    """The roots of the perfect subtrees of the first `size` leaves."""
    spans = list(peak_ranges(0, size))
    stored = await _read(connection, _places(spans))
    roots = [tiles.range_root(span, size, lambda level, index: stored.get((level, index), b"")) for span in spans]
    return Frontier.from_bytes(size.to_bytes(8, "big") + b"".join(roots))


async def leaves(connection: Connection, indexes: Sequence[int]) -> dict[int, bytes]:
    """The leaf hashes at these places, as far as there are any."""
    stored = await _read(connection, sorted({(0, index // TILE_WIDTH) for index in indexes}))
    found = {}
    for index in indexes:
        at = index % TILE_WIDTH * 32
        hashed = stored.get((0, index // TILE_WIDTH), b"")[at : at + 32]
        if hashed:
            found[index] = hashed
    return found


async def inclusion(connection: Connection, index: int, size: int) -> list[bytes]:
    """The path of leaf `index` in the tree of `size`; one query for O(log size) tiles."""
    stored = await _read(connection, _places(inclusion_ranges(index, size)))
    return tiles.inclusion(index, size, lambda level, place: stored.get((level, place), b""))


async def consistency(connection: Connection, old: int, new: int) -> list[bytes]:
    """The proof that the tree of `old` leaves is the beginning of that of `new`; one query for O(log new) tiles."""
    stored = await _read(connection, _places(consistency_ranges(old, new)))
    return tiles.consistency(old, new, lambda level, place: stored.get((level, place), b""))


async def first_wrong(connection: Connection, size: int, stated: bytes) -> str | None:
    """What is first found in the stored tree of `size` that does not lead to the stated root; None when all of it does.

    A wrong hash in a full tile shows beside the entry above it alone: no root is made from it any more, but proofs are.
    """
    level, below = 0, list[bytes]()
    while entries := size >> TILE_LEVELS * level:
        made: list[bytes] = []
        count = -(-entries // TILE_WIDTH)
        for first in range(0, count, _AT_A_TIME):
            places = [(level, index) for index in range(first, min(first + _AT_A_TIME, count))]
            stored = await _read(connection, places)
            for place in places:
                at, tile = place[1] * TILE_WIDTH, stored.get(place, b"")
                hashes = [tile[byte : byte + 32] for byte in range(0, len(tile), 32)]
                width = min(TILE_WIDTH, entries - at)
                if len(hashes) < width:
                    return f"tile {place[1]} of level {level}"
                for entry, expected in enumerate(below[at : at + width]):
                    if hashes[entry] != expected:
                        return f"tile {at + entry} of level {level - 1}"
                if width == TILE_WIDTH:
                    made.append(perfect_root(hashes))
        level, below = level + 1, made
    return None if await root(connection, size) == stated else "the tiles at its end"


def _places(spans: Iterable[Range]) -> list[Place]:
    """The tiles that hold the roots of the perfect subtrees of these leaf ranges."""
    found = set()
    for span in spans:
        for begin, end in peak_ranges(*span):
            level = ((end - begin).bit_length() - 1) // TILE_LEVELS
            found.add((level, begin >> TILE_LEVELS * (level + 1)))
    return sorted(found)


async def _read(connection: Connection, places: Sequence[Place]) -> dict[Place, bytes]:
    if not places:
        return {}
    levels, indexes = zip(*places, strict=True)
    rows = await connection.execute(_READ, {"levels": list(levels), "indexes": list(indexes)})
    return {(level, index): hashes for level, index, hashes in rows}
