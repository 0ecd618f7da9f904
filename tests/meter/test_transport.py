"""The transports under a client: a provider's calls are held and recorded, a consumer checks its bill by its eyes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from settlement.meter.holds import HoldRefused
from settlement.meter.transport import MeteringTransport, ObservingTransport, Verdict
from tests.meter.gateway import Gateway, open_gateway, said
from tests.meter.upstream import WORD
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]


@pytest.fixture
async def gateway(world: World, tmp_path: Path) -> AsyncIterator[Gateway]:
    world.sources.settable.now = datetime.now(UTC)
    async with open_gateway(world, tmp_path) as found:
        yield found


def metering(gateway: Gateway, key: str) -> httpx2.AsyncClient:
    """A client of the model server itself, with the meter in its transport."""
    transport = MeteringTransport(httpx2.AsyncHTTPTransport(), gateway.meter, lambda request: key)
    return httpx2.AsyncClient(base_url=gateway.upstream.url, transport=transport, timeout=60)


@pytest.mark.parametrize("stream", [False, True])
async def test_each_call_is_held_counted_and_on_disk(gateway: Gateway, stream: bool) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with metering(gateway, gateway.spending) as http:
        answer = await http.post("/v1/chat/completions", json=gateway.body("say 12", **options))
        assert WORD * 12 in (said(answer.text) if stream else answer.text)
    (record,) = gateway.records()
    assert (record["outcome"], record["meters"]["output_tokens"]) == ("completed", 12)
    assert record["hold"].startswith("hld_")


@pytest.mark.parametrize("words", ["say 12", "say 12 packed"])
async def test_a_server_that_compresses_is_counted(gateway: Gateway, words: str) -> None:
    """It would by what an SDK's client asks for, and this one does whatever was asked."""
    async with metering(gateway, gateway.spending) as http:
        answer = await http.post("/v1/chat/completions", json=gateway.body(words))
        assert answer.json()["choices"][0]["message"]["content"] == WORD * 12
    (record,) = gateway.records()
    assert (record["outcome"], record["meters"]["output_tokens"]) == ("completed", 12)


async def test_a_reader_that_stops_at_the_end_it_knows_leaves_its_record(gateway: Gateway) -> None:
    """As SDKs do: nothing behind the end mark is ever asked for."""
    async with (
        metering(gateway, gateway.spending) as http,
        http.stream("POST", "/v1/chat/completions", json=gateway.body("say 5", stream=True)) as answer,
    ):
        got = ""
        async for text in answer.aiter_text():
            got += text
            if "[DONE]" in got:
                break
        (record,) = gateway.records()
    assert (record["outcome"], record["flags"]) == ("completed", ["estimated"])


async def test_a_call_that_fails_or_is_left_is_ended_all_the_same(gateway: Gateway) -> None:
    async with metering(gateway, gateway.spending) as http:
        async with http.stream(
            "POST", "/v1/chat/completions", json=gateway.body("say 9 stall 4", stream=True)
        ) as answer:
            got = ""
            async for text in answer.aiter_text():
                got += text
                if got.count(WORD) == 4:
                    break
        assert [record["outcome"] for record in gateway.records()] == ["cancelled"]
        await gateway.upstream.stop()
        with pytest.raises(httpx2.HTTPError):
            await http.post("/v1/chat/completions", json=gateway.body("say 1"))
    assert len(gateway.records()) == 1


async def test_no_money_no_call(gateway: Gateway) -> None:
    async with metering(gateway, "cu_nobody") as http:
        with pytest.raises(HoldRefused, match="consumer_key_unknown"):
            await http.post("/v1/chat/completions", json=gateway.body("say 1"))
        assert (await http.get("/v1/models")).status_code == 200
    assert gateway.upstream.seen == []


async def test_a_consumer_compares_what_it_saw_with_what_it_is_charged_for(gateway: Gateway) -> None:
    verdicts: list[Verdict] = []
    transport = ObservingTransport(httpx2.AsyncHTTPTransport(), verdicts.append, time.monotonic_ns)
    headers = {"authorization": f"Bearer {gateway.spending}"}
    async with httpx2.AsyncClient(base_url=gateway.url, transport=transport, headers=headers, timeout=60) as http:
        for words in ("say 50 pause 1", "say 50 lie 60 pause 1"):
            await http.post("/v1/chat/completions", json=gateway.body(words, stream=True))
        async with http.stream("POST", "/v1/chat/completions", json=gateway.body("say 3", stream=True)) as answer:
            async for text in answer.aiter_text():
                if "[DONE]" in text:
                    break  # the cost comes behind what this reader reads
    honest, lying, short = verdicts
    assert (honest.flags, honest.observed.text_bytes) == ((), 300)
    assert honest.charge is not None
    assert honest.charge["meters"]["output_tokens"] == 50
    assert {"output_above_bytes", "output_above_estimate"} <= set(lying.flags)
    assert short.charge is not None
    digests = [record["evidence"]["response"] for record in gateway.records()]
    assert len(set(digests)) == 3
    assert json.dumps(honest.charge)
