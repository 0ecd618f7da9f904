"""Nothing lost, doubled or stuck on Stellar: crash schedules on the shipped adapter over real sockets.

A worker that keeps the rules dies at any await; requests and answers are lost, transactions come late or to their very
last ledger, nodes restart, lag and forget. After healing everything must have ended, once, and the deposits must be
those that were sent. A second worker, which takes an error for an outcome, must be caught by the same judge.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from stellar_sdk import IdMemo

from adapters.stellar import StellarAdapter
from settlement.chain import Gap, PayoutOrder, Transfer, Unpayable, Unreachable
from tests.adapters.contract import Books, Crash, Worker, hand_over
from tests.stellarnet.network import KINDS, Plan, StellarNet, payments_with
from tests.stellarnet.peer import USDC, StellarPeer, payment, root_of

pytestmark = pytest.mark.network

CHANCES = {
    "unreachable": 15_000,
    "request_lost": 120_000,
    "reply_lost": 150_000,
    "duplicate": 80_000,
    "late": 200_000,
    "at_last": 100_000,
    "restart": 60_000,
    "failed": 120_000,
    "fee_spike": 40_000,
    "lagging": 30_000,
    "gap": 30_000,
    "try_again": 60_000,
    "stranger": 60_000,
}
"""Chances in millionths, most of them for each request: far worse than any real node."""
STALL = 400


class Schedule(Worker):
    """One seed: four payout orders and some deposits."""

    adapter: StellarAdapter

    def __init__(self, peer: StellarPeer, seed: int, *, naive: bool = False) -> None:
        self.peer, self.naive = peer, naive
        self.adapter = peer.adapter
        self.dice = random.Random(seed)
        self.healed = False
        self.books = Books({})
        self.sent: dict[str, int] = {}
        self.deaths = 0
        self.refused: set[int | None] = set()

    async def begin(self) -> None:
        for number in range(4):
            name = f"ord_{number}"
            lines = range(self.dice.randint(1, 4))
            made = [Transfer(await self.peer.payee(), USDC, 10**number + n, None, f"pay_{number}_{n}") for n in lines]
            self.books.orders[name] = PayoutOrder(name, tuple(made))
        for _ in range(7):
            self.peer.net.close()

    def may_die(self) -> None:
        if not self.healed and self.dice.random() < 0.04:
            raise Crash

    async def round(self) -> None:
        if self.dice.random() < 0.3 and not self.healed:
            amount = self.dice.randint(2, 1_000)
            self.sent[self.peer.net.send(self.peer.customer(usdc=10**6), [payment(amount)], IdMemo(7))] = amount
        open_orders = sorted(set(self.books.orders) - set(self.books.ended))
        try:
            if open_orders:
                await (self.naive_step if self.naive else self.step)(self.dice.choice(open_orders))
            await self.poll()
        except (Unreachable, Gap):
            pass
        except Unpayable as why:
            self.refused.add(why.culprit)
        except Crash:
            self.deaths += 1
        for _ in range(self.dice.choice((0, 1, 1, 2, 4))):
            self.peer.net.close()

    async def naive_step(self, name: str) -> None:
        """What a service does that takes an exception for an outcome: sign again on the next free slot."""
        tx = await self.adapter.prepare(self.books.orders[name], slot=None, busy=())
        if await hand_over(self.adapter, tx) in ("", "DUPLICATE"):
            self.books.ended[name] = "settled"

    async def run(self, plan: Plan) -> None:
        self.peer.net.plan = plan
        await self.begin()
        for _ in range(25):
            await self.round()
        self.healed = True
        self.peer.net.plan = Plan()
        for _ in range(STALL):
            if len(self.books.ended) == len(self.books.orders):
                break
            await self.round()
        for _ in range(20):
            self.peer.net.close()
        await self.poll()

    async def judge(self) -> None:
        """What the network alone says. Raises AssertionError."""
        assert self.refused <= {None}, "every payee can be paid"
        assert self.books.ended.keys() == self.books.orders.keys(), "stuck"
        for name, order in self.books.orders.items():
            landed = [each.ok for each in payments_with(self.peer.net, root_of(order))]
            assert landed.count(True) == (self.books.ended[name] == "settled"), (name, self.books.ended[name], landed)
            for transfer in order.transfers:
                arrived = await self.peer.balance(transfer.to, transfer.asset)
                assert arrived == transfer.amount * landed.count(True), (name, arrived)
        credited = {deposit.id[0]: deposit.amount for deposit in self.books.credited}
        assert credited == self.sent
        assert len(self.books.credited) == len(self.sent)


async def run(seed: int, *, naive: bool = False) -> tuple[Schedule, Counter[str]]:
    peer = await StellarPeer.start(StellarNet())
    plan = Plan(seed, CHANCES)
    try:
        found = Schedule(peer, seed, naive=naive)
        await found.run(plan)
        await found.judge()
    finally:
        await peer.stop()
    return found, plan.fired


async def test_nothing_lost_doubled_or_stuck_on_stellar() -> None:
    schedules = int(os.environ.get("SETTLEMENT_STELLAR_SCHEDULES", "25"))
    fresh = int.from_bytes(os.urandom(4), "big")
    fired: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for turn in range(schedules):
        seed = turn if turn % 2 else fresh + turn
        try:
            found, seen = await run(seed)
        except Exception as error:
            error.add_note(f"SIM_SEED={seed}")
            raise
        fired += seen
        ends.update(found.books.ended.values())
        ends["deaths"] += found.deaths
    print(f"\n{schedules} schedules; faults {dict(fired)}; ends {dict(ends)}")
    assert {kind for kind in KINDS if not fired[kind]} == set()
    assert ends["settled"]
    assert ends["deaths"]


async def test_a_worker_that_takes_an_error_for_an_outcome_is_caught() -> None:
    caught = 0
    for seed in range(6):
        try:
            await run(seed, naive=True)
        except AssertionError:
            caught += 1
    assert caught, "a judge that finds nothing here proves nothing above"


@pytest.mark.nightly
async def test_a_thousand_schedules_on_stellar() -> None:
    for seed in range(1_000):
        try:
            await run(seed)
        except Exception as error:
            error.add_note(f"SIM_SEED={seed}")
            raise
