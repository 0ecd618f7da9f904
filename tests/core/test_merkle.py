"""The tree against the recursive definitions of RFC 9162 2.1, written out here a second time."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.errors import Malformed
from settlement.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    merkle_root,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text("utf-8"))
DATA = [number.to_bytes(4, "big") for number in range(66)]
LEAVES = [sha256(b"\x00" + data).digest() for data in DATA]


def k_of(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = k_of(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path_of(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = k_of(len(leaves))
    if m < k:
        return [*path_of(m, leaves[:k]), mth(leaves[k:])]
    return [*path_of(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], known: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if known else [mth(leaves)]
    k = k_of(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], known), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


ROOTS = [mth(LEAVES[:size]) for size in range(len(LEAVES) + 1)]


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


def test_our_vectors() -> None:
    leaves = [bytes.fromhex(text) for text in VECTORS["leaves_hex"]]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    assert [value.hex() for value in hashes] == VECTORS["leaf_hashes"]
    assert [merkle_root(leaves[:size]).hex() for size in range(9)] == VECTORS["roots"]
    proof = VECTORS["inclusion"]
    assert [value.hex() for value in inclusion_path(proof["index"], hashes[: proof["size"]])] == proof["path"]
    proof = VECTORS["consistency"]
    assert [value.hex() for value in consistency_path(proof["old"], hashes[: proof["new"]])] == proof["path"]


@pytest.mark.parametrize("size", range(66))
def test_roots_and_inclusion_exhaustively(size: int) -> None:
    leaves, root = LEAVES[:size], ROOTS[size]
    assert merkle_root(DATA[:size]) == root_of(leaves) == root
    for index in range(size):
        path = inclusion_path(index, leaves)
        assert path == path_of(index, leaves)
        assert verify_inclusion(leaves[index], index, size, path, root)
        assert not verify_inclusion(leaves[index], index, size, [*path, root], root)
        if path:
            assert not verify_inclusion(leaves[index], index, size, path[:-1], root)
            assert not verify_inclusion(leaves[index], index, size, path[1:], root)
        for other in range(size):
            assert verify_inclusion(leaves[index], other, size, path, root) == (other == index)


@pytest.mark.parametrize("new", range(66))
def test_consistency_exhaustively(new: int) -> None:
    for old in range(new + 1):
        path = consistency_path(old, LEAVES[:new])
        assert path == (subproof(old, LEAVES[:new], True) if old else [])
        assert verify_consistency(old, ROOTS[old], new, ROOTS[new], path)
        assert not verify_consistency(old, ROOTS[old], new, ROOTS[new], [*path, ROOTS[new]])
        assert not verify_consistency(old, flipped(ROOTS[old], 7), new, ROOTS[new], path)
        if old:
            assert not verify_consistency(old, ROOTS[old], new, flipped(ROOTS[new], 7), path)
        if path:
            assert not verify_consistency(old, ROOTS[old], new, ROOTS[new], path[:-1])
            assert not verify_consistency(old, ROOTS[old], new, ROOTS[new], path[1:])
        if 0 < old < new:
            assert not verify_consistency(old - 1, ROOTS[old], new, ROOTS[new], path)


@pytest.mark.parametrize(("index", "size"), [(0, 2), (4, 5), (4, 7), (12, 13), (64, 65), (20, 65)])
def test_every_flipped_bit_of_an_inclusion_proof_fails(index: int, size: int) -> None:
    path, leaf, root = inclusion_path(index, LEAVES[:size]), LEAVES[index], ROOTS[size]
    for bit in range(256):
        assert not verify_inclusion(flipped(leaf, bit), index, size, path, root)
        assert not verify_inclusion(leaf, index, size, path, flipped(root, bit))
        for at, value in enumerate(path):
            assert not verify_inclusion(leaf, index, size, [*path[:at], flipped(value, bit), *path[at + 1 :]], root)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 7), (4, 7), (6, 8), (64, 65), (33, 65)])
def test_every_flipped_bit_of_a_consistency_proof_fails(old: int, new: int) -> None:
    path = consistency_path(old, LEAVES[:new])
    for bit in range(256):
        for at, value in enumerate(path):
            forged = [*path[:at], flipped(value, bit), *path[at + 1 :]]
            assert not verify_consistency(old, ROOTS[old], new, ROOTS[new], forged)


def test_what_is_not_a_proof_is_false_and_not_an_error() -> None:
    leaf = LEAVES[0]
    assert not verify_inclusion(leaf, -1, 1, [], leaf)
    assert not verify_inclusion(leaf, 1, 1, [], leaf)
    assert not verify_inclusion(leaf, 0, 0, [], EMPTY_ROOT)
    assert not verify_inclusion(leaf[:31], 0, 1, [], leaf[:31])
    assert not verify_inclusion(leaf, 0, 2, [b"short"], node_hash(leaf, b"short"))
    assert not verify_consistency(2, ROOTS[2], 1, ROOTS[1], [])
    assert not verify_consistency(-1, ROOTS[0], 1, ROOTS[1], [])
    assert not verify_consistency(0, ROOTS[1], 1, ROOTS[1], [])
    assert not verify_consistency(3, ROOTS[3], 5, ROOTS[5], [])
    assert not verify_consistency(0, ROOTS[0], 0, ROOTS[1], [])
    assert not verify_consistency(1, ROOTS[1], 2, node_hash(LEAVES[0], b"s"), [b"s"])


def test_a_leaf_is_not_a_node_and_nothing_is_doubled() -> None:
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])
    assert merkle_root([b"a", b"b", b"c"]) != merkle_root([b"a", b"b", b"c", b"c"])
    assert merkle_root([]) == EMPTY_ROOT == sha256(b"").digest()
    assert merkle_root([b""]) != EMPTY_ROOT


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_no_path_for_a_leaf_that_is_not(index: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_path(index, LEAVES[:3])


def test_no_path_from_a_larger_tree() -> None:
    with pytest.raises(ValueError, match="no beginning"):
        consistency_path(4, LEAVES[:3])


@given(st.lists(st.integers(0, 40), max_size=6))
def test_a_frontier_grown_in_any_steps_and_stored_between_them_is_the_same(steps: list[int]) -> None:
    frontier, size = Frontier(), 0
    for step in steps:
        fresh = LEAVES[:step]
        if step % 2:
            frontier.extend(iter(fresh))
        else:
            for leaf in fresh:
                frontier.append(leaf)
        frontier = Frontier.from_bytes(frontier.to_bytes())
        size += step
        assert frontier.size == size
    assert frontier.root() == mth([leaf for step in steps for leaf in LEAVES[:step]])


@pytest.mark.parametrize("size", [1023, 1024, 1025, 2047, 2048, 3000, 4097])
def test_blocks_do_not_show(size: int) -> None:
    data = [number.to_bytes(2, "big") for number in range(size)]
    hashes = [leaf_hash(one) for one in data]
    root = mth(hashes)
    assert merkle_root(iter(data)) == root
    frontier = Frontier()
    frontier.extend(hashes[:700])
    frontier.extend(hashes[700:])
    assert (frontier.root(), frontier.size) == (root, size)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 7, b"\0" * 9, (1).to_bytes(8, "big"), (3).to_bytes(8, "big") + bytes(32)]
)
def test_a_stored_frontier_of_the_wrong_length_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        Frontier.from_bytes(data)
    assert refused.value.code == "frontier_malformed"
