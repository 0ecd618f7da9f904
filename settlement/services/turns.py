"""Who has the process's time: it is one thread, and reading a usage report takes it for milliseconds.

A transaction makes several short round trips and one long COPY. Were reports read whenever there is time, each short
round trip would wait for one to be read, with the database idle; and then, during the COPY, nothing would be left to
read, with the process idle. So reading waits while a transaction talks, and goes on while the database works alone
(decision 0013).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

ROUNDS = 6
"""How often the event loop goes round between two readings: the COPY's next piece needs a few rounds to leave."""


class Turns:
    """Turns of one transaction at a time and of any number of readers, in one event loop."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """The turn to read one report; in the order of arrival, and not while a transaction talks."""
        async with self._one:
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            while not self._quiet.is_set():
                await self._quiet.wait()
            yield

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Nothing is read during the block, but for its `listening` parts. Not for two transactions at once."""
        assert self._quiet.is_set(), "one transaction at a time talks"
        self._quiet.clear()
        try:
            yield
        finally:
            self._quiet.set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The part of `talking` in which the database works for long and this process has nothing to say."""
        self._quiet.set()
        try:
            yield
        finally:
            self._quiet.clear()
