"""An answer that goes by comes out as it went in, cut at the ends of events, and what it says of itself is known."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.meter.estimates import INTERFACES, TOKENS_PER_KILOBYTE
from settlement.meter.normaliser import normalise
from settlement.meter.watching import MAX_EVENT, Events, Watch, as_comment, as_event, as_stopped

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def chunk(**more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "model": "m", **more}).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    return chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


STREAM = delta("Hel") + delta("lo") + delta("", "stop") + chunk(choices=[], usage=USAGE) + b"data: [DONE]\n\n"


@given(st.lists(st.integers(1, 40), max_size=30))
def test_a_stream_comes_out_as_it_went_in_however_it_is_cut(sizes: list[int]) -> None:
    watch, out, place = Watch(streamed=True), [], 0
    for size in [*sizes, len(STREAM)]:
        out += watch.feed(STREAM[place : place + size])
        place += size
    out += watch.finish()
    assert b"".join(event.raw for event in out) == STREAM
    assert [event.done for event in out] == [False] * 4 + [True]
    assert [event.bare_usage for event in out] == [False] * 3 + [True, False]
    assert (watch.model, watch.answer, watch.ended, watch.stated) == ("m", "c1", True, 2)
    assert (watch.text.size, watch.text.pieces) == (5, 2)
    assert watch.digest == f"sha256:{sha256(STREAM).hexdigest()}"
    assert normalise(watch.exchange()).meters == {"input_tokens": 5, "output_tokens": 2}


def test_a_stream_that_is_cut_is_known_not_to_have_ended() -> None:
    watch = Watch(streamed=True)
    watch.feed(delta("Hel") + delta("lo")[:20])
    assert [event.raw for event in watch.finish()] == [delta("lo")[:20]]
    assert not watch.ended
    assert watch.output(TOKENS_PER_KILOBYTE) == 1


def test_a_whole_answer_is_read_at_its_end() -> None:
    body = json.dumps(
        {
            "id": "a",
            "model": "m",
            "choices": [{"message": {"content": "Hello"}, "finish_reason": "length"}],
            "usage": USAGE,
        }
    ).encode()
    watch = Watch()
    assert [event.raw for event in watch.feed(body)] == [body]
    watch.finish()
    assert (watch.ended, watch.cut, watch.text.size) == (True, True, 5)
    assert normalise(watch.exchange()).meters == {"input_tokens": 5, "output_tokens": 2}


def test_lines_of_json_are_a_stream_too() -> None:
    lines = b'{"model":"m","message":{"content":"Hi"}}\n{"done":true,"prompt_eval_count":3,"eval_count":1}\n'
    watch = Watch(streamed=True, lines=True)
    assert [event.raw for event in watch.feed(lines)] == lines.splitlines(keepends=True)
    assert normalise(watch.exchange()).meters == {"input_tokens": 3, "output_tokens": 1}


def test_text_that_is_repeated_at_the_end_counts_once() -> None:
    said: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": "response.output_text.done", "text": "Hello"},
        {"type": "response.completed", "response": {"id": "r", "output": [{"content": [{"text": "Hello"}]}]}},
    ]
    watch = Watch(streamed=True)
    watch.feed(b"".join(as_event(str(each["type"]), each) for each in said))
    assert (watch.text.size, watch.ended) == (5, True)


def test_reasoning_and_tool_calls_are_text_that_was_made() -> None:
    calls = [{"index": 0, "function": {"name": "look", "arguments": '{"a":1}'}}]
    watch = Watch(streamed=True)
    watch.feed(chunk(choices=[{"delta": {"reasoning_content": "hmm", "tool_calls": calls}}]))
    assert watch.text.size == len("hmm" + "look" + '{"a":1}')


def test_an_error_in_a_stream_is_seen() -> None:
    watch = Watch(streamed=True)
    watch.feed(b'data: {"error":{"message":"no"}}\n\n')
    assert watch.failed
    assert normalise(watch.exchange()).refusal == "error_answer"


def test_what_is_no_event_goes_on_unread() -> None:
    events = Events()
    assert list(events.cut(b"x" * (MAX_EVENT + 1))) == [(b"x" * (MAX_EVENT + 1), None, b"")]
    assert events.rest() == b""


def test_our_own_events_and_comments_are_events_and_comments() -> None:
    ((raw, kind, data),) = Events().cut(as_event("cost", {"amount": "0.1"}))
    assert (kind, json.loads(data)) == ("cost", {"amount": "0.1"})
    assert raw.endswith(b"\n\n")
    assert [data for _, _, data in Events().cut(as_comment("a line"))] == [b""]


def test_two_reports_in_one_piece_of_network_are_two_events() -> None:
    begin = {"type": "message_start", "message": {"id": "x", "usage": {"input_tokens": 25, "output_tokens": 1}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 250}}
    whole = b"".join(as_event(str(each["type"]), each) for each in (begin, end))
    for size in (len(whole), 40):
        watch = Watch(streamed=True)
        for place in range(0, len(whole), size):
            watch.feed(whole[place : place + size])
        watch.finish()
        assert normalise(watch.exchange()).meters == {"input_tokens": 25, "output_tokens": 250}


def test_output_is_what_was_stated_and_our_estimate_of_the_text_behind_it() -> None:
    """So a call that dies is never put down at more than a server that counts as it goes has stated."""
    watch = Watch(streamed=True)
    watch.feed(delta("x" * 1000))
    assert watch.output(TOKENS_PER_KILOBYTE) == 230
    watch.feed(chunk(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 100, "total_tokens": 105}))
    assert watch.output(TOKENS_PER_KILOBYTE) == 100
    watch.feed(delta("x" * 1000))
    assert watch.output(TOKENS_PER_KILOBYTE) == 330
    watch.feed(chunk(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 100, "total_tokens": 105}))
    assert watch.output(TOKENS_PER_KILOBYTE) == 330, "a count that stands still says nothing of what came since"


@pytest.mark.parametrize("path", [path for path, each in INTERFACES["paths"].items() if "stopped" in each])
def test_a_stream_that_is_stopped_ends_as_its_interface_ends_at_a_limit(path: str) -> None:
    values = {"id": "a1", "model": "m", "input_tokens": 5, "output_tokens": 9, "total_tokens": 14}
    raw = as_stopped(INTERFACES["paths"][path]["stopped"], values)
    assert b"$" not in raw
    watch = Watch(streamed=True)
    seen = watch.feed(raw)
    assert (watch.cut, watch.ended, b"".join(event.raw for event in seen)) == (True, True, raw)
    assert watch.stated == (0 if seen[-1].done else 9)
