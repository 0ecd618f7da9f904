"""The two small trees under a checkpoint, positions and liabilities, kept in memory while their parties ask for proofs.

Neither changes once it is signed, so one read of a window's rows serves the proofs of all its parties. A tree is held
to the root that its checkpoint states before it is kept, and nothing is ever signed from one: what is kept is a copy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from settlement.core import liabilities, merkle, tiles
from settlement.core.errors import Broken
from settlement.core.liabilities import Entry, Sum
from settlement.services.context import Context
from settlement.storage import checkpoints, positions
from settlement.storage.checkpoints import Stored
from settlement.storage.database import Connection, Database
from settlement.storage.positions import Decided

MOST_LEAVES = 500_000
"""Of all trees of a kind that are kept: about 100 MB. One tree is kept, however large."""


class _Tree(Protocol):
    @property
    def places(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class PositionTree:
    """The positions of a window: where each party's leaf is, and the hashes above, as tiles."""

    places: Mapping[str, int]
    hashes: Mapping[tuple[int, int], bytes]

    def path(self, index: int) -> list[bytes]:
        """The proof of a leaf (`merkle.verify_inclusion`)."""
        return tiles.inclusion(index, len(self.places), lambda level, place: self.hashes[level, place])


@dataclass(frozen=True, slots=True)
class LiabilityTree:
    """What was owed to each account, in order, and the sums above."""

    places: Mapping[str, int]
    entries: Sequence[Entry]
    tree: liabilities.Tree


Kept = TypeVar("Kept", bound=_Tree)


class _Shelf(Generic[Kept]):
    """Trees by the digest of their checkpoint. What was not asked for longest goes first."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._trees: dict[bytes, Kept] = {}

    async def get(self, stored: Stored, read: Callable[[], Awaitable[Kept]]) -> Kept:
        """The tree that is kept, or the one that is read now: once, however many ask."""
        async with self._lock:
            found = self._trees.pop(stored.digest, None) or await read()
            self._trees[stored.digest] = found
            while len(self._trees) > 1 and sum(len(each.places) for each in self._trees.values()) > MOST_LEAVES:
                del self._trees[next(iter(self._trees))]
            return found


_positions: WeakKeyDictionary[Database, _Shelf[PositionTree]] = WeakKeyDictionary()
_liabilities: WeakKeyDictionary[Database, _Shelf[LiabilityTree]] = WeakKeyDictionary()


async def of_positions(context: Context, connection: Connection, stored: Stored) -> PositionTree:
    """The tree of a window's positions. Raises Broken ``proof_mismatch`` when it hasn't the root that was signed."""

    async def read() -> PositionTree:
        decided = await positions.of_window(connection, stored.window_no)
        return await asyncio.to_thread(_position_tree, decided, stored)

    return await _positions.setdefault(context.database, _Shelf()).get(stored, read)


async def of_liabilities(context: Context, connection: Connection, stored: Stored) -> LiabilityTree:
    """The tree of what a checkpoint says was owed. Raises Broken ``proof_mismatch`` as `of_positions` does."""

    async def read() -> LiabilityTree:
        packed = await checkpoints.packed_liabilities(connection, stored.window_no)
        return await asyncio.to_thread(_liability_tree, packed, stored)

    return await _liabilities.setdefault(context.database, _Shelf()).get(stored, read)


def _position_tree(decided: Sequence[Decided], stored: Stored) -> PositionTree:
    hashed = [merkle.leaf_hash(each.leaf()) for each in decided]
    hashes = {(tile.level, tile.index): tile.hashes for tile in tiles.append(0, lambda _level, _index: b"", hashed)}
    found = PositionTree({each.party: place for place, each in enumerate(decided)}, hashes)
    root = tiles.root(len(hashed), lambda level, index: hashes[level, index])
    stated = json.loads(stored.document)["positions"]
    _check((stated["size"], stated["root"]) == (len(hashed), root.hex()), "positions", stored)
    return found


def _liability_tree(packed: bytes, stored: Stored) -> LiabilityTree:
    entries = checkpoints.unpack_liabilities(packed)
    tree = liabilities.Tree(entries)
    stated = json.loads(stored.document)["liabilities"]
    root = Sum(int(stated["total"]), bytes.fromhex(stated["root"]))
    _check((stated["size"], root) == (len(entries), tree.root), "liabilities", stored)
    return LiabilityTree({entry.account: place for place, entry in enumerate(entries)}, entries, tree)


def _check(holds: bool, tree: str, stored: Stored) -> None:
    if not holds:
        raise Broken("proof_mismatch", f"the {tree} of win_{stored.window_no} are not what its checkpoint commits to")
