"""Natural batching: while one transaction runs, what comes meanwhile waits, and shares the next one (decision 0013).

There is no timer, so one request alone waits for nobody. A lane runs one transaction at a time on one connection.
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


Ask_contra = TypeVar("Ask_contra", contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)


class Taking(Protocol[Ask_contra, Outcome_co]):
    """Whatever takes one request and has its outcome after the commit."""

    async def take(self, ask: Ask_contra, /) -> Outcome_co:
        """The outcome, or what it raises."""


class Lane(Generic[Ask, Outcome]):
    """Gives requests to `settle`, which answers any number of them, up to `most`, in one transaction."""

    def __init__(
        self,
        settle: Callable[[Sequence[Ask]], Awaitable[Sequence[Outcome | SettlementError]]],
        *,
        most: int = MOST_TOGETHER,
    ) -> None:
        self._settle = settle
        self._most = most
        self._waiting: list[tuple[Ask, asyncio.Future[Outcome | SettlementError]]] = []
        self._running: asyncio.Task[None] | None = None

    async def take(self, ask: Ask) -> Outcome:
        """The outcome of one request, after the commit. Raises its refusal, and what the database raises."""
        future: asyncio.Future[Outcome | SettlementError] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        outcome = await future
        if isinstance(outcome, SettlementError):
            raise outcome
        return outcome

    async def _run(self) -> None:
        """Nobody's own task, so that a caller who goes away does not take the others' transaction along."""
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if not await self._try(batch, alone=len(batch) == 1):
                for each in batch:
                    await self._try([each], alone=True)

    async def _try(
        self, batch: Sequence[tuple[Ask, asyncio.Future[Outcome | SettlementError]]], *, alone: bool
    ) -> bool:
        """Whether every request has its outcome now; a batch that fails is taken apart, to find whose fault it was."""
        try:
            outcomes = await self._settle([ask for ask, _ in batch])
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
