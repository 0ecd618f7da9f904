"""Recordings, answers and streams are read alike: their usage objects are found, and nothing else is kept."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal

import pytest

from settlement.core.errors import Malformed
from settlement.meter.exchanges import Exchange, from_stream, parse_json, read_exchanges
from settlement.meter.normaliser import REFUSALS, normalise

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


@pytest.mark.parametrize(
    "broken",
    [
        gzip.compress(json.dumps(RECORDING).encode(), mtime=0)[:-12],
        b"\x1f\x8b no archive at all",
        gzip.compress(json.dumps(RECORDING).encode() * 50, mtime=0)[:20] + b"\xff" * 40,
        b"",
        b" \n",
        b"\xff\xfe\x00\x01",
    ],
    ids=range(6),
)
def test_a_broken_file_is_refused_and_nothing_raises_past_us(broken: bytes) -> None:
    with pytest.raises(Malformed):
        read(broken)


def test_lines_end_at_newlines_alone_and_a_byte_order_mark_is_no_text() -> None:
    line = json.dumps({**RECORDING, "model_reported": "a\u2028b"}, ensure_ascii=False)
    found = read(b"\xef\xbb\xbf" + f"{line}\r\n{line}\r\n".encode())
    assert [each.model for each in found] == ["a\u2028b", "a\u2028b"]


@pytest.mark.parametrize(
    "more",
    [
        {"headers": ["a"], "finish_reasons": "stop", "events": "many", "model_reported": 5, "output_chars": []},
        {"headers": 5, "finish_reasons": 7, "events": None, "http_status": "200", "kind": [1], "error": None},
        {"usage_events": [{"event": None, "type": ["x"], "at": None, "usage": {"prompt_tokens": 1}}, 5, {"usage": 0}]},
        {"usage_events": [{"event": "x", "type": {"a": 1}, "usage": [{"prompt_tokens": 1}]}, {"event": 1e400}]},
    ],
)
def test_a_recording_by_another_hand_never_breaks_the_reader(more: dict[str, object]) -> None:
    (found,) = read(json.dumps({**RECORDING, **more}).encode())
    outcome = normalise(found)
    assert outcome.refusal in REFUSALS


def test_what_a_recording_says_in_strings_is_heard() -> None:
    (found,) = read(json.dumps({**RECORDING, "http_status": "500", "events": "3"}).encode())
    assert (found.status, found.events, normalise(found).refusal) == (500, 3, "error_answer")


def test_numbers_without_measure_are_one_answers_matter_not_the_files() -> None:
    found = read(
        b'{"usage":{"prompt_tokens":' + b"9" * 5000 + b',"completion_tokens":1}}\n' + json.dumps(ANSWER).encode()
    )
    assert [normalise(each).refusal for each in found] == ["count_too_large", "meter_absent"]


def test_an_array_of_pieces_of_one_answer_is_one_exchange() -> None:
    pieces = [
        {
            "responseId": "r",
            "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": n, "totalTokenCount": 4 + n},
        }
        for n in (1, 9)
    ]
    (found,) = read(json.dumps(pieces).encode())
    assert (found.streamed, normalise(found).meters) == (True, {"input_tokens": 4, "output_tokens": 9})
    assert len(read(json.dumps([pieces[0], {**pieces[1], "responseId": "s"}]).encode())) == 2


def test_a_stream_may_begin_with_any_field_and_end_its_lines_by_returns() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    first = json.dumps({"id": "a", "choices": [{"delta": {}, "usage": usage}]})
    (found,) = read(f"id: 7\rretry: 9\rdata: {first}\r\rdata: [DONE]\r\r".encode())
    assert normalise(found).meters == {"input_tokens": 1, "output_tokens": 2}


@pytest.mark.parametrize("member", [{"embeddings": [[0.1]]}, {"data": [{"embedding": [0.1]}]}, {"embedding": [0.1]}])
def test_an_embedding_is_known_by_its_members(member: dict[str, object]) -> None:
    (found,) = read(json.dumps({**member, "usage": {"total_tokens": 10}}).encode())
    assert normalise(found).meters == {"input_tokens": 10}
