"""The simulated network and its adapter: the contract, the node's own rules, and money under all faults at once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.simulated import (
    KINDS,
    SIM,
    USD,
    Faults,
    Key,
    Network,
    PaymentRefused,
    SimulatedAdapter,
    Wallet,
    open_adapter,
)
from adapters.simulated.blobs import MAX_AMOUNT, BadBlob, Body, Payment, blob_id, decoded, is_address
from adapters.simulated.ledger import SUPPLY
from settlement.chain import (
    AnchorOrder,
    Asset,
    Gap,
    PayoutOrder,
    Settled,
    Slot,
    Transaction,
    Transfer,
    Unreachable,
)
from tests.adapters.contract import AdapterContract, Books, Crash, Worker, hand_over
from tests.adapters.simulated_peer import START, SimulatedPeer, seed_of


class TestContract(AdapterContract):
    @pytest.fixture
    def peer(self, tmp_path: Path) -> Iterator[SimulatedPeer]:
        peer = SimulatedPeer(tmp_path / "net.sqlite")
        yield peer
        peer.network.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path / "net.sqlite", "test", clock=lambda: START, durable=False)
    yield network
    network.close()


def conserved(path: Path) -> bool:
    """Whether every native coin ever made is in a balance or was burned as a fee."""
    db = sqlite3.connect(path)
    try:
        (held,) = db.execute("SELECT sum(amount) FROM balance WHERE asset = 'SIM'").fetchone()
        (burned,) = db.execute("SELECT coalesce(sum(fee), 0) FROM final").fetchone()
    finally:
        db.close()
    return int(held) + int(burned) == SUPPLY


def test_an_address_is_stable_text_and_all_that_a_key_shows() -> None:
    assert Key(bytes(32)).address == "sim12ef3jg769da92wh0h3ct1nt1ca7wg9q0jgs57ava"
    assert repr(Key(bytes(32))) == "Key(sim12ef3jg769da92wh0h3ct1nt1ca7wg9q0jgs57ava)"


@given(st.binary(min_size=32, max_size=32), st.integers(4, 43), st.sampled_from("0123456789abcdefghjkmnpqrstvwxyz"))
def test_no_single_wrong_digit_is_an_address(seed: bytes, place: int, digit: str) -> None:
    good = Key(seed).address
    wrong = good[:place] + digit + good[place + 1 :]
    assert is_address(good)
    assert is_address(wrong) == (wrong == good)


payments = st.builds(
    Payment,
    st.binary(min_size=32, max_size=32).map(lambda seed: Key(seed).address),
    st.sampled_from([USD.text, SIM.text]),
    st.integers(1, MAX_AMOUNT),
    st.none() | st.integers(0, 2**32 - 1),
)
bodies = st.builds(
    Body,
    network=st.just("test"),
    account=st.just(Key(bytes(32)).address),
    sequence=st.integers(0, MAX_AMOUNT),
    fee=st.integers(1, MAX_AMOUNT),
    last_ledger=st.integers(0, MAX_AMOUNT),
    invoice=st.text("abc_-09~!", max_size=64),
    memo=st.binary(max_size=256),
    payments=st.lists(payments, max_size=3).map(tuple),
)


@given(bodies)
def test_a_signed_body_comes_back_as_it_was(body: Body) -> None:
    blob = Key(bytes(32)).signed(body)
    assert decoded(blob) == body
    assert blob == Key(bytes(32)).signed(body)


@given(bodies, st.data())
def test_no_changed_byte_is_taken(body: Body, data: st.DataObject) -> None:
    blob = bytearray(Key(bytes(32)).signed(body))
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadBlob):
        decoded(bytes(blob))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"{}",
        b"null",
        b"[" * 30_000,
        b'{"body":' * 4_000,
        b"9" * 32_000,
        b'{"body":{},"signature":""}',
        b"\xff",
        b"x" * 40_000,
    ],
)
def test_hostile_bytes_are_malformed(blob: bytes) -> None:
    with pytest.raises(BadBlob, match="malformed"):
        decoded(blob)


def test_another_spelling_of_a_transaction_is_refused(network: Network) -> None:
    wallet = Wallet.create(network, seed_of("a"))
    blob = wallet.key.signed(Body("test", wallet.address, 3, 10, 99))
    assert decoded(blob).sequence == 3
    for other in (blob + b" ", json.dumps(json.loads(blob)).encode(), blob.replace(b'"fee":"10"', b'"fee":"010"')):
        assert network.submit(other) == "malformed"


def test_every_refusal_has_its_code(network: Network) -> None:
    wallet = Wallet.create(network, seed_of("a"))
    account, tip = network.account(wallet.address), network.tip().number
    assert account is not None
    at = account.sequence

    def offer(sequence: int = at, fee: int = 10, last: int = tip + 5, name: str = "test", lines: int = 0) -> str:
        line = Payment(Key(seed_of("b")).address, SIM.text, 1)
        return network.submit(
            wallet.key.signed(Body(name, wallet.address, sequence, fee, last, "", b"", (line,) * lines))
        )

    assert offer(name="other") == "wrong_network"
    assert offer(lines=9) == "too_many_transfers"
    assert offer(sequence=at - 1) == "sequence_past"
    assert offer(sequence=at + 33) == "sequence_future"
    assert offer(last=tip) == "expired"
    assert offer(fee=9) == "fee_too_low"
    assert offer(sequence=at + 1) == "held"
    assert offer() == "ok"
    assert offer() == "already_queued"
    network.close_ledger()
    assert offer() == "already_final"
    stranger = Key(seed_of("never funded"))
    assert network.submit(stranger.signed(Body("test", stranger.address, 1, 10, 99))) == "no_account"
    forged = wallet.key.signed(Body("test", wallet.address, at + 2, 10, 99)).replace(b'"fee":"10"', b'"fee":"11"')
    assert network.submit(forged) == "bad_signature"
    mine = wallet.key.signed(Body("test", stranger.address, at + 2, 10, 99))
    assert network.submit(mine) == "bad_signature", "the key must be the account's"
    after = network.account(wallet.address)
    assert after is not None
    assert after.sequence == at + 2, "the held one followed in the same ledger"


@pytest.mark.parametrize(
    ("payment", "code"),
    [
        (lambda a, b: Payment(Key(seed_of("nobody")).address, USD.text, 5), "no_destination"),
        (lambda a, b: Payment(Key(seed_of("nobody")).address, SIM.text, 999_999), "no_destination"),
        (lambda a, b: Payment(b, USD.text, 1_001), "underfunded"),
        (lambda a, b: Payment(b, SIM.text, 99_000_001), "underfunded"),
        (lambda a, b: Payment(a, USD.text, 1), "self_payment"),
        (lambda a, b: Payment(b, f"OWN:{a}", MAX_AMOUNT), "balance_limit"),
        (lambda a, b: Payment(b, USD.text, 1), "destination_needs_reference"),
    ],
)
def test_failure_in_a_ledger_burns_fee_and_sequence_only(
    network: Network, payment: Callable[[str, str], Payment], code: str
) -> None:
    a, b = Wallet.create(network, seed_of("a"), usd=1_000), Wallet.create(network, seed_of("b"))
    a.pay(b.address, Asset("OWN", a.address), 1)
    network.close_ledger()
    network.require_reference(b.address, code == "destination_needs_reference")
    before, sim = network.account(a.address), a.balance(SIM)
    good = Payment(b.address, USD.text, 1, reference=0)
    name = network.pay(a.key, (good, payment(a.address, b.address)))
    network.close_ledger()
    found, after = network.final(name), network.account(a.address)
    assert found is not None
    assert before is not None
    assert after is not None
    assert (found.result, found.culprit, found.fee) == (code, 1, 10)
    assert [line.delivered for line in found.movements] == [0, 0]
    assert (after.sequence, a.balance(SIM), a.balance(USD), b.balance(USD)) == (before.sequence + 1, sim - 10, 1_000, 0)


def test_without_atomicity_the_good_payments_stand(tmp_path: Path) -> None:
    network = Network(tmp_path / "net.sqlite", "loose", clock=lambda: START, atomic=False, transfers=3, durable=False)
    a, b = Wallet.create(network, seed_of("a"), usd=1_000), Wallet.create(network, seed_of("b"))
    adapter, account = SimulatedAdapter(network, a.key), network.account(a.address)
    assert account is not None
    lines = tuple(Payment(b.address, USD.text, amount) for amount in (600, 500, 300))
    blob = a.key.signed(Body("loose", a.address, account.sequence, 10, 99, "pay_1", b"", lines))
    assert network.submit(blob) == "ok"
    network.close_ledger()
    found = network.final(blob_id(blob))
    assert found is not None
    assert (found.result, [line.delivered for line in found.movements]) == ("ok", [600, 0, 300])
    slot = Slot(a.address, found.sequence)
    outcome = asyncio.run(adapter.status(Transaction(found.id, (), blob, slot, 1, 99, 10)))
    assert outcome == Settled(found.at, (600, 0, 300), 10)
    assert b.balance(USD) == 900
    network.close()


def test_ledgers_close_by_the_clock_and_never_backwards(tmp_path: Path) -> None:
    now = [START]
    network = Network(
        tmp_path / "net.sqlite", "t", clock=lambda: now[0], close_interval=timedelta(seconds=4), durable=False
    )
    assert network.tip().number == 1
    now[0] += timedelta(seconds=11)
    assert (network.tip().number, network.tip().closed_at) == (3, START + timedelta(seconds=8))
    now[0] -= timedelta(hours=1)
    assert network.tip().number == 3
    assert network.close_ledger().closed_at == START + timedelta(seconds=8)
    now[0] += timedelta(days=365)
    started = network.tip()
    assert started.number == 4 + 4096 + 1, "a year without callers is a halt, not eight million ledgers"
    assert started.closed_at == now[0]
    network.close()


def test_interval_zero_closes_on_every_read_of_final_state(tmp_path: Path) -> None:
    network = Network(tmp_path / "net.sqlite", "t", clock=lambda: START, close_interval=timedelta(0), durable=False)
    wallet = Wallet.create(network, seed_of("a"))
    other = Wallet.create(network, seed_of("b"))
    tip = network.tip()
    assert network.tip() == tip
    wallet.pay(other.address, SIM, 5)
    assert other.balance(SIM) == 100_000_005
    network.close()


def test_a_snapshot_of_the_past_has_the_past_balances(network: Network) -> None:
    a, b = Wallet.create(network, seed_of("a"), usd=1_000), Wallet.create(network, seed_of("b"))
    adapter = SimulatedAdapter(network, a.key)
    history = {}
    for amount in range(1, 9):
        history[network.tip().number] = (a.balance(SIM) - 1_000_000, a.balance(USD))
        a.pay(b.address, USD, amount)
        b.pay(a.address, SIM, amount * 3)
        network.close_ledger()
    for _ in range(6):
        network.arm("lagging")
        seen = asyncio.run(adapter.holdings())
        assert seen.at.number < network.tip().number
        assert (seen.amounts[SIM], seen.amounts[USD]) == history[seen.at.number]


def test_a_file_holds_one_network(tmp_path: Path) -> None:
    Network(tmp_path / "net.sqlite", "one", clock=lambda: START, durable=False).close()
    with pytest.raises(ValueError, match="'one'"):
        Network(tmp_path / "net.sqlite", "two", clock=lambda: START, durable=False)


def test_the_faucet_gives_only_its_own(network: Network) -> None:
    with pytest.raises(PaymentRefused, match="asset_unknown"):
        network.fund(Key(bytes(32)).address, Asset("EUR", "x"), 1)
    with pytest.raises(PaymentRefused, match="no_destination"):
        network.fund(Key(bytes(32)).address, USD, 1)


async def test_a_wallet_pays_a_payment_uri(network: Network) -> None:
    treasury, wallet = Wallet.create(network, seed_of("t")), Wallet.create(network, seed_of("w"), usd=9_000_000)
    adapter = SimulatedAdapter(network, treasury.key)
    wallet.pay_uri(await adapter.payment_uri(USD, 42, 1_234_567))
    wallet.pay_uri(await adapter.payment_uri(USD, 43, None), 5)
    network.close_ledger()
    page = await adapter.deposits(None)
    assert [(d.amount, d.reference, d.sender) for d in page.deposits if d.asset == USD] == [
        (1_234_567, 42, wallet.address),
        (5, 43, wallet.address),
    ]
    for bad in (
        "https://x?asset=USD",
        f"simulated:{treasury.address}?asset=USD&amount=0.0000001",
        "simulated:x?amount=1",
    ):
        with pytest.raises(ValueError):
            wallet.pay_uri(bad, 1)


def test_a_plan_is_read_and_a_wrong_one_named() -> None:
    assert Faults.parse(" seed=7, reply_lost=0.2,late=1 ") == Faults(7, {"reply_lost": 200_000, "late": 1_000_000})
    assert set(Faults.parse("all=0.1").chances) == set(KINDS)
    assert Faults.parse("") == Faults()
    for bad in ("reply_lots=0.1", "late=1.1", "late=-1", "late", "seed=x", "late=NaN", "late=inf"):
        with pytest.raises(ValueError, match=bad.split("=")[0]):
            Faults.parse(bad)


def test_the_same_seed_gives_the_same_faults_whoever_asks(tmp_path: Path) -> None:
    plan = Faults.parse("seed=5,late=0.5")
    runs = []
    for name in ("a", "b"):
        path, answers = tmp_path / f"{name}.sqlite", []
        for _ in range(4 if name == "a" else 1):
            network = Network(path, "t", clock=lambda: START, faults=plan, durable=False)
            answers += [network.fires("late") for _ in range(10 if name == "a" else 40)]
            network.close()
        runs.append(answers)
    assert runs[0] == runs[1]
    assert 8 < sum(runs[0]) < 32


def test_the_fee_follows_the_node_up_to_the_cap_and_healing_ends_a_spike(network: Network) -> None:
    wallet, fees = Wallet.create(network, seed_of("a")), {10: 12}
    adapter = SimulatedAdapter(network, wallet.key)
    for _ in range(30):
        network.arm("fee_spike", 2)
        tx = asyncio.run(adapter.prepare(AnchorOrder("anc_1", b"x"), slot=None, busy=()))
        fees[network.required_fee()] = tx.fee
        network.submit(tx.blob, port=True)
    assert fees == {10: 12, 20: 24, 100: 120, 1_000: 1_200, 10_000: 5_000}
    network.heal()
    assert network.required_fee() == 10
    assert not network.fires("fee_spike")


def entropy_of(text: str) -> Callable[[int], bytes]:
    return random.Random(text).randbytes


def test_the_entry_point_opens_one_treasury_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENT_SIMULATED_CLOSE_SECONDS", "0")
    monkeypatch.setenv("SETTLEMENT_SIMULATED_FAULTS", "seed=7,unreachable=1")
    one = open_adapter({"data_dir": str(tmp_path)}, clock=lambda: START, entropy=entropy_of("1"))
    two = open_adapter({"data_dir": str(tmp_path), "faults": ""}, clock=lambda: START, entropy=entropy_of("2"))
    assert one.treasury == two.treasury
    assert one.facts.network == "simulated:demo"
    with pytest.raises(Unreachable):
        asyncio.run(one.holdings())
    first, second = asyncio.run(two.holdings()), asyncio.run(two.holdings())
    assert second.at.number == first.at.number + 1
    assert first.amounts == {SIM: 999_000_000, USD: 0}
    assert (tmp_path / "simulated-demo.seed").stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.glob("*.seed*")) == ["simulated-demo.seed"]
    asyncio.run(one.close())
    asyncio.run(two.close())


@pytest.mark.parametrize(
    "wrong",
    [{"data_dir": ""}, {"network": "A/b"}, {"seed": "00"}, {"close_seconds": "-1"}, {"close_seconds": "x"},
     {"faults": "x=1"}, {"transfers": "0"}, {"atomic": "maybe"}, {"fault": "late=1"}],
)  # fmt: skip
def test_a_wrong_setting_is_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        open_adapter({"data_dir": str(tmp_path), **wrong}, clock=lambda: START, entropy=entropy_of("1"))


PAYER = """
import sys, hashlib, pathlib
from datetime import UTC, datetime
from adapters.simulated import Network, Wallet, USD
network = Network(pathlib.Path(sys.argv[1]), "t", clock=lambda: datetime(2026, 11, 22, tzinfo=UTC))
wallet = Wallet(network, hashlib.sha256(sys.argv[2].encode()).digest())
for number in range(10_000):
    name = wallet.pay(sys.argv[3], USD, 1)
    network.close_ledger()
    print(name, flush=True)
"""


def test_killed_processes_lose_nothing_and_share_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "net.sqlite"
    network = Network(path, "t", clock=lambda: START)
    target = Wallet.create(network, seed_of("target"))
    for name in ("p", "q"):
        Wallet.create(network, seed_of(name), usd=10_000)
    command = [sys.executable, "-c", PAYER, str(path)]
    workers = [subprocess.Popen([*command, n, target.address], stdout=subprocess.PIPE, text=True) for n in ("p", "q")]
    said: list[str] = []
    for worker in workers:
        assert worker.stdout is not None
        said += [worker.stdout.readline().strip() for _ in range(15)]
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        said += [line.strip() for line in worker.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
        assert worker.returncode == -signal.SIGKILL
    assert len(said) >= 30
    network.close_ledger()
    assert all((found := network.final(name)) and found.result == "ok" for name in said)
    assert target.balance(USD) - len(said) in (0, 1, 2), "each may have died between paying and saying so"
    network.close()
    assert conserved(path)


# --- money under all faults -------------------------------------------------------------------------------------------


class Schedule(Worker):
    """One seed: five payouts and some deposits, worked off by a process that dies at any await."""

    adapter: SimulatedAdapter

    def __init__(self, path: Path, seed: int, *, naive: bool = False) -> None:
        self.path, self.naive = path, naive
        self.dice = random.Random(seed)
        self.plan = Faults.parse(
            f"seed={seed},all=0.06,stranger=0.015,failed=0.03,at_last=0.1,late=0.2,reply_lost=0.15"
        )
        self.healed = False
        self.adapter = self.opened()
        self.adapter.network.create_account(self.adapter.treasury, usd=10**9)
        self.consumer = seed_of("consumer")
        Wallet.create(self.adapter.network, self.consumer, usd=10**9)
        self.payees = [Wallet.create(self.adapter.network, seed_of(f"payee {n}")).address for n in range(3)]
        for _ in range(7):
            self.adapter.network.close_ledger()  # so that a node that lags by six still knows everybody
        self.books = Books({f"pay_{n}": self.order(n) for n in range(5)})
        self.paid_in: dict[str, int] = {}

    def order(self, number: int) -> PayoutOrder:
        lines = range(self.dice.randint(1, 3))
        return PayoutOrder(f"pay_{number}", tuple(Transfer(self.payees[n], USD, 10**number * (n + 1)) for n in lines))

    def opened(self) -> SimulatedAdapter:
        plan = None if self.healed else self.plan
        network = Network(self.path, "storm", clock=lambda: START, faults=plan, durable=False)
        return SimulatedAdapter(network, Key(seed_of("treasury")), page_rows=2)

    async def round(self) -> None:
        network = self.adapter.network
        if self.dice.random() < 0.3 and not self.healed:
            amount = self.dice.randint(2, 1000)
            part = self.dice.choice([None, 1])
            payer = Wallet(network, self.consumer)
            self.paid_in[payer.pay(self.adapter.treasury, USD, amount, 7, partial=part)] = part or amount
        open_orders = sorted(set(self.books.orders) - set(self.books.ended))
        try:
            if open_orders:
                await (self.naive_step if self.naive else self.step)(self.dice.choice(open_orders))
            await self.poll()
        except (Unreachable, Gap):
            pass
        except Crash:
            network.close()
            self.adapter = self.opened()
        for _ in range(self.dice.choice((0, 1, 1, 2, 4))):
            self.adapter.network.close_ledger()

    def may_die(self) -> None:
        if not self.healed and self.dice.random() < 0.04:
            raise Crash

    async def naive_step(self, name: str) -> None:
        """What a service does that takes an exception for an outcome: sign again on the account's next sequence."""
        tx = await self.adapter.prepare(self.books.orders[name], slot=None, busy=())
        self.books.attempts.setdefault(name, []).append(tx)
        if await hand_over(self.adapter, tx) == "":
            self.books.ended[name] = "settled"

    async def run(self) -> Counter[str]:
        """Work through the storm, then heal and finish; how many orders ended how, and how often faults fired."""
        for turn in range(200):
            if turn == 60:
                self.healed = True
                self.adapter.network.heal()
            if turn > 75 and len(self.books.ended) == len(self.books.orders):
                break
            await self.round()
        counts = Counter(f"order {end}" for end in self.books.ended.values())
        counts.update({kind: fired for kind, (_, fired) in self.adapter.network.fault_counts().items()})
        return counts

    def judged(self) -> Counter[str]:
        """What the chain says against the books."""
        network, wrong = self.adapter.network, Counter[str]()
        for name in self.books.orders:
            landed = sum(found.result == "ok" for found in network.by_invoice(name))
            booked = self.books.ended.get(name, "lost")
            wrong["doubled"] += landed > 1
            wrong["lost"] += booked == "lost" or (booked == "settled" and landed == 0)
            wrong["unbooked"] += booked != "settled" and landed > 0
        paid = sum(
            transfer.amount
            for name, order in self.books.orders.items()
            if self.books.ended.get(name) == "settled"
            for transfer in order.transfers
        )
        wrong["payees"] += sum(network.balance(payee, USD) for payee in self.payees) != paid
        credited = {deposit.id[0]: deposit.amount for deposit in self.books.credited if deposit.reference == 7}
        ids = [deposit.id for deposit in self.books.credited]
        wrong["deposits"] += credited != self.paid_in or len(set(ids)) != len(ids)
        network.close()
        wrong["conservation"] += not conserved(self.path)
        return +wrong


def storm(folder: Path, seeds: range, *, naive: bool = False) -> tuple[Counter[str], Counter[str], list[int]]:
    async def all_of_them() -> tuple[Counter[str], Counter[str], list[int]]:
        counts, wrong, culprits = Counter[str](), Counter[str](), []
        for seed in seeds:
            path = folder / f"{seed}.sqlite"
            schedule = Schedule(path, seed, naive=naive)
            counts += await schedule.run()
            found = schedule.judged()
            wrong += found
            culprits += [seed] if found else []
            for file in folder.glob(f"{seed}.*"):
                file.unlink()
        return counts, wrong, culprits

    return asyncio.run(all_of_them())


def weathered(folder: Path, schedules: int) -> None:
    counts, wrong, culprits = storm(folder, range(schedules))
    assert not wrong, f"{dict(wrong)} with the seeds {culprits}"
    assert counts["order settled"] + counts["order failed"] + counts["order contested"] == 5 * schedules
    assert counts["order settled"] > 4 * schedules
    assert counts["order contested"] <= counts["stranger"], "contested only where a stranger was"
    for kind in KINDS:
        assert counts[kind] >= schedules // 15, f"{kind} fired {counts[kind]} times only: that proves nothing about it"


def test_every_order_lands_once_or_is_proven_failed_under_all_faults(tmp_path: Path) -> None:
    weathered(tmp_path, 120)


@pytest.mark.nightly
def test_two_thousand_storms(tmp_path: Path) -> None:
    weathered(tmp_path, 2_000)


def test_the_judge_sees_a_naive_service_pay_twice(tmp_path: Path) -> None:
    _, wrong, culprits = storm(tmp_path, range(60), naive=True)
    assert wrong["doubled"] >= 10
    assert wrong["lost"] >= 5
    assert len(culprits) >= 10
