"""A thousand crash schedules in every run: the shipped adapter, the scripted servers, and books that are in memory.

The servers are asked in the same process instead of over sockets, and a worker that keeps the rules of CHAINS 0 stands
for the services: `test_xrpl_schedules.py` runs the services themselves on a real database and real sockets, which is
why it runs fewer. Here as there a worker dies at any await, requests and answers are lost, transactions come late or
in their very last ledger, servers lag, forget and start anew, and afterwards everything must have ended, once.

SETTLEMENT_XRPL_ADAPTER_SCHEDULES says how many; `make nightly` runs 10,000.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from adapters.nodes import NoAnswer, Node, Nodes, Reply, parsed
from adapters.xrpl import Settings, XrplAdapter, rpc
from adapters.xrpl.account_setup import Wanted
from adapters.xrpl.signing import Keys
from settlement.chain import Expired, Gap, Outcome, PayoutOrder, Transaction, Transfer, Unpayable, Unreachable
from tests.adapters.contract import Books, Crash, Worker
from tests.loopback import HangUp, Request
from tests.rippled import face
from tests.rippled.engine import Engine
from tests.rippled.peer import KEY, RLUSD, STABLE, signer
from tests.rippled.wallets import Wallet
from tests.simulation.xrpl import RATES, STRANGER
from tests.world import SeededSources

SIMPLE = {"hostile", "rate_limited"}
"""Kinds of faults of the transport, which these schedules do without."""
STALL = 300
EVERY = 10
"""One schedule in so many has a stranger with our key, and two have two nodes or tickets."""
FRESH = int.from_bytes(os.urandom(4), "big")
TREASURY, PAYER = Wallet("treasury"), Wallet("payer")
PAYEES = [Wallet(f"payee {number}") for number in range(3)]


class InProcess(Nodes):
    """The production class, but for the one method that opens a socket."""

    faces: dict[str, face.Node]

    async def _once(self, node: Node, method: str, path: str, body: Any, accept: Sequence[int], form: bool) -> Reply:
        try:
            answer = await self.faces[node.url].answer(Request(method, path, json.dumps(body).encode()))
        except HangUp:
            raise NoAnswer(f"{node.name}: hung up") from None
        return Reply(answer.status, parsed(answer.body, node.name))


class Schedule(Worker):
    """One seed: three payouts on a ledger of their own, and some deposits."""

    def __init__(self, seed: int, shortcut: type[XrplAdapter] = XrplAdapter) -> None:
        self.dice = random.Random(seed)
        self.kind = seed % EVERY
        self.healed = False
        self.deaths = 0
        self.refused: set[int | None] = set()
        self.sent: dict[str, int] = {}
        self.books = Books({})
        sources = SeededSources(seed)
        self.engine = Engine(1)
        nodes = 2 if self.kind == 1 else 1
        self.faces = [face.Node(self.engine, seed + number) for number in range(nodes)]
        urls = tuple(f"http://node{number}.example" for number in range(nodes))
        for wallet in (TREASURY, PAYER, *PAYEES):
            self.engine.account(wallet.address, 10**12)
            self.engine.give(wallet.address, KEY, "0" if wallet in PAYEES else "1000000")
        self.engine.account(STABLE.issuer, 10**12)
        if self.kind == 2:
            self.engine.state.accounts[TREASURY.address].tickets = set(range(500, 510))
        self.engine.close(5)  # a server that lags has seen them, too
        wanted = Wanted(tickets=10 if self.kind == 2 else 0)
        settings = Settings(urls, 1, TREASURY.address, {STABLE: 6}, agreement=nodes, wanted=wanted)
        asked = InProcess(
            urls, network="xrpl:1", identify=rpc.identify, clock=sources.clock, entropy=sources.entropy, tries=1
        )
        asked.faces = dict(zip(urls, self.faces, strict=True))
        self.adapter = shortcut(settings, asked, Keys([signer("treasury")]))
        for number, payee in enumerate(PAYEES):
            transfer = Transfer(payee.address, STABLE, 10**number + number, None, f"pay_{number}")
            self.books.orders[f"ord_{number}"] = PayoutOrder(f"ord_{number}", (transfer,))

    def may_die(self) -> None:
        if not self.healed and self.dice.random() < 0.05:
            raise Crash

    async def round(self) -> None:
        if self.dice.random() < 0.2 and not self.healed and self.engine.fee <= 5_000:
            amount = self.dice.randint(2, 1_000)
            value = {"currency": RLUSD, "issuer": STABLE.issuer, "value": f"0.{amount:06d}"}
            self.sent[PAYER.pay(self.engine, TREASURY.address, value, 7)] = amount
        open_orders = sorted(set(self.books.orders) - set(self.books.ended))
        try:
            if open_orders:
                await self.step(self.dice.choice(open_orders))
            if self.dice.random() < 0.3 or self.healed:
                await self.poll()
        except (Unreachable, Gap):
            pass
        except Unpayable as why:
            self.refused.add(why.culprit)
        except Crash:
            self.deaths += 1
        self.engine.close(self.dice.choice((0, 1, 1, 2, 15)))

    async def run(self) -> None:
        kinds = (STRANGER if self.kind == 0 else RATES).items()
        for node in self.faces:
            node.stranger_blob = TREASURY.overtaking
            node.rates = {kind: rate for kind, rate in kinds if kind not in SIMPLE}
        for _ in range(self.dice.randint(5, 10)):
            await self.round()
        self.healed = True
        for node in self.faces:
            node.rates = {}
        self.engine.fee_until = 0
        for _ in range(STALL):
            if len(self.books.ended) == len(self.books.orders) and not self.engine.queue:
                break
            await self.round()
        self.engine.close(2)
        while (page := await self.adapter.deposits(self.books.cursor)).cursor != self.books.cursor:
            self.books.credited += page.deposits
            self.books.cursor = page.cursor

    def judge(self) -> None:
        """What the ledger alone says. Raises AssertionError."""
        assert self.refused <= {None}, "every payee can be paid"
        assert self.books.ended.keys() == self.books.orders.keys(), f"stuck: {self.books.ended}"
        ours = [each for each in self.engine.by_account[TREASURY.address] if each.tx["Account"] == TREASURY.address]
        known = {tx.id for attempts in self.books.attempts.values() for tx in attempts}
        strangers = {each.id for each in ours} - known
        assert not strangers or self.kind == 0, "a transaction that no book knows"
        for name, order in self.books.orders.items():
            (transfer,) = order.transfers
            invoice = transfer.id.encode().ljust(32, b"\0").hex().upper()
            paid = [each for each in ours if each.tx.get("InvoiceID") == invoice and each.result == "tesSUCCESS"]
            assert len(paid) == (self.books.ended[name] == "settled"), (name, self.books.ended[name], len(paid))
            arrived = int(self.engine.held(transfer.to, KEY) * 10**6)
            assert arrived == transfer.amount * len(paid), (name, arrived)
            assert self.books.ended[name] != "contested" or strangers, "contested, and nobody else has signed"
        credited = Counter({deposit.id[0]: deposit.amount for deposit in self.books.credited})
        assert credited == Counter(self.sent)
        assert len(self.books.credited) == len(self.sent)


async def run(schedules: int, shortcut: type[XrplAdapter] = XrplAdapter) -> Counter[str]:
    """That many schedules, fixed and fresh seeds in turn. Raises AssertionError naming the seed."""
    seen: Counter[str] = Counter()
    for turn in range(schedules):
        seed = turn if turn % 2 else FRESH * 10 + turn
        found = Schedule(seed, shortcut)
        try:
            await found.run()
            found.judge()
        except Exception as error:
            error.add_note(f"SIM_SEED={seed}")
            raise
        for node in found.faces:
            seen.update(node.fired)
        seen.update(found.books.ended.values())
        seen["deaths"] += found.deaths
        seen["signed again"] += sum(len(attempts) > 1 for attempts in found.books.attempts.values())
    return seen


def judge_coverage(schedules: int, seen: Counter[str]) -> None:
    """Red when something never happened."""
    print(f"\n{schedules} schedules: {dict(seen)}")
    wanted = {*face.KINDS, "settled", "failed", "contested", "deaths", "signed again"} - SIMPLE
    assert {kind for kind in wanted if seen[kind] < max(1, schedules // 100)} == set()


async def test_a_thousand_schedules_lose_and_double_nothing() -> None:
    schedules = int(os.environ.get("SETTLEMENT_XRPL_ADAPTER_SCHEDULES", "1000"))
    judge_coverage(schedules, await run(schedules))


@pytest.mark.nightly
async def test_ten_thousand_schedules_lose_and_double_nothing() -> None:
    judge_coverage(10_000, await run(10_000))


class ExpiryBeforeLookup(XrplAdapter):
    """The commonest mistake: past its last ledger, so it is dead, whatever may have landed before."""

    async def status(self, tx: Transaction) -> Outcome:
        if (await self._nodes.first(rpc.tip)).number > tx.last:
            return Expired()
        return await super().status(tx)


async def test_expiry_before_the_lookup_is_caught() -> None:
    with pytest.raises(AssertionError):
        await run(40, ExpiryBeforeLookup)
