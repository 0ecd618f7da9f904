"""Recordings, answers and streams are read alike: their usage objects are found, and nothing else is kept."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal

import pytest

from settlement.core.errors import Malformed
from settlement.meter.exchanges import Exchange, from_stream, parse_json, read_exchanges

RECORDING = {
    "provider": "one",
    "kind": "chat.completions",
    "http_status": 200,
    "streamed": False,
    "model_requested": "asked",
    "model_reported": "given",
    "events": 1,
    "output_chars": 20,
    "finish_reasons": ["stop"],
    "headers": {"X-Amzn-Bedrock-Input-Token-Count": 4},
    "usage_events": [{"event": 0, "type": None, "at": "usage", "usage": {"prompt_tokens": 1}}],
}
ANSWER = {"id": "a", "model": "m", "choices": [{"message": {"content": "secret"}}], "usage": {"prompt_tokens": 1}}


def read(data: bytes) -> list[Exchange]:
    return list(read_exchanges(data))


def test_lines_an_array_and_gzip_hold_the_same_recordings() -> None:
    lines = (json.dumps(RECORDING) + "\n\n" + json.dumps(RECORDING) + "\n").encode()
    found = read(lines)
    assert len(found) == 2
    assert read(gzip.compress(lines)) == found
    assert read(json.dumps([RECORDING, RECORDING]).encode()) == found
    first = found[0]
    assert (first.vendor, first.kind, first.status, first.model) == ("one", "chat.completions", 200, "given")
    assert (first.finish, first.output_chars) == (("stop",), 20)
    assert first.headers == {"x-amzn-bedrock-input-token-count": "4"}
    assert [dict(event.usage) for event in first.usage] == [{"prompt_tokens": 1}]


def test_an_answer_is_an_exchange_without_its_text() -> None:
    (found,) = read(json.dumps(ANSWER).encode())
    assert (found.model, found.streamed, len(found.usage)) == ("m", False, 1)
    assert "secret" not in repr(found)


def test_a_stream_is_read_by_its_events() -> None:
    text = (
        ": a comment\r\n\r\n"
        'event: message_start\r\ndata: {"type":"message_start",'
        '"message":{"id":"x","model":"m","usage":{"input_tokens":3}}}\r\n\r\n'
        'event: message_delta\r\ndata: {"usage":\r\ndata: {"output_tokens":5}}\r\n\r\ndata: [DONE]\r\n\r\n'
        'data: {"cut'
    )
    found = from_stream(text)
    assert read(text.encode()) == [found]
    assert (found.streamed, found.model) == (True, "m")
    assert [(event.type, event.place, dict(event.usage)) for event in found.usage] == [
        ("message_start", "message.usage", {"input_tokens": 3}),
        ("message_delta", "usage", {"output_tokens": 5}),
    ]


def test_counts_that_lie_bare_in_the_answer_are_found() -> None:
    (found,) = read(b'{"model":"m","response":"hi","prompt_eval_count":26,"eval_count":2}')
    assert [(event.place, dict(event.usage)) for event in found.usage] == [
        ("*", {"prompt_eval_count": 26, "eval_count": 2})
    ]


def test_what_is_no_json_is_refused_with_its_line() -> None:
    with pytest.raises(Malformed, match="line 2"):
        read(json.dumps(RECORDING).encode() + b"\nnot json\n")


def test_decimals_stay_what_was_sent() -> None:
    assert parse_json('{"seconds":2.5503333333333336}')["seconds"] == Decimal("2.5503333333333336")
    for text in ("[" * 100_000, '{"a":1e999999999999999999999}'):
        with pytest.raises(ValueError, match="beyond"):
            parse_json(text)
