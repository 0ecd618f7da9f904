"""A window's part of the record tree by itself: what came before as a frontier, and the window's own leaves.

Enough to make the checkpoint's root again and the path of each of the window's leaves, from a sealed segment alone.
And what a sealed window is compared by before its rows may leave the database, made on both sides:

    rows digest = SHA256 over the window's reports in journal order of
                  digest of the body || SHA256 over its charged lines of (id || u32 line || u32 rates || u64 picoCU)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from struct import Struct

from settlement.core.leaves import ChargedLine
from settlement.core.merkle import Frontier, Range, fold, inclusion_ranges, node_hash, peak_ranges, split

_ROW = Struct(">16sIIQ")


class WindowTree:
    """The record tree at a checkpoint, seen from its window: `before` has the roots of all earlier leaves."""

    def __init__(self, before: Frontier, leaf_hashes: Sequence[bytes]) -> None:
        self.first = before.size
        self.size = before.size + len(leaf_hashes)
        self._leaves = leaf_hashes
        data = before.to_bytes()
        spans = list(peak_ranges(0, before.size))
        self._peaks: dict[Range, bytes] = {span: data[8 + 32 * at : 40 + 32 * at] for at, span in enumerate(spans)}
        self._known: dict[Range, bytes] = {}

    def root(self) -> bytes:
        """The root of the whole tree."""
        return fold(self._root(span) for span in peak_ranges(0, self.size))

    def path(self, index: int) -> list[bytes]:
        """The path of one of the window's leaves, by its number in the whole tree.

        Raises ValueError for a leaf of another window: its neighbours are not known here.
        """
        if not self.first <= index < self.size:
            raise ValueError(f"leaf {index} is not of this window")
        return [fold(self._root(part) for part in peak_ranges(*span)) for span in inclusion_ranges(index, self.size)]

    def _root(self, span: Range) -> bytes:
        begin, end = span
        if span in self._peaks:
            return self._peaks[span]
        if end - begin == 1:
            return self._leaves[begin - self.first]
        found = self._known.get(span)
        if found is None:
            middle = split(begin, end)
            found = node_hash(self._root((begin, middle)), self._root((middle, end)))
            self._known[span] = found
        return found


def report_part(digest: bytes, lines: Iterable[ChargedLine]) -> bytes:
    """One report's part of a window's rows digest: its digest, and that of its charged lines in order."""
    rows = b"".join(_ROW.pack(each.record_id, each.line, each.rates, each.charge_pico) for each in lines)
    return digest + sha256(rows).digest()
