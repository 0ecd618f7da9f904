"""One timer for many waits: who is late is ended and told so, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from settlement.api import deadlines
from settlement.api.deadlines import Deadlines


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "BETWEEN_LOOKS", 0.01)


def soon(seconds: float = 0.02) -> float:
    return asyncio.get_running_loop().time() + seconds


async def never() -> None:
    await asyncio.Event().wait()


async def test_what_is_in_time_is_answered_and_leaves_no_timer() -> None:
    found = Deadlines()

    async def at_once() -> str:
        return "here"

    assert await found.until(soon(60), at_once) == "here"
    await asyncio.sleep(0.05)
    assert not found._looking
    assert await found.until(soon(60), at_once) == "here", "and it looks again when somebody waits again"
    assert found._looking


async def test_who_is_late_is_told_so_and_may_go_on() -> None:
    found = Deadlines()
    with pytest.raises(TimeoutError):
        await found.until(soon(), never)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "nothing is left of the cancellation"
    await asyncio.sleep(0)


async def test_the_others_go_on_waiting() -> None:
    found, late, gate = Deadlines(), soon(), asyncio.Event()
    outcomes = asyncio.gather(
        found.until(late, never), found.until(soon(60), gate.wait), found.until(late, never), return_exceptions=True
    )
    await asyncio.sleep(0.1)
    gate.set()
    first, second, third = await outcomes
    assert isinstance(first, TimeoutError)
    assert second is True
    assert isinstance(third, TimeoutError)


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    found = Deadlines()
    task = asyncio.create_task(found.until(soon(60), never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not found._waiting
