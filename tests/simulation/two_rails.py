"""Two chains in one service: what a schedule of failover in the middle of a payout is, on whatever two networks.

Each schedule plans a window on the first chain, works on it while things go wrong, closes the chain at some moment and
gives it up as far as is provable; what came back to the balances is paid by the next window on the second chain, where
things go wrong too, while strangers may hand the first chain's old bytes over again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import Any, ClassVar

from sqlalchemy import text

from settlement.chain import Asset, ChainAdapter, Rejected, Unreachable
from settlement.core.errors import Unavailable
from settlement.core.journal import Entry, Posting
from settlement.services import chains, funding, halts, payouts, rails, solvency
from settlement.services.context import Context
from settlement.storage import accounts, chain_orders, checkpoints, governance, journal, positions, windows
from settlement.storage import rails as stored
from settlement.storage.checkpoints import Stored
from settlement.storage.parties import PayoutAddress
from settlement.storage.positions import Decided, Payee
from tests.simulation.crashing import Crash, CrashingAdapter
from tests.simulation.harness import Installation

MOMENTS = 7
"""Turns at which the first chain may be closed; seeds that follow each other take them all."""
WORTH = Fraction(2000, 9)
"""microCU per unit, on both: a dollar is 1/0.0045 CU."""


ANCHORS = """
    SELECT w.no, c.chain FROM "window" w CROSS JOIN chain_state c WHERE w.state = 'planned' AND (
        SELECT count(*) FROM chain_order o
        WHERE o.window_no = w.no AND o.chain = c.chain AND o.kind = 'anchor' AND o.state = 'settled') <> 1"""


class TwoRails(Installation):
    """An installation that settles on two networks; every payee has an address on both."""

    second: str
    second_asset: Asset
    rates: ClassVar[dict[str, int]]
    there: ChainAdapter | None = None
    elsewhere: dict[str, Any]

    # --- what the networks do otherwise ---------------------------------------------------------------------------

    def _there(self, wallet: Any) -> int:
        """What a wallet on the second network holds."""
        raise NotImplementedError

    def _new_there(self) -> Any:
        raise NotImplementedError

    def _break_there(self, seed: int) -> None:
        """Let things go wrong on the second network too, where that can be."""

    def _mend_there(self) -> None: ...

    # --- one schedule ---------------------------------------------------------------------------------------------

    async def begin_there(self) -> None:
        await funding.open_chain(self.process(), self.second)
        self.elsewhere = {}
        async with self.database.begin() as connection:
            for party_id, party_no, _ in self.payees:
                wallet = self.elsewhere[party_id] = self._new_there()
                now = self.sources.clock()
                address = PayoutAddress(self.second, self.second_asset.text, wallet.address, None, now)
                await stored.add_fallback(connection, party_no, address, b"{}", "test", now)

    def process(self) -> Context:
        base = super().process()
        if self.there is None:
            return base
        both = {**base.chains, self.second: CrashingAdapter(self.there, self.effects)}
        return replace(base, chains=both)

    async def decided(self, due: dict[str, int]) -> int:
        """A window that pays these providers, on the rail that the service chooses; returns its number."""
        context = self.process()
        async with self.database.begin() as connection:
            now = self.sources.clock()
            closed = await windows.close_open(connection, now)
            worth = {(self.chain, self.asset.text): WORTH, (self.second, self.second_asset.text): WORTH}
            payees = [Payee(party_id, micro, self.chain, self.asset.text) for party_id, micro in due.items()]
            policy = await governance.policy_at(connection, now)
            found = await rails.choose_rails(context, connection, closed.no, payees, worth, policy)
            rows = [
                Decided(closed.no, p.party, 0, p.due, p.due, 0, p.due, p.chain, p.asset, p.due * 9 // 2000, bytes(16))
                for p in found
            ]
            await positions.store(connection, rows)
            digest = sha256(b"checkpoint %d" % closed.no).digest()
            await checkpoints.store(connection, Stored(closed.no, digest, b"{}", [], 0, now), b"")
            await windows.advance(connection, closed.no, "checkpointed")
        return closed.no

    async def two_windows(self, seed: int, seen: Counter[str]) -> None:
        """One schedule; raises AssertionError naming the seed."""
        dice = random.Random(seed)
        units = {party_id: dice.randint(1, 10**6) * 9 for party_id, _, _ in self.payees}
        micro = {party_id: amount * 2000 // 9 for party_id, amount in units.items()}
        await self._earn(micro)
        before = {party_id: self._arrived(party_id, wallet) for party_id, _, wallet in self.payees}
        number = await self.decided(micro)
        self._break(seed, self.rates)
        self.effects.dice, self.effects.armed = dice, True
        closing = 1 + seed * 3 % MOMENTS
        for turn in range(closing + dice.randint(1, 4)):
            self.sources.settable.advance(seconds=4)
            await self._pause()
            await self._turn(dice, number, turn, closing, seen)
        self.effects.armed = False
        self._mend()
        try:
            await self._finish(seed, number, micro, seen)
            for party_id, _, wallet in self.payees:
                paid = self._arrived(party_id, wallet) - before[party_id]
                assert paid == units[party_id], f"{party_id} was paid {paid} of {units[party_id]}"
            await self._agree()
        except Exception as error:
            error.add_note(f"SIM_SEED={seed}")
            raise

    async def _earn(self, micro: dict[str, int]) -> None:
        async with self.database.begin() as connection:
            number = await windows.enter(connection)
            legs = [Posting(self.consumer, "CU", -sum(micro.values()))]
            legs += [Posting(party_id, "CU", amount) for party_id, amount in micro.items()]
            entry = Entry("usage", self.sources.new_id("rep"), number, self.sources.clock(), tuple(legs))
            await journal.append(connection, entry)

    async def _turn(self, dice: random.Random, number: int, turn: int, closing: int, seen: Counter[str]) -> None:
        context = self.process()
        jobs: list[Coroutine[None, None, object]] = [
            payouts.plan(context, number) if turn < 1 else chains.run_once(context, self.chain)
        ]
        if turn >= closing:
            jobs.append(self._fail_over(context, seen))
        await _cut_off(jobs)

    async def _fail_over(self, context: Context, seen: Counter[str]) -> None:
        await self._close(context)
        found = await rails.give_up(context, self.chain)
        seen["returned early"] += found.payouts
        seen["left in flight"] += found.in_flight

    async def _close(self, context: Context) -> None:
        async with self.database.read() as connection:
            closed = await stored.closed(connection, self.chain)
        if closed is None:
            await rails.close(context, self.chain, "the simulation says so")

    async def _finish(self, seed: int, number: int, micro: dict[str, int], seen: Counter[str]) -> None:
        """Healing: what is out on the first chain ends, the rest is given up and paid on the second one."""
        context = self.process()
        await payouts.plan(context, number)
        await self._close(context)
        for _ in range(90):
            await chains.run_once(context, self.chain)
            found = await rails.give_up(context, self.chain)
            seen["returned late"] += found.payouts
            if not found.in_flight:
                break
            await self._pause()
        assert not found.in_flight
        await self._clear(context)
        back = await self._back(micro)
        seen["failed over"] += len(back)
        seen["paid on the first"] += len(micro) - len(back)
        await self._replay(context)
        if back:
            await self._pay_there(seed, back)
        await rails.open_again(context, self.chain)
        for chain in (self.chain, self.second):
            await chains.run_until_idle(context, chain, max_passes=120, pause=self._pause)

    async def _agree(self) -> None:
        """Books and both chains say the same, and nothing is on its way."""
        context = self.process()
        for chain in (self.chain, self.second):
            await funding.read_deposits(context, chain)
            assert await self._reconciled(context, chain)
        assert await halts.open_halts(context) == []
        async with self.database.read() as connection:
            assert (await accounts.get(connection, "transit/CU")).settled == 0
            rows = await connection.execute(text(ANCHORS))
            assert [tuple(row) for row in rows] == [], "every window is anchored on both"

    async def _pay_there(self, seed: int, back: dict[str, int]) -> None:
        """The next window, on the second chain, while processes die and that chain has its faults as well."""
        later = await self.decided(back)
        made = await rails.choices(self.process(), later)
        assert {each.chain for each in made} == {self.second}
        assert "closed by the operator" in made[0].reason
        await payouts.plan(self.process(), later)
        self._break_there(seed)
        self.effects.armed = True
        for _ in range(4):
            await self._pause()
            await _cut_off([chains.run_once(self.process(), self.second) for _ in range(2)])
        self.effects.armed = False
        self._mend_there()
        for _ in range(6):
            done = await chains.run_until_idle(self.process(), self.second, max_passes=120, pause=self._pause)
            await self._clear(self.process())
            if not done.halted:
                break
        assert done.idle
        assert {each.state for each in await payouts.of_window(self.process(), later)} == {"settled"}

    async def _clear(self, context: Context) -> None:
        for halt in await halts.open_halts(context):
            assert halt.code == "orders_failing", halt
            await halts.clear(context, halt.no, "operator")

    async def _back(self, micro: dict[str, int]) -> dict[str, int]:
        """What the providers have on their balances again."""
        async with self.database.read() as connection:
            found = {each.id: each.settled for each in await accounts.of_kinds(connection, "provider")}
        assert all(found[party_id] in (0, amount) for party_id, amount in micro.items())
        return {party_id: amount for party_id, amount in micro.items() if found[party_id]}

    async def _replay(self, context: Context) -> None:
        """Whoever kept the first chain's bytes hands all of them over again: nothing of what was given up lands."""
        async with self.database.read() as connection:
            orders = await chain_orders.in_states(connection, self.chain, ("failed",))
            attempts = await chain_orders.attempts(connection, [order.id for order in orders])
        newest = [tx for made in attempts.values() for tx in made][-40:]
        for tx in newest:
            with suppress(Unreachable, Rejected):
                await context.chains[self.chain].submit(tx)
        for _ in range(3):
            await self._pause()

    async def _reconciled(self, context: Context, chain: str) -> bool:
        """Whether books and chain were compared and agree; a moment at which they can be may take a few looks."""
        for _ in range(40):
            if await solvency.reconcile_holdings(context, chain) is not None:
                return True
            await self._pause()
            await funding.read_deposits(context, chain)
        return False

    def _arrived(self, party_id: str, wallet: Any) -> int:
        return self._balance(wallet) + self._there(self.elsewhere[party_id])


async def _cut_off(jobs: list[Coroutine[None, None, object]]) -> None:
    """Let them run at once; each may die on the way or be told to come back later."""
    for result in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, (Crash, Unavailable)):
            raise result


def judge(schedules: int, seen: Counter[str]) -> None:
    """Red when something never happened."""
    print(f"\n{schedules} schedules: {dict(seen)}")
    rare = ("left in flight", "returned late") if schedules >= 25 else ()
    for wanted in ("failed over", "paid on the first", *rare):
        assert seen[wanted], f"no schedule had anything {wanted}: it has proven nothing about it"
