"""The append-only Merkle tree of RFC 9162 2.1: roots, inclusion and consistency proofs.

leaf = SHA256(0x00 || bytes), node = SHA256(0x01 || left || right), empty = SHA256(""); n leaves split at the largest
power of two below n. Nothing is ever doubled to fill a level, so no two lists of leaves have the same root.

A proof is a list of subtree roots. Which subtrees is pure arithmetic on leaf ranges (`inclusion_ranges`,
`consistency_ranges`); where their hashes come from is the caller's: a list here, stored tiles in `tiles`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice

from settlement.core.errors import Malformed

EMPTY_ROOT = sha256(b"").digest()
HASH_SIZE = 32
_BLOCK_LEVEL = 10
_BLOCK = 1 << _BLOCK_LEVEL
"""Leaves reduced at a time, level by level: enough to drown the cost of the loop, few enough to stay small."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf's bytes."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its children's hashes."""
    return sha256(b"\x01" + left + right).digest()


def parents(level: Sequence[bytes]) -> list[bytes]:
    """The level above an even number of hashes. (A comprehension is the quickest form measured.)"""
    pairs = iter(level)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 2^k hashes, k >= 0."""
    while len(hashes) > 1:
        hashes = parents(hashes)
    return hashes[0]


def fold(peaks: Iterable[bytes]) -> bytes:
    """The root over the roots of a tree's perfect subtrees, largest first."""
    root = b""
    for peak in reversed(list(peaks)):
        root = node_hash(peak, root) if root else peak
    return root or EMPTY_ROOT


class Frontier:
    """What must be kept of a tree to append to it and know its root: the roots of its perfect subtrees (RFC 9162
    2.1.2), one for each 1 in the binary form of its size."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Appends one leaf, given by its hash."""
        self._push(leaf, 0)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Appends leaves, given by their hashes, in constant memory."""
        source = iter(leaves)
        for leaf in islice(source, -self.size % _BLOCK):
            self._push(leaf, 0)
        while len(block := list(islice(source, _BLOCK))) == _BLOCK:
            self._push(perfect_root(block), _BLOCK_LEVEL)
        for leaf in block:
            self._push(leaf, 0)

    def root(self) -> bytes:
        """The root over everything appended; `EMPTY_ROOT` when nothing was."""
        return fold(self._peaks)

    def to_bytes(self) -> bytes:
        """The size in 8 bytes, big end first, then the peaks, largest first."""
        return self.size.to_bytes(8, "big") + b"".join(self._peaks)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """The inverse of `to_bytes`; raises Malformed ``frontier_malformed`` when size and length disagree."""
        size = int.from_bytes(data[:8], "big")
        if len(data) != 8 + HASH_SIZE * size.bit_count():
            raise Malformed("frontier_malformed", "a frontier has 8 bytes of size and a hash for each 1 in it")
        frontier = cls()
        frontier.size = size
        frontier._peaks = [data[at : at + HASH_SIZE] for at in range(8, len(data), HASH_SIZE)]
        return frontier

    def _push(self, root: bytes, level: int) -> None:
        """Appends a perfect subtree of 2^level leaves; the size is a multiple of that."""
        peaks = self._peaks
        carry = self.size >> level
        while carry & 1:
            root = sha256(b"\x01" + peaks.pop() + root).digest()
            carry >>= 1
        peaks.append(root)
        self.size += 1 << level


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """The root over leaves given by their bytes, in constant memory, at about the price of the hashing itself."""
    frontier = Frontier()
    source = iter(leaves)
    # One frame with local names only: a generator of leaf hashes between here and extend() costs a tenth more.
    while len(block := [sha256(b"\x00" + leaf).digest() for leaf in islice(source, _BLOCK)]) == _BLOCK:
        frontier._push(perfect_root(block), _BLOCK_LEVEL)
    frontier.extend(block)
    return frontier.root()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over a list of leaf hashes."""
    frontier = Frontier()
    frontier.extend(hashes)
    return frontier.root()


Range = tuple[int, int]
"""Leaves begin <= i < end that are a subtree of the tree."""


def split(begin: int, end: int) -> int:
    """Where a subtree of at least two leaves divides: after the largest power of two below its size."""
    return begin + (1 << (end - begin - 1).bit_length() - 1)


def peak_ranges(begin: int, end: int) -> Iterator[Range]:
    """The perfect subtrees of a subtree, largest first."""
    while begin < end:
        width = 1 << (end - begin).bit_length() - 1
        yield begin, begin + width
        begin += width


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose roots prove leaf ``index`` in a tree of ``size``, leaf's end first (RFC 9162 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    ranges: list[Range] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = split(begin, end)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """The subtrees whose roots prove that ``old`` leaves begin the tree of ``new`` (RFC 9162 2.1.4.1).

    Empty when old is 0 or equal to new: then there is nothing to prove beyond the roots themselves.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} is no beginning of a tree of {new}")
    if old in (0, new):
        return []
    ranges: list[Range] = []
    begin, end = 0, new
    while old != end:
        middle = split(begin, end)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    if begin:  # the old tree's own root is known to the verifier, a part of it isn't
        ranges.append((begin, end))
    return ranges[::-1]


def inclusion_path(index: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """The proof that leaf ``index`` is in the tree of these leaf hashes."""
    return [root_of(leaf_hashes[begin:end]) for begin, end in inclusion_ranges(index, len(leaf_hashes))]


def consistency_path(old: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """The proof that the first ``old`` of these leaf hashes are the beginning of their tree."""
    return [root_of(leaf_hashes[begin:end]) for begin, end in consistency_ranges(old, len(leaf_hashes))]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether a path proves that the leaf with this hash is number ``index`` in the tree of that size and root.

    RFC 9162 2.1.3.2: the path must have exactly the length that index and size ask for.
    """
    if not 0 <= index < size or not _hashes(leaf, root, *path):
        return False
    at, last, current = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            current = node_hash(sibling, current)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a path proves that the tree (old, old_root) is the beginning of the tree (new, new_root).

    RFC 9162 2.1.4.2; a tree of no leaves is the beginning of every tree.
    """
    if not 0 <= old <= new or not _hashes(old_root, new_root, *path):
        return False
    if old == 0:
        return not path and old_root == EMPTY_ROOT and (new > 0 or new_root == EMPTY_ROOT)
    if old == new:
        return not path and old_root == new_root
    nodes = list(path) if old & (old - 1) else [old_root, *path]
    if not nodes:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    older = newer = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            older, newer = node_hash(node, older), node_hash(node, newer)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, node)
        at, last = at >> 1, last >> 1
    return last == 0 and older == old_root and newer == new_root


def _hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_SIZE for value in values)
