"""Crash schedules: the real services on a real PostgreSQL and the simulated network, cut off anywhere, then judged.

One integer seed decides a schedule: which faults fire, where processes die, which worker does what. A process dies by
`Crash`, which no service catches, before or after a commit or a call of the chain; what it knew is gone, and the next
one starts from the rows. After the faults comes healing; then everything must be finished, once, and add up.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import text

from adapters.simulated import USD, Faults, Key, Network, SimulatedAdapter, Wallet
from settlement.core import canonical
from settlement.core.errors import Unavailable
from settlement.core.ids import public_id, uuid7
from settlement.core.journal import Entry, Posting
from settlement.core.policy import Policy, to_micro
from settlement.core.rails import RailRules
from settlement.core.signatures import SigningKey
from settlement.core.withdrawals import WithdrawalRules
from settlement.services import chains, funding, halts, payouts, refunds, solvency, withdrawals
from settlement.services.context import Context
from settlement.storage import accounts, checkpoints, governance, journal, parties, positions, windows
from settlement.storage.checkpoints import Stored
from settlement.storage.database import Connection
from settlement.storage.governance import Signed
from settlement.storage.parties import PayoutAddress
from settlement.storage.positions import Decided
from tests.simulation.crashing import Crash, CrashingAdapter, CrashingDatabase, Effects
from tests.world import START, SeededSources

CHAIN = "simulated"
PAYEES = 5
RATES = {
    "unreachable": 30_000,
    "request_lost": 150_000,
    "reply_lost": 200_000,
    "duplicate": 100_000,
    "late": 200_000,
    "at_last": 50_000,
    "restart": 100_000,
    "failed": 80_000,
    "fee_spike": 30_000,
    "lagging": 80_000,
    "gap": 80_000,
}
"""Chances in millionths; far worse than any real node."""
STRANGER = {**RATES, "stranger": 80_000}

LONG = 1_000
"""Schedules from which on a run must have taken every legal step, but those of `BY_A_PERSON`, and seen every fault."""
SURE = {("planned", "signed"), ("signed", "submitted"), ("signed", "unknown"), ("submitted", "settled")}
"""Steps of most schedules, so that any run takes them; tests/services/test_chains.py takes every step on purpose."""
BY_A_PERSON = {("contested", "settled")}
"""Needs a node that lied before."""

PATIENT = RailRules(stale=timedelta(days=9_999), stuck=timedelta(days=9_999))
"""The clocks of networks and service go apart here."""

WITHDRAWALS = WithdrawalRules(minimum=10, fee=3, daily_limit=10**17, daily_total=10**18)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What the consumer asks for, under the digest that names its request for good."""

    request: bytes
    amount: int


@dataclass
class Installation:
    """A database and a network that many schedules run on, one window each."""

    network: Network
    path: Path
    node: Network
    sources: SeededSources
    effects: Effects
    database: CrashingDatabase
    treasury: Key
    consumer: str = ""
    payer: Wallet | None = None
    payees: list[tuple[str, int, Any]] = field(default_factory=list)
    expected_credit: int = 0
    deposits_sent: int = 0
    walked: Counter[tuple[str, str]] = field(default_factory=Counter)
    patience: tuple[int, int] = (12, 120)
    """How often an operator comes back, and how many passes the workers make each time, before something is stuck."""
    own: Any = None
    """The consumer's wallet, where its withdrawals go."""
    paid: int = 0
    """What the payer has ever sent."""
    payer_had: int = 0

    @classmethod
    async def found(cls, url: str, folder: Path, seed: int, *, transfers: int = 3, atomic: bool = True) -> Installation:
        sources = SeededSources(seed)
        path = folder / f"network-{seed}.sqlite"
        network = _open(path, sources, transfers=transfers, atomic=atomic)
        effects = Effects(random.Random(seed))
        database = CrashingDatabase(url, effects)
        made = cls(network, path, network, sources, effects, database, Key(sources.entropy(32)))
        network.create_account(made.treasury.address, sim=10**12, usd=10**9)
        await made._found()
        return made

    async def close(self) -> None:
        await self.database.close()
        self.network.close()

    def process(self) -> Context:
        """A fresh process: nothing in it but configuration."""
        adapter = CrashingAdapter(SimulatedAdapter(self.node, self.treasury), self.effects)
        return Context(self.database, self.sources, SigningKey(sha256(b"service").digest()), {CHAIN: adapter})

    # --- what another network does otherwise ----------------------------------------------------------------------

    chain = CHAIN
    asset = USD
    worths: ClassVar = {"USD": Fraction(1), "RLUSD": Fraction(1), "USDC": Fraction(10)}
    """Of one whole unit, such that the smallest unit is worth the same on every network."""

    def _wallet(self, *, usd: int = 0) -> Any:
        """A stranger's wallet, with an address."""
        return Wallet.create(self.network, self.sources.entropy(32), usd=usd)

    def _pay(self, amount: int, tag: int | None) -> None:
        assert self.payer is not None
        self.payer.pay(self.treasury.address, USD, amount, tag)

    def _balance(self, wallet: Any) -> int:
        return int(wallet.balance(USD))

    def _shy(self, address: str, shy: bool) -> None:
        """From now on, or no longer, the address takes no money without a reference."""
        self.network.require_reference(address, shy)

    def _break(self, seed: int, rates: dict[str, int]) -> None:
        self.node = _open(self.path, self.sources, faults=Faults(seed, rates))

    def _mend(self) -> None:
        self.node.close()
        self.node = self.network
        self.network.heal()

    def _next_number(self, account: str) -> int:
        found = self.network.account(account)
        assert found is not None
        return found.sequence

    def _landed(self, order_id: str, attempts: Sequence[str]) -> list[tuple[str, int]]:
        """(id, ledger) of every transaction that succeeded for an order, as the chain alone knows it."""
        found = self.network.by_invoice(order_id)
        return [(final.id, final.at.number) for final in found if final.result == "ok"]

    def _spent(self) -> dict[str, int]:
        """The fee of every final transaction of the treasury, by id."""
        with closing(sqlite3.connect(self.path)) as ledger:
            query = "SELECT id, fee FROM final WHERE account = ?"
            return dict(ledger.execute(query, (self.treasury.address,)).fetchall())

    async def _pause(self) -> None:
        """Let the network go on while a worker waits; the simulated one goes on whenever it is looked at."""

    # --- founding -------------------------------------------------------------------------------------------------

    async def _found(self) -> None:
        since, worths = START - timedelta(days=1), self.worths
        policy = Policy(1, since, usd_per_asset=worths, minimum_payout=1, rails=PATIENT, withdrawals=WITHDRAWALS)
        document = policy.document()
        digest = canonical.digest_raw(canonical.digest(document))
        async with self.database.begin() as connection:
            await windows.open_first(connection, self.sources.clock())
            signed = Signed(1, digest, policy.effective_from, document, [])
            await governance.publish_policy(connection, signed)
            self.consumer = await self._party(connection, "consumer")
        await funding.open_chain(self.process(), self.chain)
        self.payer = self._wallet(usd=10**15)
        self.payer_had = self._balance(self.payer)
        self.own = self._wallet()
        async with self.database.begin() as connection:
            consumer, now = await parties.get(connection, self.consumer), self.sources.clock()
            proven = PayoutAddress(self.chain, self.asset.text, self.own.address, None, now, {"signature": "seen"})
            await parties.add_payout_address(connection, consumer.no, proven, b"{}", "", now)
        for _ in range(PAYEES):
            wallet = self._wallet()
            async with self.database.begin() as connection:
                party_id = await self._party(connection, "provider")
                party = await parties.get(connection, party_id)
                address = PayoutAddress(self.chain, self.asset.text, wallet.address, None, self.sources.clock())
                await parties.add_payout_address(connection, party.no, address, b"{}", "", self.sources.clock())
            self.payees.append((party_id, party.no, wallet))
        await self.pay_in(10**12)
        await self._pause()
        await funding.read_deposits(self.process(), self.chain)

    async def _party(self, connection: Connection, kind: str) -> str:
        now = self.sources.clock()
        party_id = public_id("acc" if kind == "consumer" else "prv", uuid7(now, self.sources.entropy))
        await parties.add(
            connection, party_id=party_id, kind=kind, name=kind, status="active", account_id=None, now=now
        )
        return party_id

    async def pay_in(self, amount: int, *, reference: bool = True) -> None:
        """The consumer pays the treasury; without the reference the money must end in suspense."""
        tag = None
        if reference:
            intent = await funding.create_intent(
                self.process(), party=self.consumer, chain=self.chain, asset=self.asset.text, amount=None
            )
            tag = intent.reference
            self.expected_credit += to_micro(amount, Fraction(1_000_000_000, 4_500_000))
        self._pay(amount, tag)
        self.paid += amount
        self.deposits_sent += 1

    async def window(self, dice: random.Random) -> tuple[int, dict[str, int]]:
        """Close a window in which every payee earned something; returns its number and what each is due, in units."""
        due = {party_id: dice.randint(1, 5_000_000) for party_id, _, _ in self.payees}
        now = self.sources.clock()
        async with self.database.begin() as connection:
            number = await windows.enter(connection)
            micro = {party_id: -(-units * 1_000_000_000 // 4_500_000) for party_id, units in due.items()}
            legs = [Posting(self.consumer, "CU", -sum(micro.values()))]
            legs += [Posting(party_id, "CU", amount) for party_id, amount in micro.items()]
            entry = Entry("usage", self.sources.new_id("rep"), number, now, tuple(legs))
            await journal.append(connection, entry)
        async with self.database.begin() as connection:
            closed = await windows.close_open(connection, now)
            decided = [
                Decided(
                    closed.no, p, 0, micro[p], micro[p], 0, micro[p], self.chain, self.asset.text, due[p], bytes(16)
                )
                for p in due
            ]
            await positions.store(connection, decided)
            digest = sha256(b"checkpoint %d" % closed.no).digest()
            await checkpoints.store(connection, Stored(closed.no, digest, b"{}", [], 0, now), b"")
            await windows.advance(connection, closed.no, "checkpointed")
        return closed.no, due

    # --- one schedule ---------------------------------------------------------------------------------------------

    async def schedule(self, seed: int, rates: dict[str, int] = RATES) -> None:
        """Run one schedule and judge it. Raises AssertionError naming the seed."""
        dice = random.Random(seed)
        await self.pay_in(dice.randint(1, 10**6), reference=dice.random() < 0.8)
        number, due = await self.window(dice)
        before = {party_id: self._balance(wallet) for party_id, _, wallet in self.payees}
        asked = Withdrawal(sha256(b"withdrawal %d" % number).digest(), dice.randint(1_000, 10**9))
        self._break(seed, rates)
        self.effects.dice, self.effects.armed = dice, True
        shy = self.payees[dice.randrange(PAYEES)][2].address if dice.random() < 0.3 else None
        if shy:
            self._shy(shy, True)
        for turn in range(dice.randint(6, 12)):
            self.sources.settable.advance(seconds=4)
            await self._pause()
            await self._step(dice, number, turn, asked)
        if shy:
            self._shy(shy, False)
        self.effects.armed = False
        self._mend()
        try:
            await self._heal(number, asked)
            await self._judge(number, due, before, strangers="stranger" in rates)
            await self._judge_sent_back(asked)
        except Exception as error:
            error.add_note(f"SIM_SEED={seed}")
            raise

    async def _withdraw(self, context: Context, asked: Withdrawal) -> None:
        """The consumer's request, made again by whoever got no answer."""
        async with self.database.read() as connection:
            party = await parties.get(connection, self.consumer)
        await withdrawals.withdraw(context, party, amount=asked.amount, request=asked.request)

    async def _send_back(self, context: Context) -> None:
        """The operator sends back whatever names nobody."""
        for deposit in await funding.suspense(context):
            await refunds.refund(context, deposit.id)

    async def _step(self, dice: random.Random, number: int, turn: int, asked: Withdrawal) -> None:
        """One or two workers do something at once; each may die on the way or be told to come back later."""
        jobs: list[Coroutine[None, None, object]] = []
        for _ in range(1 + (dice.random() < 0.3)):
            context = self.process()
            choice = dice.randrange(10)
            if choice == 0 or turn < 2:
                jobs.append(payouts.plan(context, number))
            elif choice == 1:
                jobs.append(funding.read_deposits(context, self.chain))
            elif choice == 2:
                jobs.append(self._withdraw(context, asked))
            elif choice == 3:
                jobs.append(self._send_back(context))
            else:
                jobs.append(chains.run_once(context, self.chain))
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, (Crash, Unavailable)):
                raise result

    async def _heal(self, number: int, asked: Withdrawal) -> None:
        """No more faults: an operator looks at what halted, and the workers go on. Everything must come to an end."""
        rounds, passes = self.patience
        for _ in range(rounds):
            context = self.process()
            await self._pause()
            await funding.read_deposits(context, self.chain)
            await self._operate(context)
            await payouts.plan(context, number)
            await self._withdraw(context, asked)
            await self._send_back(context)
            done = await chains.run_until_idle(context, self.chain, max_passes=passes, pause=self._pause)
            if (
                done.idle and not done.halted and not await funding.suspense(context)
            ):  # a stranger's transaction may still have been waiting somewhere
                break
        assert done.idle, f"stuck after healing: {done}"
        assert not done.planned_left, f"stuck after healing: {done}"

    async def _operate(self, context: Context) -> None:
        """What a person does about contested slots and frozen accounts, with nothing but the commands made for it."""
        async with self.database.read() as connection:
            contested = (await connection.execute(text("SELECT id FROM chain_order WHERE state = 'contested'"))).all()
            frozen = "SELECT account FROM signing_account WHERE frozen IS NOT NULL"
            accounts_frozen = (await connection.execute(text(frozen))).all()
        for row in contested:
            await chains.resolve_contested(context, row.id)
        for row in accounts_frozen:
            await chains.release_account(context, self.chain, row.account, self._next_number(row.account))
        for halt in await halts.open_halts(context):
            assert halt.code in ("orders_failing", "slot_contested", "slots_unaccounted"), halt
            await halts.clear(context, halt.no, "operator")

    async def _judge(self, number: int, due: dict[str, int], before: dict[str, int], *, strangers: bool) -> None:
        planned = await payouts.of_window(self.process(), number)
        found = {payout.party_id: payout for payout in planned if payout.kind == "earnings"}
        assert found.keys() == due.keys()
        for party_id, _, wallet in self.payees:
            arrived = self._balance(wallet) - before[party_id]
            state = found[party_id].state
            assert (state, arrived) in {("settled", due[party_id]), ("failed", 0)}, (number, party_id, state, arrived)
        async with self.database.read() as connection:
            query = text("SELECT * FROM chain_order WHERE window_no IN (:no, :no + 1)")  # what is open takes the rest
            orders = await connection.execute(query, {"no": number})
            anchored = 0
            for order in orders:
                query = text("SELECT tx_id FROM attempt WHERE order_id = :id")
                attempts = (await connection.execute(query, {"id": order.id})).scalars().all()
                landed = self._landed(order.id, attempts)
                assert len(landed) == (order.state == "settled"), (order.id, order.state, landed)
                assert not landed or landed[0] == (order.tx_id, order.ledger)
                anchored += order.kind == "anchor" and order.state == "settled" and order.window_no == number
            assert anchored == 1, f"win_{number} has {anchored} anchors"
            for name in ("transit/CU", f"transit/{self.chain}/{self.asset.text}"):
                transit = await accounts.get(connection, name)
                assert transit.settled == 0, f"{name} holds {transit.settled} although nothing is open"
        await funding.read_deposits(self.process(), self.chain)
        if not strangers:
            for _ in range(20):  # a failed attempt counts as open until its last ledger has closed
                if found_right := await solvency.reconcile_holdings(self.process(), self.chain):
                    break
                await self._pause()
            assert found_right is not None
            assert await halts.open_halts(self.process()) == []

    async def _judge_sent_back(self, asked: Withdrawal) -> None:
        """A withdrawal was made once and arrived whole or not at all; what named nobody is back with its sender."""
        async with self.database.read() as connection:
            query = text("SELECT amount, state FROM payout WHERE request = :request")
            ((amount, state),) = (await connection.execute(query, {"request": asked.request})).all()
            assert (state, amount > 0) in {("settled", True), ("failed", True)}
            arrived = text("SELECT coalesce(sum(amount), 0) FROM payout WHERE kind = :kind AND state = 'settled'")
            out = (await connection.execute(arrived, {"kind": "withdrawal"})).scalar_one()
            back = (await connection.execute(arrived, {"kind": "refund"})).scalar_one()
            open_now = text("SELECT count(*) FROM payout WHERE state NOT IN ('settled', 'failed')")
            assert (await connection.execute(open_now)).scalar_one() == 0
        assert self._balance(self.own) == out, "withdrawals: what arrived is what the books say has left"
        assert self._balance(self.payer) == self.payer_had - self.paid + back, "refunds: likewise"

    async def stand_still(self, minutes: int = 60) -> None:
        """Time passes and no ledger closes: nothing ends, and nothing halts."""
        for _ in range(minutes):
            self.sources.settable.advance(seconds=60)
            await funding.read_deposits(self.process(), self.chain)
            done = await chains.run_once(self.process(), self.chain)
            assert (done.settled, done.failed, done.expired, done.contested, done.halted) == (0, 0, 0, 0, False)

    # --- the judges of the whole installation ---------------------------------------------------------------------

    async def audit(self, *, strangers: bool = False) -> None:
        """The invariants that must hold over everything that has ever happened here."""
        async with self.database.read() as connection:
            for name, query in INVARIANTS.items():
                rows = (await connection.execute(text(query))).all()
                assert not rows, f"{name}: {rows[:3]}"
            credited = text("SELECT count(*), sum(credited) FROM deposit")
            count, total = (await connection.execute(credited)).one()
            assert (count, total) == (self.deposits_sent, self.expected_credit)
            fees = (await connection.execute(text("SELECT sum(fee) FROM chain_order"))).scalar_one()
            known = {row.tx_id for row in await connection.execute(text("SELECT tx_id FROM attempt"))}
            history = await connection.execute(text("SELECT order_id, state FROM attempt_event ORDER BY order_id, no"))
            last: dict[str, str] = {}
            for row in history:
                state = "planned" if row.state == "expired" else row.state
                self.walked[last.get(row.order_id, "planned"), state] += 1
                last[row.order_id] = state
        ours = self._spent()
        strange = ours.keys() - known
        assert strangers or not strange, f"{len(strange)} transactions of the treasury are not on record"
        assert sum(fee for name, fee in ours.items() if name in known) == fees


@asynccontextmanager
async def installed(url: str, folder: Path, *, transfers: int = 3, atomic: bool = True) -> AsyncIterator[Installation]:
    """An installation without faults, for tests that say themselves what goes wrong."""
    made = await Installation.found(url, folder, 1, transfers=transfers, atomic=atomic)
    yield made
    await made.close()


def _open(
    path: Path, sources: SeededSources, *, transfers: int = 3, atomic: bool = True, faults: Faults | None = None
) -> Network:
    """A node on the network's file that closes a ledger at every look at it."""
    return Network(
        path,
        "simulation",
        clock=sources.clock,
        close_interval=timedelta(0),
        transfers=transfers,
        atomic=atomic,
        faults=faults,
        durable=False,
    )


INVARIANTS = {
    "I01 every entry balances": """
        SELECT p.entry_seq FROM posting p JOIN account a ON a.no = p.account_no
        GROUP BY p.entry_seq, a.asset HAVING sum(p.amount) <> 0""",
    "I03 balances are the sum of their postings": """
        SELECT a.id FROM account a LEFT JOIN posting p ON p.account_no = a.no
        GROUP BY a.no HAVING a.settled <> coalesce(sum(p.amount), 0) OR (NOT a.overdraft AND a.settled < a.held)""",
    "I10 a payout ends once": """
        SELECT subject FROM journal_entry
        WHERE kind IN ('payout_settled', 'payout_failed', 'withdrawal_settled', 'withdrawal_failed', 'refund_settled',
                       'refund_failed')
        GROUP BY subject HAVING count(*) > 1""",
    "I10 rows and entries agree": """
        SELECT p.id FROM payout p LEFT JOIN journal_entry e ON e.subject = p.id
            AND e.kind = CASE p.kind WHEN 'earnings' THEN 'payout' ELSE p.kind END || '_' || p.state
        WHERE e.seq IS NULL""",
    "I11 an order signs on one slot": """
        SELECT order_id FROM attempt GROUP BY 1 HAVING count(DISTINCT (slot_account, slot_kind, slot_number)) > 1""",
    "I11 a slot has one order, unless it was given back unused": """
        SELECT a.slot_number FROM attempt a JOIN chain_order o ON o.id = a.order_id WHERE o.slot_account IS NOT NULL
        GROUP BY a.slot_account, a.slot_kind, a.slot_number HAVING count(DISTINCT a.order_id) > 1""",
    "I14 a deposit is booked once": """
        SELECT tx FROM deposit GROUP BY chain, tx, tx_index HAVING count(*) > 1""",
    "I14 what is booked is what is on record": """
        SELECT d.id FROM deposit d LEFT JOIN journal_entry e ON e.seq = d.entry_seq
        WHERE e.subject IS DISTINCT FROM d.id
           OR e.kind <> CASE WHEN d.party_no IS NULL THEN 'suspense' ELSE 'deposit' END""",
}
