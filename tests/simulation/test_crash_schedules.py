"""Nothing lost, nothing doubled, nothing stuck: seeded crash schedules over the whole way of the money.

Every run takes fixed seeds and, beside them, fresh ones; a failure names its seed as SIM_SEED. How many is decided by
SETTLEMENT_SCHEDULES (20 if unset); `make nightly` runs 10,000. From 1,000 on, a run that never saw some fault,
some legal step or some place to die counts as failed: it has proven nothing about it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from settlement.core.states import ORDER_STEPS
from tests.simulation.harness import BY_A_PERSON, LONG, RATES, STRANGER, SURE, Installation

SIDE_BY_SIDE = 3
FRESH = int.from_bytes(os.urandom(4), "big")


async def run(
    new_database: Callable[[], str], folder: Path, schedules: int
) -> tuple[Counter[str], Counter[tuple[str, str]], Counter[str]]:
    """That many schedules on three installations side by side; on one of them a stranger has our key."""
    fired: Counter[str] = Counter()
    walked: Counter[tuple[str, str]] = Counter()
    died: Counter[str] = Counter()

    async def one(lane: int, count: int, rates: dict[str, int], *, transfers: int, atomic: bool) -> None:
        found = await Installation.found(new_database(), folder, lane, transfers=transfers, atomic=atomic)
        for turn in range(count):
            await found.schedule((lane * 1_000_000 + turn) if turn % 2 else FRESH + lane * 1_000_000 + turn, rates)
        await found.audit(strangers="stranger" in rates)
        fired.update({kind: count for kind, (_, count) in found.network.fault_counts().items()})
        walked.update(found.walked)
        died.update(found.effects.died)
        await found.close()

    each, strange = schedules * 2 // 5, max(6, schedules // 5)
    rates = STRANGER if schedules >= LONG else {**STRANGER, "stranger": 240_000}
    await asyncio.gather(
        one(1, each, RATES, transfers=3, atomic=True),
        one(2, each, RATES, transfers=2, atomic=False),
        one(3, strange, rates, transfers=1, atomic=True),
    )
    return fired, walked, died


def judge_coverage(schedules: int, fired: Counter[str], walked: Counter[tuple[str, str]], died: Counter[str]) -> None:
    """Red when something never happened; in short runs, when what happens in every one did not."""
    print(f"\n{schedules} schedules; faults {dict(fired)}; steps {dict(walked)}; deaths {dict(died)}")
    assert walked.keys() >= SURE
    assert sum(fired[kind] > 0 for kind in STRANGER) >= len(STRANGER) // 2
    assert died
    if schedules < LONG:
        return
    at_least = schedules // 1000
    assert {kind for kind in STRANGER if fired[kind] < at_least} == set()
    assert {step for step in ORDER_STEPS.keys() - BY_A_PERSON if walked[step] < at_least} == set()
    places = {
        f"{side} {call}"
        for side in ("before", "after")
        for call in ("commit", "prepare", "submit", "status", "deposits")
    }
    assert {place for place in places if died[place] < at_least} == set()


async def test_nothing_lost_doubled_or_stuck(new_database: Callable[[], str], tmp_path: Path) -> None:
    schedules = int(os.environ.get("SETTLEMENT_SCHEDULES", "20"))
    judge_coverage(schedules, *await run(new_database, tmp_path, schedules))


@pytest.mark.nightly
async def test_ten_thousand_schedules(new_database: Callable[[], str], tmp_path: Path) -> None:
    judge_coverage(10_000, *await run(new_database, tmp_path, 10_000))
