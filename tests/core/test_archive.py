"""A window's tree from its frontier and its own leaves has the root and the paths of the whole tree."""

from __future__ import annotations

from hashlib import sha256

import pytest

from settlement.core import merkle
from settlement.core.archive import WindowTree

LEAVES = [merkle.leaf_hash(sha256(bytes([number])).digest()) for number in range(70)]


@pytest.mark.parametrize("before", [*range(18), 31, 32, 33, 63, 64])
@pytest.mark.parametrize("own", [1, 2, 3, 5])
def test_root_and_paths_are_those_of_the_whole_tree(before: int, own: int) -> None:
    frontier = merkle.Frontier()
    frontier.extend(LEAVES[:before])
    size = before + own
    tree = WindowTree(frontier, LEAVES[before:size])
    assert (tree.first, tree.size, tree.root()) == (before, size, merkle.root_of(LEAVES[:size]))
    for index in range(before, size):
        assert tree.path(index) == merkle.inclusion_path(index, LEAVES[:size])
    for index in (before - 1, size):
        with pytest.raises(ValueError, match="not of this window"):
            tree.path(index)


def test_a_window_without_records_has_the_root_of_what_was_before() -> None:
    frontier = merkle.Frontier()
    frontier.extend(LEAVES[:5])
    assert WindowTree(frontier, []).root() == merkle.root_of(LEAVES[:5])
    assert WindowTree(merkle.Frontier(), []).root() == merkle.EMPTY_ROOT
