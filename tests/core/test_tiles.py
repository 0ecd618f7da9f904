"""Tiles hold the same tree as a list of leaves does, whatever the steps in which it grew."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import tiles
from settlement.core.errors import Broken
from settlement.core.merkle import (
    consistency_path,
    inclusion_path,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [sha256(number.to_bytes(4, "big")).digest() for number in range(70_000)]


class Store:
    """A dict with the manners of the table: a tile is only ever replaced by a wider one that begins with it."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0
        self.reads = 0

    def read(self, level: int, index: int) -> bytes:
        self.reads += 1
        return self.tiles.get((level, index), b"")

    def grow(self, leaves: Iterable[bytes], count: int) -> None:
        for tile in tiles.append(self.size, self.read, leaves):
            before = self.tiles.get((tile.level, tile.index), b"")
            assert tile.hashes.startswith(before)
            assert len(tile.hashes) > len(before)
            assert len(tile.hashes) <= 256 * 32
            self.tiles[tile.level, tile.index] = tile.hashes
        self.size += count


@pytest.fixture(scope="module")
def grown() -> Store:
    store = Store()
    store.grow(iter(LEAVES), len(LEAVES))
    return store


SIZES = [1, 2, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 65_792, 70_000]


@pytest.mark.parametrize("size", [0, *SIZES])
def test_root_of_every_earlier_size(grown: Store, size: int) -> None:
    grown.reads = 0
    assert tiles.root(size, grown.read) == root_of(LEAVES[:size])
    assert grown.reads <= 3


@pytest.mark.parametrize("size", SIZES)
def test_inclusion(grown: Store, size: int) -> None:
    root = root_of(LEAVES[:size])
    for index in {0, 1, 255, 256, 257, 65_535, 65_536, size // 2, size - 2, size - 1} & set(range(size)):
        grown.reads = 0
        path = tiles.inclusion(index, size, grown.read)
        assert grown.reads <= 6
        assert path == inclusion_path(index, LEAVES[:size])
        assert verify_inclusion(LEAVES[index], index, size, path, root)


@pytest.mark.parametrize("new", SIZES)
def test_consistency(grown: Store, new: int) -> None:
    for old in [size for size in [0, *SIZES] if size <= new]:
        grown.reads = 0
        path = tiles.consistency(old, new, grown.read)
        assert grown.reads <= 6
        assert path == consistency_path(old, LEAVES[:new])
        assert verify_consistency(old, root_of(LEAVES[:old]), new, root_of(LEAVES[:new]), path)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=6), st.data())
def test_growing_in_any_steps_gives_the_same_tiles(steps: list[int], data: st.DataObject) -> None:
    store, once = Store(), Store()
    for step in steps:
        store.grow(iter(LEAVES[store.size : store.size + step]), step)
    once.grow(LEAVES[: store.size], store.size)
    assert store.tiles == once.tiles
    assert tiles.root(store.size, store.read) == root_of(LEAVES[: store.size])
    if store.size:
        index = data.draw(st.integers(0, store.size - 1))
        assert tiles.inclusion(index, store.size, store.read) == inclusion_path(index, LEAVES[: store.size])


def test_growing_across_a_level(grown: Store) -> None:
    store = Store()
    for end in (65_000, 65_536, 65_537, 70_000):
        store.grow(iter(LEAVES[store.size : end]), end - store.size)
    assert store.tiles == grown.tiles
    assert max(level for level, _ in store.tiles) == 2


def test_a_second_try_after_a_crash_writes_the_same() -> None:
    store = Store()
    store.grow(LEAVES[:300], 300)
    for tile in list(tiles.append(300, store.read, LEAVES[300:600])):
        store.tiles[tile.level, tile.index] = tile.hashes  # stored, but the size was not committed
    again = {(tile.level, tile.index): tile.hashes for tile in tiles.append(300, store.read, LEAVES[300:600])}
    assert all(store.tiles[place] == hashes for place, hashes in again.items())


def test_no_leaves_no_tiles(grown: Store) -> None:
    assert list(tiles.append(len(LEAVES), grown.read, [])) == []
    assert list(tiles.append(0, Store().read, [])) == []


def test_the_tree_is_streamed() -> None:
    taken = 0

    def source() -> Iterable[bytes]:
        nonlocal taken
        for leaf in LEAVES[:1000]:
            taken += 1
            yield leaf

    first = next(iter(tiles.append(0, Store().read, source())))
    assert (first.level, first.index, len(first.hashes)) == (0, 0, 256 * 32)
    assert taken == 256


def test_a_missing_or_short_tile_is_an_error(grown: Store) -> None:
    for call in (
        lambda: tiles.root(300, Store().read),
        lambda: tiles.inclusion(0, 300, lambda level, index: grown.read(level, index)[:32]),
        lambda: list(tiles.append(300, Store().read, LEAVES[:1])),
        lambda: tiles.root(1, lambda level, index: bytes(33)),
    ):
        with pytest.raises(Broken) as broken:
            call()
        assert broken.value.code == "tile_missing"
