"""The shared way to a network's nodes, over real sockets: what is no answer, who is asked next, who is passed over."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from adapters.nodes import SHUT_AFTER, NoAnswer, Node, Nodes, parsed
from settlement.chain import Contested, Expired, Gap, Ledger, Outcome, Pending, Settled, Unreachable, WrongNetwork
from tests.loopback import Answer, HangUp, Loopback, Request
from tests.world import START, SeededSources

pytestmark = pytest.mark.network


class Peer:
    """One scripted node: `script` answers until it is used up, then `default` does."""

    def __init__(self, name: str = "one", network: str = "test:1") -> None:
        self.network = network
        self.script: list[Answer | type[HangUp]] = []
        self.default: Answer = Answer.json({"from": name})
        self.asked: list[str] = []
        self.echo: Callable[[Any], Any] | None = None

    async def answer(self, request: Request) -> Answer:
        if request.path == "/network":
            self.asked.append("network")
            return Answer.json(self.network)
        self.asked.append(request.path)
        if self.script:
            found = self.script.pop(0)
            if isinstance(found, Answer):
                return found
            raise found
        if self.echo is not None:
            return Answer.json(self.echo(request.json()))
        return self.default


class Net:
    """Peers on loopback and the client side that asks them."""

    def __init__(self) -> None:
        self.sources = SeededSources()
        self.peers: list[Peer] = []
        self.urls: list[str] = []
        self._closing = AsyncExitStack()

    async def start(self, *peers: Peer, tries: int = 1, most_bytes: int = 1 << 20) -> Nodes:
        for peer in peers:
            self.urls.append((await self._closing.enter_async_context(Loopback(peer.answer))).url)
        found = Nodes(
            self.urls,
            network="test:1",
            identify=identify,
            clock=self.sources.clock,
            entropy=self.sources.entropy,
            tries=tries,
            most_bytes=most_bytes,
        )
        self._closing.push_async_callback(found.close)
        return found

    async def stop(self) -> None:
        await self._closing.aclose()


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net()
    yield made
    await made.stop()


async def identify(node: Node) -> str:
    return str((await node.get("/network")).value)


async def ask(node: Node) -> Any:
    return (await node.get("/x")).value


async def test_the_first_node_answers_and_says_once_who_it_is(net: Net) -> None:
    one, two = Peer("one"), Peer("two")
    nodes = await net.start(one, two)
    assert [await nodes.first(ask) for _ in range(2)] == [{"from": "one"}] * 2
    assert one.asked == ["network", "/x", "/x"]
    assert two.asked == []
    assert await nodes.each(ask) == [{"from": "one"}, {"from": "two"}]


@pytest.mark.parametrize(
    "bad",
    [
        HangUp,
        Answer(b"{}", 503),
        Answer(b"{}", 404),
        Answer(b"{}", 302, {"location": "http://127.0.0.1:1/"}),
        Answer(b""),
        Answer(b"<html>"),
        Answer(b'{"a": NaN}'),
        Answer(b'{"a": Infinity}'),
        Answer(b'{"a": 1, "a": 2}'),
        Answer(b'"\xff"'),
        Answer(b"[" * 65 + b"]" * 65),
        Answer(b"[" * 100_000),
        Answer(b'{"a": 1}', cut=3),
        Answer(b" " * (1 << 20) + b"1"),
        Answer(gzip.compress(bytes(200 << 20)), headers={"content-encoding": "gzip"}),
        Answer(gzip.compress(b"{}")[:-4], headers={"content-encoding": "gzip"}),
        Answer(b"{}", headers={"content-encoding": "gzip"}),
        Answer(b"{}", headers={"content-encoding": "br"}),
    ],
)
async def test_what_is_no_answer_makes_the_next_node_answer(net: Net, bad: Answer | type[HangUp]) -> None:
    one, two = Peer("one"), Peer("two")
    one.script = [bad]
    nodes = await net.start(one, two)
    assert await nodes.first(ask) == {"from": "two"}
    assert await nodes.first(ask) == {"from": "one"}
    assert one.asked.count("network") == 2, "after a failure the node has to say anew who it is"


async def test_packed_answers_are_unpacked_up_to_the_cap(net: Net) -> None:
    one = Peer()
    body = b'"' + b"x" * ((1 << 20) - 2) + b'"'
    one.default = Answer(gzip.compress(body), headers={"content-encoding": "gzip"})
    assert await (await net.start(one)).first(ask) == "x" * ((1 << 20) - 2)


async def test_a_busy_node_is_asked_again_and_a_refusal_is_not(net: Net) -> None:
    one = Peer()
    nodes = await net.start(one, tries=3)
    one.script = [Answer(b"", 503), HangUp]
    assert await nodes.first(ask) == {"from": "one"}
    one.script = [Answer(b"", 400)]
    asked = one.asked.count("/x")
    with pytest.raises(Unreachable):
        await nodes.first(ask)
    assert one.asked.count("/x") == asked + 1
    one.script = [HangUp] * 3
    with pytest.raises(Unreachable):
        await nodes.first(ask)


async def test_a_node_that_keeps_failing_is_passed_over_for_a_while(net: Net) -> None:
    one, two = Peer("one"), Peer("two")
    nodes = await net.start(one, two)
    one.script = [HangUp] * SHUT_AFTER
    for _ in range(SHUT_AFTER):
        assert await nodes.first(ask) == {"from": "two"}
    asked = len(one.asked)
    assert await nodes.first(ask) == {"from": "two"}
    assert len(one.asked) == asked
    two.script = [HangUp]
    assert await nodes.first(ask) == {"from": "one"}, "better a node that failed than none"
    net.sources.settable.advance(seconds=31)
    assert await nodes.first(ask) == {"from": "one"}


async def test_a_node_of_another_network_is_never_believed(net: Net) -> None:
    one, two = Peer("one", network="test:2"), Peer("two")
    nodes = await net.start(one, two)
    assert await nodes.first(ask) == {"from": "two"}
    assert "/x" not in one.asked
    two.network = "test:2"
    assert await nodes.first(ask) == {"from": "two"}, "it was asked, and nothing has failed since"
    two.script = [HangUp]
    with pytest.raises(Unreachable):
        await nodes.first(ask)
    with pytest.raises(WrongNetwork):
        await nodes.first(ask)


async def test_a_gap_is_only_said_when_nobody_has_the_history(net: Net) -> None:
    one, two = Peer("one"), Peer("two")
    nodes = await net.start(one, two)

    async def gapped(node: Node) -> Any:
        if node is nodes.all[0]:
            raise Gap("ledgers are missing")
        return await ask(node)

    assert await nodes.first(gapped) == {"from": "two"}
    two.script = [HangUp]
    with pytest.raises(Gap):
        await nodes.first(gapped)


async def test_rpc_ids_are_checked(net: Net) -> None:
    one = Peer()
    nodes = await net.start(one)

    async def call(node: Node) -> Any:
        return (await node.rpc({"method": "x"}, echoes=True))["result"]

    one.echo = lambda request: {"id": request["id"], "result": request["method"]}
    assert await nodes.first(call) == "x"
    for wrong in (lambda request: {"id": request["id"] + 1, "result": 1}, lambda _: {"result": 1}, lambda _: [1]):
        one.echo = wrong
        with pytest.raises(Unreachable):
            await nodes.first(call)


async def test_an_answer_that_trickles_ends(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.nodes.ANSWER_SECONDS", 0)

    async def never(request: Request) -> Answer:
        if request.path != "/network":
            await asyncio.sleep(60)
        return Answer.json("test:1")

    peer = Peer()
    peer.answer = never  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        await (await net.start(peer)).first(ask)


def test_numbers_with_a_point_are_exact() -> None:
    assert str(parsed(b'{"a": 0.1, "b": "[[[[", "c": [1]}', "x")["a"]) == "0.1"


def test_a_url_that_names_no_node_is_refused_and_never_shown() -> None:
    sources = SeededSources()
    for urls in (["ftp://secret@host"], ["secret"], [], ["http://a/", "http://a/"]):
        with pytest.raises(ValueError) as refused:
            Nodes(urls, network="x", identify=identify, clock=sources.clock, entropy=sources.entropy)
        assert "secret" not in str(refused.value)


def test_an_error_names_the_host_alone() -> None:
    sources = SeededSources()
    nodes = Nodes(
        ["https://user:secret@example.org:1/token"],
        network="x",
        identify=identify,
        clock=sources.clock,
        entropy=sources.entropy,
    )
    assert nodes.all[0].name == "example.org:1"
    assert issubclass(NoAnswer, Unreachable)


@pytest.mark.parametrize(
    ("said", "agreement", "outcome"),
    [
        (["Expired", "Pending", "Pending"], 1, Expired()),
        (["Expired", "Pending", "Pending"], 2, Pending()),
        (["Expired", "Pending", "Expired"], 2, Expired()),
        (["Pending", "Expired", "Expired"], 2, Pending()),
        (["Contested", "Expired", "Contested"], 2, Contested("it")),
        (["Contested", "Expired", "Expired"], 2, Pending()),
        (["Expired", "Expired", "Settled"], 2, Settled(Ledger(9, START), (1,), 10)),
        (["Settled", "Expired", "Expired"], 3, Settled(Ledger(9, START), (1,), 10)),
    ],
)
async def test_death_is_believed_when_enough_nodes_say_so_and_life_when_one_does(
    net: Net, said: list[str], agreement: int, outcome: Outcome
) -> None:
    words: dict[str, Outcome] = {
        "Expired": Expired(),
        "Pending": Pending(),
        "Contested": Contested("it"),
        "Settled": Settled(Ledger(9, START), (1,), 10),
    }
    nodes = await net.start(*(Peer(each) for each in said))

    async def judge(node: Node) -> Outcome:
        return words[(await node.get("/")).value["from"]]

    assert await nodes.agreed(judge, agreement) == outcome
