"""Natural batching: while one transaction runs, what comes meanwhile waits, and shares the next one (decision 0013).

There is no timer, so one request alone waits for nobody. A transaction reads and locks, decides, and then writes and
commits. While one writes, for which the disk is waited for, the next one reads; more than two never run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from settlement.core.errors import SettlementError, Unavailable

Ask = TypeVar("Ask")
Outcome = TypeVar("Outcome")

MOST_TOGETHER = 32
"""Enough that a transaction's own cost hardly counts, and few enough that the next are read while these commit: if all
who wait went together, their next requests would come together as well, and process and database work in turn."""
AT_ONCE = 2

Ask_contra = TypeVar("Ask_contra", contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)

Decided = Callable[[], None]
"""Called by a transaction when all is decided and it only has to be written; calling it again changes nothing."""


class Taking(Protocol[Ask_contra, Outcome_co]):
    """Whatever takes one request and has its outcome after the commit."""

    async def take(self, ask: Ask_contra, /) -> Outcome_co:
        """The outcome, or what it raises."""


class Lane(Generic[Ask, Outcome]):
    """Gives requests to `settle`, which answers any number of them, up to `most`, in one transaction."""

    def __init__(
        self,
        settle: Callable[[Sequence[Ask], Decided], Awaitable[Sequence[Outcome | SettlementError]]],
        *,
        most: int = MOST_TOGETHER,
    ) -> None:
        self._settle = settle
        self._most = most
        self._waiting: list[tuple[Ask, asyncio.Future[Outcome | SettlementError]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._deciding: asyncio.Task[None] | None = None

    async def take(self, ask: Ask) -> Outcome:
        """The outcome of one request, after the commit. Raises its refusal, and what the database raises."""
        future: asyncio.Future[Outcome | SettlementError] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, future))
        self._next()
        outcome = await future
        if isinstance(outcome, SettlementError):
            raise outcome
        return outcome

    def _next(self) -> None:
        """Start a transaction if requests wait and none is being decided on."""
        if self._waiting and self._deciding is None and len(self._running) < AT_ONCE:
            # Nobody's own task, so that a caller who goes away does not take the others' transaction along.
            self._deciding = task = asyncio.create_task(self._run())
            self._running.add(task)

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "this is a task of its own"
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]

        def decided() -> None:
            if self._deciding is task:
                self._deciding = None
                self._next()

        try:
            if not await self._try(batch, decided, alone=len(batch) == 1):
                for each in batch:
                    await self._try([each], decided, alone=True)
        finally:
            self._running.discard(task)
            decided()
            self._next()

    async def _try(
        self,
        batch: Sequence[tuple[Ask, asyncio.Future[Outcome | SettlementError]]],
        decided: Decided,
        *,
        alone: bool,
    ) -> bool:
        """Whether every request has its outcome now; a batch that fails is taken apart, to find whose fault it was."""
        try:
            outcomes = await self._settle([ask for ask, _ in batch], decided)
        except Exception as error:  # noqa: BLE001 - whatever it is, each of those who wait must hear of it
            if not alone and not isinstance(error, Unavailable):
                return False
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return True
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():  # else its caller has gone away
                future.set_result(outcome)
        return True
