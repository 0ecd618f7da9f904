"""The proxy between real sockets: calls are held, streamed, extended, stopped, counted, and priced where they end."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, MutableMapping
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from settlement.core.errors import Unavailable
from settlement.meter.holds import Holds
from settlement.meter.proxy import metered_proxy, upstream_client
from tests.meter.gateway import Gateway, events, open_gateway, said
from tests.meter.servers import serving
from tests.meter.upstream import WORD
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]

HELD_AT_FIRST = 256


@pytest.fixture
async def gateway(world: World, tmp_path: Path) -> AsyncIterator[Gateway]:
    world.sources.settable.now = datetime.now(UTC)
    async with open_gateway(world, tmp_path) as found:
        yield found


async def test_a_whole_answer_is_counted_and_its_cost_is_in_the_headers(gateway: Gateway) -> None:
    answer = await gateway.chat("say 20")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == WORD * 20
    (record,) = gateway.records()
    assert (record["outcome"], record["meters"]) == ("completed", {"input_tokens": 5, "output_tokens": 20})
    assert (record["consumer"], record["hold"]) == (gateway.consumer.id, answer.headers["x-settlement-hold"])
    assert (record["rates"], record["upstream_id"]) == (answer.headers["x-settlement-rates"], "chatcmpl-1")
    assert "flags" not in record
    assert answer.headers["x-settlement-record"] == record["id"]
    rates = {"input": 277777778, "output": 2222222222}
    assert answer.headers["x-settlement-cost"] == f"0.{-(-(5 * rates['input'] + 20 * rates['output']) // 10**6):06d}"


async def test_the_model_server_gets_its_own_key_and_never_the_consumers(gateway: Gateway) -> None:
    await gateway.chat("say 1")
    assert gateway.upstream.headers["authorization"] == "Bearer upstream-key"
    assert gateway.spending not in str(gateway.upstream.headers)


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
async def test_a_model_server_without_a_key_gets_none(gateway: Gateway, header: str) -> None:
    """Wherever a client puts the consumer's key, it ends at the proxy."""
    value = f"Bearer {gateway.spending}" if header == "authorization" else gateway.spending
    async with (
        upstream_client(gateway.upstream.url) as forward,
        serving(metered_proxy(gateway.meter, forward)) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, headers={header: value}, timeout=60) as http,
    ):
        answer = await http.post("/v1/chat/completions", json=gateway.body("say 1"))
    assert answer.status_code == 200
    assert gateway.spending not in str(gateway.upstream.headers)


async def test_a_stream_ends_with_its_cost_behind_everything_a_client_reads(gateway: Gateway) -> None:
    answer = await gateway.chat("say 20", stream=True)
    assert said(answer.text) == WORD * 20
    kinds = [(kind, data == "[DONE]") for kind, data in events(answer.text)]
    assert kinds[-2:] == [(None, True), ("cost", False)]
    cost = json.loads(events(answer.text)[-1][1])
    (record,) = gateway.records()
    assert (cost["record"], cost["meters"], cost["flags"]) == (record["id"], record["meters"], [])
    assert cost["type"] == "cost", "what clients read that tell events by this member"
    assert record["meters"] == {"input_tokens": 5, "output_tokens": 20}
    assert sum(int(line["pico"]) for line in cost["lines"]) == int(cost["pico"])
    assert [line["meter"] for line in cost["lines"]] == ["input_tokens", "output_tokens"]


async def test_usage_is_asked_for_and_shown_only_to_who_asked(gateway: Gateway) -> None:
    plain = await gateway.chat("say 3", stream=True)
    assert gateway.upstream.seen[-1]["stream_options"] == {"include_usage": True}
    assert '"usage"' not in plain.text
    asked = await gateway.chat("say 3", stream=True, stream_options={"include_usage": True})
    assert '"completion_tokens": 3' in asked.text
    assert [record["meters"]["output_tokens"] for record in gateway.records()] == [3, 3]


async def test_a_stream_goes_through_token_by_token(gateway: Gateway) -> None:
    """The first token is at the client while the model server still stalls behind it."""
    async with gateway.http.stream(
        "POST", "/v1/chat/completions", json=gateway.body("say 5 stall 2", stream=True)
    ) as answer:
        assert answer.headers["x-settlement-hold"].startswith("hld_")
        got = ""
        async for text in answer.aiter_text():
            got += text
            if got.count(WORD) == 2:
                break
    assert gateway.upstream.spoken == 2


async def test_a_client_that_leaves_pays_for_what_was_made_and_the_model_server_is_stopped(gateway: Gateway) -> None:
    async with gateway.http.stream(
        "POST", "/v1/chat/completions", json=gateway.body("say 9 stall 7", stream=True)
    ) as answer:
        got = ""
        async for text in answer.aiter_text():
            got += text
            if got.count(WORD) == 7:
                break
    while not gateway.records():
        await asyncio.sleep(0.01)
    (record,) = gateway.records()
    assert (record["outcome"], record["flags"]) == ("cancelled", ["estimated"])
    assert record["meters"]["output_tokens"] == 10, "42 bytes at 230 tokens a thousand"
    await asyncio.wait_for(gateway.upstream.gone.wait(), 60)


async def test_a_stream_without_usage_is_estimated_and_says_so(gateway: Gateway) -> None:
    answer = await gateway.chat("say 100 silent", stream=True)
    (record,) = gateway.records()
    assert record["flags"] == ["estimated"]
    assert record["meters"]["output_tokens"] == 138, "600 bytes at 230 tokens a thousand"
    assert record["meters"]["input_tokens"] > 0
    assert json.loads(events(answer.text)[-1][1])["flags"] == ["estimated"]


async def test_a_stream_is_extended_while_it_runs(gateway: Gateway) -> None:
    answer = await gateway.chat("say 1200 running", stream=True)
    assert said(answer.text) == WORD * 1200
    assert ": settlement hold" in answer.text
    (record,) = gateway.records()
    assert record["meters"]["output_tokens"] == 1200
    hold = (await gateway.service_http.get(f"/v1/holds/{record['hold']}")).json()
    assert hold["output_tokens"] >= 1200
    assert hold["grant"] > 2


async def test_what_was_used_beyond_the_grants_is_held_before_the_record_is_written(gateway: Gateway) -> None:
    """The model server states more than the text lets us count: the hold follows what it states."""
    await gateway.chat("say 100 lie 40")
    (record,) = gateway.records()
    assert record["meters"]["output_tokens"] == 4000
    hold = (await gateway.service_http.get(f"/v1/holds/{record['hold']}")).json()
    assert hold["output_tokens"] >= 4000


async def test_a_lie_is_flagged_where_the_consumer_sees_it(gateway: Gateway) -> None:
    answer = await gateway.chat("say 100 lie 40", stream=True, max_tokens=500)
    (record,) = gateway.records()
    assert record["flags"] == ["output_above_bytes", "output_above_estimate", "output_above_limit"]
    assert json.loads(events(answer.text)[-1][1])["flags"] == record["flags"]


@pytest.mark.parametrize(("words", "status"), [("fail 503", 503), ("fail 429", 429), ("fail 400", 400)])
async def test_an_answer_that_failed_costs_nothing_and_frees_its_money(
    gateway: Gateway, words: str, status: int
) -> None:
    for stream in (False, True):
        answer = await gateway.chat(words, stream=stream)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == "broken"
    assert (gateway.records(), await gateway.held()) == ([], "0")


@pytest.mark.parametrize("stream", [True, False])
async def test_an_empty_answer_costs_nothing(gateway: Gateway, *, stream: bool) -> None:
    """Also when the model server states its input, and an output of zero."""
    answer = await gateway.chat("say 0", stream=stream)
    assert answer.status_code == 200
    assert (gateway.records(), await gateway.held()) == ([], "0")


async def test_a_model_server_that_is_cut_off_is_not_paid(gateway: Gateway) -> None:
    answer = await gateway.chat("say 50 cut 30", stream=True)
    assert "upstream_cut" in answer.text
    assert "[DONE]" not in answer.text
    (record,) = gateway.records()
    assert record["outcome"] == "errored"


async def test_a_model_server_that_is_away_is_a_502_and_costs_nothing(gateway: Gateway) -> None:
    await gateway.upstream.stop()
    answer = await gateway.chat("say 1")
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_unreachable")
    assert (gateway.records(), await gateway.held()) == ([], "0")


async def test_embeddings_are_metered_by_their_input_alone(gateway: Gateway) -> None:
    answer = await gateway.http.post("/v1/embeddings", json={"model": "gpt-5", "input": "a few words"})
    assert answer.status_code == 200, answer.text
    (record,) = gateway.records()
    assert (record["operation"], record["meters"]) == ("embeddings", {"input_tokens": 7})


async def test_reading_passes_and_what_nobody_meters_is_not_served(gateway: Gateway) -> None:
    assert (await gateway.http.get("/v1/models")).status_code == 200
    answer = await gateway.http.post("/v1/images/generations", json={"model": "gpt-5"})
    assert (answer.status_code, answer.json()["code"]) == (404, "path_not_metered")
    assert gateway.upstream.seen == []


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"authorization": ""}, {}, 401, "consumer_key_missing"),
        ({"authorization": "Bearer cu_nobody"}, {}, 401, "consumer_key_unknown"),
        ({}, {"model": None}, 422, "document_malformed"),
        ({}, {"model": "no such model"}, 422, "name_malformed"),
        ({}, {"model": "no-such-model"}, 422, "unknown_model"),
    ],
)
async def test_what_is_refused_says_so_in_words_that_clients_show(
    gateway: Gateway, headers: dict[str, str], body: dict[str, object], status: int, code: str
) -> None:
    sent = gateway.body("say 1") | body
    answer = await gateway.http.post("/v1/chat/completions", json=sent, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["error"]["message"] == answer.json()["detail"]
    assert gateway.upstream.seen == []


async def test_no_record_no_last_byte(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes no record cuts the stream before its end; nobody new is let in until it takes a line again."""
    real, full = gateway.spool._write, asyncio.Event()

    def write(data: bytes) -> None:
        if b'"record"' in data or full.is_set():
            full.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        real(data)

    monkeypatch.setattr(gateway.spool, "_write", write)
    got = ""
    with pytest.raises(httpx2.RemoteProtocolError):
        async with gateway.http.stream(
            "POST", "/v1/chat/completions", json=gateway.body("say 20", stream=True)
        ) as sent:
            async for text in sent.aiter_text():
                got += text
    assert got.count(WORD) == 20
    assert "[DONE]" not in got
    for _ in range(2):
        answer = await gateway.chat("say 20")
        assert (answer.status_code, answer.json()["code"]) == (503, "spool_failed")
    monkeypatch.undo()
    assert (await gateway.chat("say 20")).status_code == 200
    assert gateway.spool.lost == 1


# --- the end of the balance -------------------------------------------------------------------------------------------


async def test_a_stream_stops_at_the_end_of_the_balance_and_never_costs_more(world: World, tmp_path: Path) -> None:
    world.sources.settable.now = datetime.now(UTC)
    async with open_gateway(world, tmp_path, micro=1_000_000) as gateway:
        answer = await gateway.chat("say 3000", stream=True)
        got = said(answer.text)
        assert 0 < len(got) < len(WORD) * 3000
        datas = [data for kind, data in events(answer.text) if kind is None]
        assert json.loads(datas[-2])["choices"][0]["finish_reason"] == "length"
        assert datas[-1] == "[DONE]"
        (record,) = gateway.records()
        assert record["outcome"] == "truncated"
        hold = (await gateway.service_http.get(f"/v1/holds/{record['hold']}")).json()
        assert record["meters"]["output_tokens"] <= hold["output_tokens"]
        assert hold["final"] == {"action": "stop"}
        cost = json.loads(events(answer.text)[-1][1])
        assert float(cost["amount"]) <= 1.0
        await asyncio.wait_for(gateway.upstream.gone.wait(), 60)


async def test_no_money_no_call(world: World, tmp_path: Path) -> None:
    world.sources.settable.now = datetime.now(UTC)
    async with open_gateway(world, tmp_path, micro=100) as gateway:
        answer = await gateway.chat("say 3", stream=True)
        assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_balance")
        assert float(answer.json()["missing"]) > 0
        assert gateway.upstream.seen == []


async def test_a_provider_may_absorb_the_end(world: World, tmp_path: Path) -> None:
    world.sources.settable.now = datetime.now(UTC)
    async with open_gateway(world, tmp_path, micro=600_000, final={"action": "absorb", "limit": "50"}) as gateway:
        answer = await gateway.chat("say 900 running", stream=True)
        assert said(answer.text) == WORD * 900
        (record,) = gateway.records()
        assert (record["outcome"], record["meters"]["output_tokens"]) == ("completed", 900)
        cost = json.loads(events(answer.text)[-1][1])
        assert float(cost["amount"]) <= 0.6, "the charge stays within the hold"


async def test_a_form_passes_as_it_came_and_is_counted(gateway: Gateway) -> None:
    """As an SDK sends a recording: the model is a field, the file is reserved by its size, usage is the server's."""
    files = {"file": ("speech.wav", b"RIFF\r\n--\0" * 900)}
    answer = await gateway.http.post("/v1/audio/transcriptions", data={"model": "gpt-5", "language": "de"}, files=files)
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == WORD * 3
    (sent,) = gateway.upstream.seen
    assert sent["body"].startswith(b"--" + sent["content-type"].rpartition("boundary=")[2].encode())
    assert files["file"][1] in sent["body"]
    (record,) = gateway.records()
    assert (record["operation"], record["model"]) == ("transcription", "gpt-5")
    assert record["meters"] == {"input_tokens": 14, "input_audio_tokens": 14, "output_tokens": 3}
    assert float(answer.headers["x-settlement-held"]) > 36 * 0.000277777778
    refused = await gateway.http.post("/v1/audio/transcriptions", files=files)
    assert (refused.status_code, refused.json()["code"]) == (422, "document_malformed")


async def test_a_transcription_that_is_plain_text_is_estimated_and_never_free(gateway: Gateway) -> None:
    data = {"model": "gpt-5", "response_format": "text"}
    answer = await gateway.http.post("/v1/audio/transcriptions", data=data, files={"file": ("a.wav", b"RIFF" * 900)})
    assert (answer.status_code, answer.text) == (200, WORD * 30)
    (record,) = gateway.records()
    assert (record["outcome"], record["flags"]) == ("completed", ["estimated"])
    assert record["meters"]["output_tokens"] == 42, "180 bytes at 230 tokens a thousand"


async def test_an_answer_that_is_compressed_is_counted_or_refused(gateway: Gateway) -> None:
    """None is asked for, though our own client would; one that comes all the same is undone, or not served."""
    for words in ("say 20", "say 20 packed"):
        answer = await gateway.chat(words)
        assert "content-encoding" not in answer.headers
        assert answer.json()["choices"][0]["message"]["content"] == WORD * 20
    assert [record["meters"]["output_tokens"] for record in gateway.records()] == [20, 20]
    answer = await gateway.chat("say 20 strange")
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_failed")
    assert len(gateway.records()) == 2


async def test_a_providers_key_that_was_revoked_is_not_told_as_the_consumers(gateway: Gateway) -> None:
    gateway.service_http.headers["authorization"] = "Bearer cu_live_revoked"
    answer = await gateway.chat("say 1")
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_refused")
    assert gateway.upstream.seen == []


async def test_something_else_at_the_services_address_is_said(gateway: Gateway) -> None:
    """A service's address that is another web server's: no call is served, and nothing breaks."""
    async with httpx2.AsyncClient(base_url=gateway.upstream.url, trust_env=False) as http:
        call = {"model": "gpt-5", "messages": [{"role": "user", "content": "say 1"}]}
        with pytest.raises(Unavailable, match="no settlement service"):
            await Holds(http).create("cu_key", call)


async def test_a_websocket_is_refused_with_a_reason(gateway: Gateway) -> None:
    """By an answer where the server can give one, else by closing it: never served for nothing."""
    sent: list[dict[str, object]] = []

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(dict(message))

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async with upstream_client(gateway.upstream.url) as forward:
        app = metered_proxy(gateway.meter, forward)
        by_http: tuple[dict[str, dict[str, object]] | None, ...] = ({"websocket.http.response": {}}, None)
        for extensions in by_http:
            scope: dict[str, object] = {
                "type": "websocket",
                "path": "/v1/realtime",
                "headers": [],
                "extensions": extensions,
            }
            await app(scope, receive, send)
    kinds = [each["type"] for each in sent]
    assert kinds == ["websocket.http.response.start", "websocket.http.response.body", "websocket.close"]
    assert "not metered" in str(sent[1])
    assert "not metered" in str(sent[2])
    assert gateway.upstream.seen == []
