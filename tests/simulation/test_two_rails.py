"""Two chains in one service: failover in the middle of a payout, with crashes and faults on both, pays nobody twice.

Each schedule plans a window on the first chain, works on it while things go wrong, closes the chain at some moment and
gives it up as far as is provable; what came back to the balances is paid by the next window on the second chain, while
strangers may hand the first chain's old bytes over again.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

from adapters.simulated import USD, Faults, Network, SimulatedAdapter, Wallet
from settlement.chain import Rejected, Unreachable
from settlement.core.errors import Unavailable
from settlement.core.journal import Entry, Posting
from settlement.core.signatures import SigningKey
from settlement.services import chains, funding, halts, payouts, rails, solvency
from settlement.services.context import Context
from settlement.storage import accounts, chain_orders, checkpoints, governance, journal, positions, windows
from settlement.storage import rails as stored
from settlement.storage.checkpoints import Stored
from settlement.storage.parties import PayoutAddress
from settlement.storage.positions import Decided, Payee
from tests.simulation.harness import CHAIN, RATES, Crash, CrashingAdapter, Installation, _open

SECOND = "second"
WORTH = Fraction(2000, 9)
"""microCU per unit: a dollar is 1/0.0045 CU."""


async def _reconciled(context: Context, chain: str) -> bool:
    """Whether books and chain were compared and agree; a moment at which they can be may take a few looks."""
    for _ in range(20):
        if await solvency.reconcile_holdings(context, chain) is not None:
            return True
        await funding.read_deposits(context, chain)
    return False


class TwoRails(Installation):
    """An installation that settles on two networks; every payee has an address on both."""

    other: Network
    steady: Network
    elsewhere: dict[str, Wallet]

    async def begin(self, folder: Path, seed: int) -> None:
        self.other = self.steady = _network(folder / f"second-{seed}.sqlite", self)
        self.other.create_account(self.treasury.address, sim=10**12, usd=10**12)
        await funding.open_chain(self.process(), SECOND)
        self.elsewhere = {}
        async with self.database.begin() as connection:
            for party_id, party_no, _ in self.payees:
                wallet = Wallet.create(self.steady, self.sources.entropy(32))
                self.elsewhere[party_id] = wallet
                now = self.sources.clock()
                address = PayoutAddress(SECOND, USD.text, wallet.address, None, now)
                await stored.add_fallback(connection, party_no, address, b"{}", "test", now)

    def process(self) -> Context:
        base = super().process()
        if not hasattr(self, "other"):
            return base
        second = CrashingAdapter(SimulatedAdapter(self.other, self.treasury), self.effects)
        return Context(
            base.database, base.sources, SigningKey(sha256(b"service").digest()), {**base.chains, SECOND: second}
        )

    async def decided(self, due: dict[str, int]) -> int:
        """A window that pays these providers, on the rail that the service chooses; returns its number."""
        context = self.process()
        async with self.database.begin() as connection:
            now = self.sources.clock()
            closed = await windows.close_open(connection, now)
            worth = {(chain, USD.text): WORTH for chain in context.chains}
            payees = [Payee(party_id, micro, CHAIN, USD.text) for party_id, micro in due.items()]
            policy = await governance.policy_at(connection, now)
            found = await rails.choose_rails(context, connection, closed.no, payees, worth, policy)
            rows = [
                Decided(closed.no, p.party, 0, p.due, p.due, 0, p.due, p.chain, USD.text, p.due * 9 // 2000, bytes(16))
                for p in found
            ]
            await positions.store(connection, rows)
            digest = sha256(b"checkpoint %d" % closed.no).digest()
            await checkpoints.store(connection, Stored(closed.no, digest, b"{}", [], 0, b"", now))
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
        self._fault(seed)
        self.effects.dice, self.effects.armed = dice, True
        closing = dice.randint(1, 7)
        for turn in range(closing + dice.randint(1, 4)):
            self.sources.settable.advance(seconds=4)
            await self._turn(dice, number, turn, closing, seen)
        self.effects.armed = False
        self._heal_networks()
        await self._finish(number, micro, seen)
        for party_id, _, wallet in self.payees:
            paid = self._arrived(party_id, wallet) - before[party_id]
            assert paid == units[party_id], f"SIM_SEED={seed}: {party_id} was paid {paid} of {units[party_id]}"

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
            payouts.plan(context, number) if turn < 1 else chains.run_once(context, CHAIN)
        ]
        if turn >= closing:
            jobs.append(self._fail_over(context, seen))
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, (Crash, Unavailable)):
                raise result

    async def _fail_over(self, context: Context, seen: Counter[str]) -> None:
        async with self.database.read() as connection:
            closed = await stored.closed(connection, CHAIN)
        if closed is None:
            await rails.close(context, CHAIN, "the simulation says so")
        found = await rails.give_up(context, CHAIN)
        seen["returned early"] += found.payouts
        seen["left in flight"] += found.in_flight

    async def _finish(self, number: int, micro: dict[str, int], seen: Counter[str]) -> None:
        """Healing: what is out on the first chain ends, the rest is given up and paid on the second one."""
        context = self.process()
        async with self.database.read() as connection:
            closed = await stored.closed(connection, CHAIN)
        await payouts.plan(context, number)
        if closed is None:
            await rails.close(context, CHAIN, "the simulation says so")
        for _ in range(60):
            await chains.run_once(context, CHAIN)
            found = await rails.give_up(context, CHAIN)
            seen["returned late"] += found.payouts
            if not found.in_flight:
                break
        assert not found.in_flight
        for halt in await halts.open_halts(context):
            assert halt.code == "orders_failing", halt
            await halts.clear(context, halt.no, "operator")
        back = await self._back(micro)
        seen["failed over"] += len(back)
        seen["paid on the first"] += len(micro) - len(back)
        await self._replay(context)
        if back:
            later = await self.decided(back)
            made = await rails.choices(context, later)
            assert {each.chain for each in made} == {SECOND}
            assert "closed by the operator" in made[0].reason
            await payouts.plan(context, later)
            done = await chains.run_until_idle(context, SECOND, max_passes=60)
            assert done.idle
            assert {each.state for each in await payouts.of_window(context, later)} == {"settled"}
        await rails.open_again(context, CHAIN)
        for chain in (CHAIN, SECOND):
            await chains.run_until_idle(context, chain, max_passes=60)
            await funding.read_deposits(context, chain)
            assert await _reconciled(context, chain)
        assert await halts.open_halts(context) == []
        async with self.database.read() as connection:
            assert (await accounts.get(connection, "transit/CU")).settled == 0

    async def _back(self, micro: dict[str, int]) -> dict[str, int]:
        """What the providers have on their balances again."""
        async with self.database.read() as connection:
            found = {each.id: each.settled for each in await accounts.of_kinds(connection, "provider")}
        assert all(found[party_id] in (0, amount) for party_id, amount in micro.items())
        return {party_id: amount for party_id, amount in micro.items() if found[party_id]}

    async def _replay(self, context: Context) -> None:
        """Whoever kept the first chain's bytes hands all of them over again: nothing of what was given up lands."""
        async with self.database.read() as connection:
            orders = await chain_orders.in_states(connection, CHAIN, ("failed",))
            attempts = await chain_orders.attempts(connection, [order.id for order in orders])
        for tx in (tx for made in attempts.values() for tx in made):
            with suppress(Unreachable, Rejected):
                await context.chains[CHAIN].submit(tx)
        for _ in range(3):
            self.network.close_ledger()

    def _fault(self, seed: int) -> None:
        self.node = _open(self.path, self.sources, faults=Faults(seed, RATES))

    def _heal_networks(self) -> None:
        self.node.close()
        self.node = self.network
        self.network.heal()

    def _arrived(self, party_id: str, wallet: Wallet) -> int:
        return wallet.balance(USD) + self.elsewhere[party_id].balance(USD)


def _network(path: Path, made: TwoRails) -> Network:
    return Network(
        path, "second", clock=made.sources.clock, close_interval=timedelta(0), transfers=3, atomic=True, durable=False
    )


async def run(new_database: Callable[[], str], folder: Path, schedules: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    made = await TwoRails.found(new_database(), folder, 77)
    assert isinstance(made, TwoRails)
    await made.begin(folder, 77)
    try:
        fresh = int.from_bytes(os.urandom(4), "big")
        for turn in range(schedules):
            await made.two_windows(turn if turn % 2 else fresh + turn, seen)
        seen.update(made.effects.died)
    finally:
        await made.close()
        made.other.close()
    return seen


async def test_failover_between_two_chains_pays_everybody_once(new_database: Callable[[], str], tmp_path: Path) -> None:
    schedules = int(os.environ.get("SETTLEMENT_RAIL_SCHEDULES", "25"))
    seen = await run(new_database, tmp_path, schedules)
    print(f"\n{schedules} schedules: {dict(seen)}")
    for wanted in ("failed over", "paid on the first", "left in flight", "returned late"):
        assert seen[wanted], f"no schedule had anything {wanted}: it has proven nothing about it"
