"""Nothing lost, doubled or stuck on the XRP Ledger: crash schedules on the shipped adapter, services and database.

SETTLEMENT_XRPL_SCHEDULES decides how many, 14 if unset, at more than a second of one core each; `make nightly` runs
10,000. `test_xrpl_adapter_schedules.py` runs a thousand without services and database in every test run. A long run
that never saw some fault, some code or some legal step counts as failed.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable

import pytest

from settlement.core.states import ORDER_STEPS
from tests.rippled.face import KINDS
from tests.simulation.harness import BY_A_PERSON, LONG, SURE
from tests.simulation.xrpl import RATES, STRANGER, XrplInstallation

pytestmark = pytest.mark.network

FRESH = int.from_bytes(os.urandom(4), "big")
CODES = ("tesSUCCESS", "terPRE_SEQ")
RARE = ("tefALREADY", "tefPAST_SEQ", "telINSUF_FEE_P")
"""Codes that only long runs are sure to see."""


async def run(new_database: Callable[[], str], schedules: int) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """That many schedules: on one node, on two that must agree, with tickets, and a tenth with a stranger."""
    fired: Counter[str] = Counter()
    walked: Counter[tuple[str, str]] = Counter()

    async def lane(number: int, count: int, rates: dict[str, int], *, nodes: int, tickets: bool) -> None:
        found = await XrplInstallation.begin(new_database(), number, nodes=nodes, tickets=tickets)
        try:
            for turn in range(count):
                await found.schedule(number * 1_000_000 + turn + (0 if turn % 2 else FRESH), rates)
            await found.audit(strangers=rates is STRANGER)
        finally:
            await found.close()
        for node in found.peer.nodes:
            fired.update(node.fired)
            fired.update({code: node.asked[code] for code in (*CODES, *RARE)})
        walked.update(found.walked)

    tenth = max(2, schedules // 10)
    async with asyncio.TaskGroup() as group:
        group.create_task(lane(1, schedules - 4 * tenth, RATES, nodes=1, tickets=False))
        group.create_task(lane(2, 2 * tenth, RATES, nodes=2, tickets=False))
        group.create_task(lane(3, tenth, RATES, nodes=1, tickets=True))
        group.create_task(lane(4, tenth, STRANGER, nodes=1, tickets=False))
    return fired, walked


def judge(schedules: int, fired: Counter[str], walked: Counter[tuple[str, str]]) -> None:
    """Red when something never happened; in short runs, when what happens in every one did not."""
    print(f"\n{schedules} schedules; faults and codes {dict(fired)}; steps {dict(walked)}")
    assert walked.keys() >= SURE
    assert {code for code in CODES if not fired[code]} == set()
    assert sum(fired[name] > 0 for name in KINDS) >= len(KINDS) // 2
    if schedules < LONG:
        return
    each = 100 * schedules // 10_000
    assert {name for name in (*KINDS, *CODES, *RARE) if fired[name] < each} == set()
    assert {step for step in ORDER_STEPS.keys() - BY_A_PERSON if walked[step] < max(1, each // 10)} == set()


async def test_nothing_lost_doubled_or_stuck_on_the_xrp_ledger(new_database: Callable[[], str]) -> None:
    schedules = int(os.environ.get("SETTLEMENT_XRPL_SCHEDULES", "14"))
    judge(schedules, *await run(new_database, schedules))


@pytest.mark.nightly
async def test_ten_thousand_schedules_on_the_xrp_ledger(new_database: Callable[[], str]) -> None:
    judge(10_000, *await run(new_database, 10_000))
