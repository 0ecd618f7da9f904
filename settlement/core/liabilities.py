"""The liabilities tree: a Merkle tree in which every node states and hashes the sums below it.

The service owes each account an amount. The root commits to all of them and to their total; an account's path shows
its owner that the amount is counted in the total, and nothing about others but sums of subtrees. Both children's sums
are hashed into their parent: a tree that hashes only the total can hide an account behind a larger neighbour.

leaf = SHA256(0x02 || salt, 16 bytes || account id in ASCII || amount, 16 bytes big end first)
node = SHA256(0x03 || left sum, 16 bytes || left hash || right sum, 16 bytes || right hash)
empty = SHA256(0x02), sum 0. Shape as in `merkle`: split at the largest power of two below the number of accounts.
Amounts and sums are microCU, 0 <= n < 2^128. Each account comes once, in the order of the account ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

from settlement.core.errors import Malformed

SALT_SIZE = 16
_LIMIT = 1 << 128


class Entry(NamedTuple):
    """What is owed to one account, in microCU, with the salt that hides small amounts from guessing."""

    account: str
    amount: int
    salt: bytes


class Sum(NamedTuple):
    """A node: the sum of the amounts below it, in microCU, and its hash."""

    amount: int
    hash: bytes


EMPTY = Sum(0, sha256(b"\x02").digest())


def leaf(salt: bytes, account: str, amount: int) -> Sum:
    """One account's leaf. Raises Malformed ``liability_malformed`` for a negative or oversized amount, a salt that
    isn't 16 bytes, or an account id that is empty or not ASCII."""
    if not 0 <= amount < _LIMIT or len(salt) != SALT_SIZE or not account or not account.isascii():
        raise Malformed("liability_malformed", "a liability has an ASCII account, 16 bytes of salt and an amount >= 0")
    return Sum(amount, sha256(b"\x02" + salt + account.encode("ascii") + amount.to_bytes(16, "big")).digest())


def node(left: Sum, right: Sum) -> Sum:
    """The node over two children. Raises Malformed ``liability_malformed`` when a sum is negative or oversized."""
    total = left.amount + right.amount
    if left.amount < 0 or right.amount < 0 or total >= _LIMIT:
        raise Malformed("liability_malformed", "a sum is negative or does not fit 16 bytes")
    sums = left.amount.to_bytes(16, "big"), right.amount.to_bytes(16, "big")
    return Sum(total, sha256(b"\x03" + sums[0] + left.hash + sums[1] + right.hash).digest())


class Tree:
    """All levels of the tree, for when many paths are wanted; O(n) memory, O(log n) for a path."""

    __slots__ = ("_levels",)

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Raises Malformed ``liability_order`` unless the accounts ascend strictly, and as `leaf` does."""
        for before, after in pairwise(entries):
            if before.account >= after.account:
                raise Malformed("liability_order", f"account {after.account} is out of order or comes twice")
        level = [leaf(entry.salt, entry.account, entry.amount) for entry in entries]
        self._levels = [level]
        while len(level) > 1:
            level = _above(level)
            self._levels.append(level)

    @property
    def root(self) -> Sum:
        """The total owed and the hash that commits to it."""
        top = self._levels[-1]
        return top[0] if top else EMPTY

    def path(self, index: int) -> list[Sum]:
        """The siblings of a leaf, from the leaf up. Raises ValueError when there is no such leaf."""
        if not 0 <= index < len(self._levels[0]):
            raise ValueError(f"there is no leaf {index}")
        siblings: list[Sum] = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                siblings.append(level[index ^ 1])
            index >>= 1
        return siblings


def build(entries: Sequence[Entry]) -> Sum:
    """The root over entries in the order of their account ids."""
    return Tree(entries).root


def path(index: int, entries: Sequence[Entry]) -> list[Sum]:
    """The siblings that prove entry ``index``, from the leaf up."""
    return Tree(entries).path(index)


def verify(entry: Entry, index: int, size: int, siblings: Sequence[Sum], root: Sum) -> bool:
    """Whether the siblings prove that the entry is number ``index`` of ``size`` in the tree with that root and total.

    The path must have exactly the length that index and size ask for: an inner node can't be shown as a leaf.
    """
    if not 0 <= index < size or any(len(sibling.hash) != 32 for sibling in siblings):
        return False
    rest = iter(siblings)
    try:
        current = leaf(entry.salt, entry.account, entry.amount)
        at, last = index, size - 1
        while last:
            if at & 1:
                current = node(next(rest), current)
            elif at < last:
                current = node(current, next(rest))
            at, last = at >> 1, last >> 1
    except (Malformed, StopIteration):
        return False
    return next(rest, None) is None and current == root


def _above(level: list[Sum]) -> list[Sum]:
    pairs = iter(level)
    above = [node(left, right) for left, right in zip(pairs, pairs, strict=False)]
    if len(level) & 1:  # alone on its level, it moves up as it is
        above.append(level[-1])
    return above
