"""What a payout costs on each rail: questions to a node, signed bytes, fee, processor time, by the shipped adapters.

    python -m bench.rails [--turns 9] [--batches 1 50]

The nodes are the scripted ones of the tests, in this process behind real sockets, at their base fee and without faults;
what they take of the processor is left out, what the HTTP between takes is not. Prints JSON with medians of interleaved
turns. Ratios of one run are the result; questions, bytes and fees are exact. Every turn checks that the payees have
what was paid to them, and a wrong sum voids it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from settlement.chain import Expired, PayoutOrder, Settled, Transaction, Transfer
from tests.loopback import Answer, Request
from tests.rippled.face import Node
from tests.rippled.peer import XrplPeer
from tests.stellarnet.face import RpcFace
from tests.stellarnet.peer import StellarPeer

Peer = XrplPeer | StellarPeer
Result = TypeVar("Result")
AMOUNT = 1_500_000


class Meter:
    """Counts what the nodes of a class are asked, and the processor time of this process without their own."""

    def __init__(self, kind: Any) -> None:
        self.asked, self.nodes_own = 0, 0.0
        answer = kind.answer

        async def counted(node: Any, request: Request) -> Answer:
            before = time.process_time()
            self.asked += 1
            try:
                found: Answer = await answer(node, request)
                return found
            finally:
                self.nodes_own += time.process_time() - before

        kind.answer = counted

    async def of(self, seen: Counter[str], name: str, call: Callable[[], Awaitable[Result]]) -> Result:
        """What `call` gives; its questions and its microseconds are added under its name."""
        asked, before, own = self.asked, time.process_time(), self.nodes_own
        found = await call()
        spent = time.process_time() - before - (self.nodes_own - own)
        seen[name] += self.asked - asked
        seen["microseconds"] += round(spent * 1_000_000)
        return found


async def started() -> dict[str, tuple[Peer, Meter]]:
    """Both networks, each metered before its first question."""
    meters = Meter(Node), Meter(RpcFace)
    return {"xrpl": (await XrplPeer.start(), meters[0]), "stellar": (await StellarPeer.start(), meters[1])}


async def pay(peer: Peer, meter: Meter, count: int, turn: int) -> dict[str, int]:
    """So many payouts, in as few transactions as the network allows; what they took together."""
    seen: Counter[str] = Counter()
    each = peer.adapter.facts.transfers
    transfers = [Transfer(await peer.payee(), peer.stable, AMOUNT, None, f"pay_{turn}_{n}") for n in range(count)]
    for at in range(0, count, each):
        order = PayoutOrder(f"ord_{turn}_{at}", tuple(transfers[at : at + each]))
        tx = await meter.of(seen, "prepare", partial(peer.adapter.prepare, order, slot=None, busy=()))
        await meter.of(seen, "submit", partial(peer.adapter.submit, tx))
        await meter.of(seen, "pending", partial(peer.adapter.status, tx))
        await peer.close_ledgers()
        ended = await meter.of(seen, "settled", partial(peer.adapter.status, tx))
        assert isinstance(ended, Settled)
        seen["transactions"] += 1
        seen["bytes"] += bytes_of(peer, tx)
        seen["kept"] += len(tx.blob)
        seen["fee"] += ended.fee
    assert [await peer.balance(one.to, one.asset) for one in transfers] == [AMOUNT] * count
    return seen


def bytes_of(peer: Peer, tx: Transaction) -> int:
    """What goes to the network: on Stellar an attempt has two envelopes, of which one does."""
    return len(tx.blob) if isinstance(peer, XrplPeer) else int.from_bytes(tx.blob[:4], "big")


async def expire(peer: Peer, meter: Meter, turn: int) -> int:
    """Questions until a payout that was never handed over is proven dead, in one look after its end."""
    seen: Counter[str] = Counter()
    order = PayoutOrder(f"ord_dead_{turn}", (Transfer(await peer.payee(), peer.stable, AMOUNT),))
    tx = await peer.adapter.prepare(order, slot=None, busy=())
    await peer.close_ledgers(tx.last - tx.first + 2)
    assert isinstance(await meter.of(seen, "expired", lambda: peer.adapter.status(tx)), Expired)
    return seen["expired"]


async def measure(turns: int, batches: list[int]) -> dict[str, Any]:
    rails = await started()
    taken: dict[str, dict[int, list[dict[str, int]]]] = {name: {count: [] for count in batches} for name in rails}
    dead = {}
    try:
        for turn in range(turns + 1):  # the first one warms up: a node says once which network it is
            for count in batches:
                for name, (peer, meter) in rails.items():
                    made = await pay(peer, meter, count, turn * 1000 + count)
                    taken[name][count] += [made] if turn else []
        for name, (peer, meter) in rails.items():
            dead[name] = await expire(peer, meter, turns)
    finally:
        for peer, _ in rails.values():
            await peer.stop()
    found: dict[str, Any] = {"turns": turns, "questions until expired": dead}
    for count in batches:
        rows: dict[str, Any] = {name: _row(taken[name][count], count) for name in rails}
        time_of = {name: [each["microseconds"] for each in taken[name][count]] for name in rails}
        ratios = [a / b for a, b in zip(time_of["stellar"], time_of["xrpl"], strict=True)]
        rows["processor, stellar to xrpl"] = _spread(ratios)
        found[f"{count} payouts"] = rows
    return found


def _row(taken: list[dict[str, int]], count: int) -> dict[str, Any]:
    exact = ("transactions", "prepare", "submit", "pending", "settled", "bytes", "kept", "fee")
    same = {name: {each.get(name, 0) for each in taken} for name in exact}
    row: dict[str, Any] = {name: values.pop() if len(values) == 1 else sorted(values) for name, values in same.items()}
    return {**row, "processor ms a payout": _spread([each["microseconds"] / 1000 / count for each in taken])}


def _spread(values: list[float]) -> list[float]:
    return [round(value, 2) for value in (statistics.median(values), min(values), max(values))]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--turns", type=int, default=9)
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 50])
    given = arguments.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of loopback servers that are cut off at the end
    print(json.dumps(asyncio.run(measure(given.turns, given.batches)), indent=2))


if __name__ == "__main__":
    main()
