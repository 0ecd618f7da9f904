"""How many requests were answered, by method and status class, by all processes that serve one address."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import c_uint64
from multiprocessing import sharedctypes
from typing import Any

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
_CLASSES = 5
_CELLS = len(METHODS) * _CLASSES


class Traffic:
    """Counters in memory that processes share: each writes its own part only, and every one reads them all."""

    def __init__(self, shared: Any = None, place: int = 0) -> None:
        self._shared = shared or sharedctypes.RawArray(c_uint64, _CELLS)
        self._first = place * _CELLS

    @classmethod
    def of_processes(cls, count: int) -> list[Traffic]:
        """One for each of `count` processes, to be handed to them when they are started."""
        shared = sharedctypes.RawArray(c_uint64, count * _CELLS)
        return [cls(shared, place) for place in range(count)]

    def count(self, method: str, status: int) -> None:
        """One more answer of this process."""
        row = METHODS.index(method if method in METHODS else "other")
        self._shared[self._first + row * _CLASSES + status // 100 - 1] += 1

    def answered(self) -> Iterator[tuple[str, str, int]]:
        """Method, status class such as ``2xx``, and how often any process gave it, without the zeros."""
        for cell in range(_CELLS):
            row, column = divmod(cell, _CLASSES)
            total = sum(self._shared[cell::_CELLS])
            if total:
                yield METHODS[row], f"{column + 1}xx", total
