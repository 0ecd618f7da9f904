"""Deadlines of many waits by one timer: one for each would cost as much as the rest of reading a small request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

BETWEEN_LOOKS = 1.0
"""Seconds: a wait may last as much longer than its deadline."""


class Deadlines:
    """Ends waits whose time is over, about a second after it. For one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False

    async def until(self, deadline: float, act: Callable[[], Awaitable[Result]]) -> Result:
        """What `act` gives. Raises TimeoutError when it has not by `deadline`, a time of the event loop.

        As `asyncio.timeout_at` does, it tells its own cancellation from anybody else's.
        """
        task = asyncio.current_task()
        assert task is not None, "only tasks can wait"
        cancelling = task.cancelling()
        self._waiting[task] = deadline
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(BETWEEN_LOOKS, self._look)
        try:
            return await act()
        except asyncio.CancelledError:
            if task in self._late and task.uncancel() <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            del self._waiting[task]
            self._late.discard(task)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for task, deadline in self._waiting.items():
            if deadline <= loop.time() and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._looking = bool(self._waiting)
        if self._looking:
            loop.call_later(BETWEEN_LOOKS, self._look)
