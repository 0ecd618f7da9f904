"""A Merkle tree stored as tiles: at most 256 hashes each, so that growth and proofs touch a few rows, not the tree.

The layout of tlog-tiles (C2SP): entry i of level L is the root of the perfect subtree over leaves i * 256^L up to
(i + 1) * 256^L, and tile (L, n) holds the entries 256 n to 256 n + 255 of level L. Full tiles never change. The last
tile of a level may be partial; a wider one replaces it, with the same beginning. Roots and proofs are those of
`merkle`. Storage is the caller's: ``read(level, index)`` returns the hashes of the widest tile stored, one after
another; it may be wider than the tree that is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from settlement.core.errors import Broken
from settlement.core.merkle import (
    HASH_SIZE,
    Range,
    consistency_ranges,
    fold,
    inclusion_ranges,
    peak_ranges,
    perfect_root,
)

TILE_LEVELS = 8
TILE_WIDTH = 1 << TILE_LEVELS

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Tile:
    """Hashes one after another, 1 to 256 of them, at (level, index)."""

    level: int
    index: int
    hashes: bytes


def append(size: int, read: Read, leaf_hashes: Iterable[bytes]) -> Iterator[Tile]:
    """The tiles to store when leaves are appended to a tree of ``size``, in constant memory.

    Full tiles come as they fill up; at the end come the partial ones that changed, which replace a shorter tile of
    the same place. Raises Broken ``tile_missing`` when ``read`` has less than the tree of ``size`` must have.
    """
    rows = _last_rows(size, read)
    changed: set[int] = set()
    source = iter(leaf_hashes)
    while fresh := list(islice(source, TILE_WIDTH - len(rows[0]))):
        rows[0].extend(fresh)
        size += len(fresh)
        changed.add(0)
        if len(rows[0]) == TILE_WIDTH:
            yield from _carry(rows, size, changed)
    for level in sorted(changed):
        if rows[level]:
            yield Tile(level, size >> TILE_LEVELS * (level + 1), b"".join(rows[level]))


def root(size: int, read: Read) -> bytes:
    """The root of the tree of ``size``."""
    return _range_root((0, size), _Cache(size, read))


def range_root(span: Range, size: int, read: Read) -> bytes:
    """The root over a range of leaves of the tree of ``size``."""
    return _range_root(span, _Cache(size, read))


def inclusion(index: int, size: int, read: Read) -> list[bytes]:
    """The proof for `merkle.verify_inclusion`; reads O(log size) tiles. Raises ValueError for an index that isn't."""
    cache = _Cache(size, read)
    return [_range_root(span, cache) for span in inclusion_ranges(index, size)]


def consistency(old: int, new: int, read: Read) -> list[bytes]:
    """The proof for `merkle.verify_consistency`; reads O(log new) tiles. Raises ValueError when old is beyond new."""
    cache = _Cache(new, read)
    return [_range_root(span, cache) for span in consistency_ranges(old, new)]


class _Cache:
    """Tiles of a tree of one size, each read once."""

    def __init__(self, size: int, read: Read) -> None:
        self.size = size
        self._read = read
        self._tiles: dict[tuple[int, int], bytes] = {}

    def entries(self, level: int, first: int, count: int) -> list[bytes]:
        """Entries of one level, all in one tile."""
        index, offset = divmod(first, TILE_WIDTH)
        tile = self._tiles.get((level, index))
        if tile is None:
            tile = self._tiles[level, index] = self._read(level, index)
        return _hashes(level, index, tile, offset, count)


def _hashes(level: int, index: int, tile: bytes, offset: int, count: int) -> list[bytes]:
    if len(tile) < (offset + count) * HASH_SIZE or len(tile) % HASH_SIZE:
        raise Broken("tile_missing", f"tile {index} of level {level} is not stored with {offset + count} hashes")
    return [tile[at * HASH_SIZE : (at + 1) * HASH_SIZE] for at in range(offset, offset + count)]


def _range_root(span: Range, cache: _Cache) -> bytes:
    """The root of a subtree: its perfect parts, each within one tile, folded together."""
    return fold(_perfect(begin, end - begin, cache) for begin, end in peak_ranges(*span))


def _perfect(begin: int, width: int, cache: _Cache) -> bytes:
    level = (width.bit_length() - 1) // TILE_LEVELS
    shift = TILE_LEVELS * level
    return perfect_root(cache.entries(level, begin >> shift, width >> shift))


def _last_rows(size: int, read: Read) -> list[list[bytes]]:
    """The last, partial tile of each level that has one, as a list of hashes; always with level 0."""
    rows: list[list[bytes]] = [[]]
    level = 0
    while entries := size >> TILE_LEVELS * level:
        if level == len(rows):
            rows.append([])
        index, width = divmod(entries, TILE_WIDTH)
        if width:
            rows[level] = _hashes(level, index, read(level, index), 0, width)
        level += 1
    return rows


def _carry(rows: list[list[bytes]], size: int, changed: set[int]) -> Iterator[Tile]:
    """Hands out the full tiles and puts their roots into the level above."""
    level = 0
    while len(rows[level]) == TILE_WIDTH:
        yield Tile(level, (size >> TILE_LEVELS * (level + 1)) - 1, b"".join(rows[level]))
        if level + 1 == len(rows):
            rows.append([])
        rows[level + 1].append(perfect_root(rows[level]))
        changed.add(level + 1)
        rows[level] = []
        level += 1
