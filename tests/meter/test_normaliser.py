"""Usage objects of every shape become exact meters or a named refusal; nothing is guessed or lost quietly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.rates import parse
from settlement.core.rating import Refusal, rate
from settlement.meter.dialects import TREE
from settlement.meter.exchanges import Exchange, UsageEvent, from_document, parse_json
from settlement.meter.normaliser import FLAGS, REFUSALS, Normal, normalise
from tests.world import START, first_rates

BEYOND = {"audio_ms", "input_audio_ms", "output_audio_ms"}
"""Meters for models that are no text models: the seed registry has none, so a rate table has to bring them."""


def said(usage: dict[str, Any], **more: Any) -> Normal:
    """The outcome of one whole answer with this usage object."""
    return normalise(Exchange("test", usage=(UsageEvent(0, None, "usage", usage),), **more))


def streamed(*events: tuple[int, str | None, str, dict[str, Any]], **more: Any) -> Normal:
    """The outcome of a stream whose events carried these usage objects."""
    return normalise(Exchange("test", streamed=True, usage=tuple(UsageEvent(*event) for event in events), **more))


CASES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "chat": (
        {
            "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
        {"input_tokens": 20, "cache_read_tokens": 8, "output_tokens": 9},
    ),
    "reasoning inside the completion": (
        {
            "prompt_tokens": 20, "completion_tokens": 90, "total_tokens": 110,
            "completion_tokens_details": {"reasoning_tokens": 64},
        },
        {"input_tokens": 20, "output_tokens": 90, "output_reasoning_tokens": 64},
    ),
    "reasoning beside the completion": (
        {
            "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 93,
            "completion_tokens_details": {"reasoning_tokens": 64},
        },
        {"input_tokens": 20, "output_tokens": 73, "output_reasoning_tokens": 64},
    ),
    "no completion, and the total says there was none": (
        {"prompt_tokens": 6, "total_tokens": 6}, {"input_tokens": 6, "output_tokens": 0},
    ),
    "cache under another name": (
        {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21, "prompt_cache_hit_tokens": 7},
        {"input_tokens": 20, "cache_read_tokens": 7, "output_tokens": 1},
    ),
    "null details": (
        {
            "prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3, "prompt_tokens_details": None,
            "cached_tokens": 1,
        },
        {"input_tokens": 2, "cache_read_tokens": 1, "output_tokens": 1},
    ),
    "responses": (
        {
            "input_tokens": 50, "output_tokens": 8, "total_tokens": 58,
            "input_tokens_details": {"cached_tokens": 40}, "output_tokens_details": {"reasoning_tokens": 5},
        },
        {"input_tokens": 50, "cache_read_tokens": 40, "output_tokens": 8, "output_reasoning_tokens": 5},
    ),
    "input without its cache": (
        {
            "input_tokens": 21, "output_tokens": 300, "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 500,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 300},
            "server_tool_use": {"web_search_requests": 2},
        },
        {
            "input_tokens": 1521, "cache_read_tokens": 1000, "cache_write_tokens": 500, "cache_write_5m_tokens": 200,
            "cache_write_1h_tokens": 300, "output_tokens": 300, "web_searches": 2,
        },
    ),
    "thoughts and tool prompts beside the counts": (
        {
            "promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 30, "toolUsePromptTokenCount": 7,
            "totalTokenCount": 52,
        },
        {"input_tokens": 17, "input_tool_tokens": 7, "output_tokens": 35, "output_reasoning_tokens": 30},
    ),
    "cached audio is cache, not audio as well": (
        {
            "promptTokenCount": 100, "candidatesTokenCount": 1, "totalTokenCount": 101, "cachedContentTokenCount": 60,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}, {"modality": "AUDIO", "tokenCount": 80}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 60}],
        },
        {
            "input_tokens": 100, "cache_read_tokens": 60, "cache_audio_read_tokens": 60, "input_audio_tokens": 20,
            "output_tokens": 1,
        },
    ),
    "a total that includes the cache": (
        {
            "inputTokens": 3, "outputTokens": 44, "totalTokens": 11514, "cacheReadInputTokens": 9511,
            "cacheWriteInputTokens": 1956,
        },
        {"input_tokens": 11470, "cache_read_tokens": 9511, "cache_write_tokens": 1956, "output_tokens": 44},
    ),
    "billed units, not tokens": (
        {
            "billed_units": {"input_tokens": 45, "output_tokens": 29.0}, "cached_tokens": 1024,
            "tokens": {"input_tokens": 1469, "output_tokens": 42},
        },
        {"input_tokens": 45, "output_tokens": 29},
    ),
    "searches": ({"billed_units": {"search_units": 2}}, {"rerank_searches": 2}),
    "seconds": ({"type": "duration", "seconds": 37.5}, {"audio_ms": 37500}),
    "pages": ({"pages_processed": 3, "doc_size_bytes": 9000}, {"input_document_pages": 3}),
    "two names for one count, and zeros under one of them": (
        {
            "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "input_tokens": 0, "output_tokens": 5,
            "input_tokens_details": {"cached_tokens": 4},
        },
        {"input_tokens": 10, "cache_read_tokens": 4, "output_tokens": 5},
    ),
    "counts as strings": (
        {
            "prompt_tokens": "20", "completion_tokens": "9", "total_tokens": "29",
            "prompt_tokens_details": {"cached_tokens": "8"},
        },
        {"input_tokens": 20, "cache_read_tokens": 8, "output_tokens": 9},
    ),
    "input without its cache, and a total with it": (
        {"input_tokens": 21, "output_tokens": 300, "cache_read_input_tokens": 1000, "total_tokens": 1321},
        {"input_tokens": 1021, "cache_read_tokens": 1000, "output_tokens": 300},
    ),
    "writes by their lifetimes alone": (
        {
            "input_tokens": 5, "output_tokens": 9,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 50},
        },
        {
            "input_tokens": 155, "cache_write_tokens": 150, "cache_write_5m_tokens": 100, "cache_write_1h_tokens": 50,
            "output_tokens": 9,
        },
    ),
    "a modality and a lifetime in two entries each": (
        {
            "promptTokenCount": 90, "candidatesTokenCount": 5, "totalTokenCount": 95,
            "promptTokensDetails": [
                {"modality": "AUDIO", "tokenCount": "30"}, {"modality": 4, "tokenCount": 40}, {"modality": "TEXT"},
            ],
        },
        {"input_tokens": 90, "input_audio_tokens": 70, "output_tokens": 5},
    ),
    "evaluated under other names": (
        {"tokens_evaluated": 12, "tokens_predicted": 9}, {"input_tokens": 12, "output_tokens": 9},
    ),
    "evaluated": ({"prompt_eval_count": 26, "eval_count": 290}, {"input_tokens": 26, "output_tokens": 290}),
    "voice": (
        {
            "input_tokens": 100, "output_tokens": 60, "total_tokens": 160,
            "input_token_details": {
                "text_tokens": 40, "audio_tokens": 60, "cached_tokens": 50,
                "cached_tokens_details": {"text_tokens": 30, "audio_tokens": 20},
            },
            "output_token_details": {"text_tokens": 20, "audio_tokens": 40},
        },
        {
            "input_tokens": 100, "cache_read_tokens": 50, "cache_audio_read_tokens": 20, "input_audio_tokens": 40,
            "output_tokens": 60, "output_audio_tokens": 40,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_usage_object_becomes_exact_meters(name: str) -> None:
    usage, meters = CASES[name]
    found = said(usage)
    assert (found.refusal, found.flags, found.unread) == (None, (), ())
    assert found.meters == meters
    table = parse(first_rates())
    if not meters.keys() & BEYOND:
        priced = rate(table, "gpt-5", "standard", "errored", meters, START)
        assert not isinstance(priced, Refusal) or priced.code == "unpriced_meter"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "total": ({"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100}, "total_mismatch"),
    "input absent": ({"eval_count": 12}, "meter_absent"),
    "output absent": ({"input_tokens": 12, "cache_read_input_tokens": 4}, "meter_absent"),
    "total alone": ({"total_tokens": 12}, "split_unknown"),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, "no_counts"),
    "no counts": ({"trafficType": "ON_DEMAND"}, "no_counts"),
    "a shape of nobody": ({"tokens_in": 5, "tokens_out": 6}, "unknown_shape"),
    "half a token": ({"prompt_tokens": 1.5, "completion_tokens": 1, "total_tokens": 2.5}, "not_whole"),
    "below zero": ({"prompt_tokens": -1, "completion_tokens": 1, "total_tokens": 0}, "negative_count"),
    "beyond measure": ({"prompt_tokens": 10**13, "completion_tokens": 1}, "count_too_large"),
    "a word": ({"prompt_tokens": "many", "completion_tokens": 1, "total_tokens": 2}, "not_whole"),
    "a word in a part": (
        {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": "many"}}, "not_whole",
    ),
    "yes": ({"prompt_tokens": True, "completion_tokens": 1}, "not_whole"),
    "a list": ({"prompt_tokens": [9], "completion_tokens": 1}, "not_whole"),
    "an object": ({"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": {"read": 3}}, "unknown_shape"),
    "parts in a list": (
        {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": [{"cached_tokens": 3}]}, "unknown_shape",
    ),
    "entries without a count": (
        {"promptTokenCount": 9, "candidatesTokenCount": 1, "promptTokensDetails": [{"modality": "AUDIO", "n": 3}]},
        "unknown_shape",
    ),
    "billed input alone": ({"billed_units": {"input_tokens": 4}}, "meter_absent"),
    "two inputs": ({"prompt_tokens": 9, "completion_tokens": 1, "input_tokens": 8}, "sources_disagree"),
    "two caches": (
        {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "cached_tokens": 3, "num_cached_tokens": 4},
        "sources_disagree",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_is_refused_by_name(name: str) -> None:
    usage, reason = REFUSED[name]
    found = said(usage)
    assert (found.refusal, found.uses) == (reason, ())


def test_a_part_above_its_whole_is_cut_and_flagged() -> None:
    found = said({
        "prompt_tokens": 43, "completion_tokens": 10, "total_tokens": 53,
        "prompt_tokens_details": {"cached_tokens": 50}, "completion_tokens_details": {"reasoning_tokens": 11},
    })  # fmt: skip
    assert found.flags == ("subset_above_whole",)
    assert found.meters == {
        "input_tokens": 43, "cache_read_tokens": 43, "output_tokens": 10, "output_reasoning_tokens": 10,
    }  # fmt: skip


def test_a_count_that_only_the_total_states_is_flagged() -> None:
    found = said({"prompt_tokens": 10, "total_tokens": 30})
    assert (found.meters, found.flags) == ({"input_tokens": 10, "output_tokens": 20}, ("derived_from_total",))


def test_a_total_alone_is_the_input_of_a_call_without_output() -> None:
    assert said({"total_tokens": 12}, kind="embeddings").meters == {"input_tokens": 12}
    assert said({"prompt_tokens": 12, "total_tokens": 13}, kind="embeddings").refusal == "total_mismatch"


def test_counts_that_nothing_reads_are_named() -> None:
    found = said({
        "input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 0,
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 3},
    })  # fmt: skip
    assert found.unread == ("server_tool_use.web_fetch_requests",)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_the_two_reports_of_a_stream_are_one_answer_not_two() -> None:
    start = {"input_tokens": 21, "cache_read_input_tokens": 100, "output_tokens": 3}
    found = streamed(
        (0, "message_start", "message.usage", start), (9, "message_delta", "usage", {"output_tokens": 250})
    )
    assert found.meters == {"input_tokens": 121, "cache_read_tokens": 100, "output_tokens": 250}


def test_a_stream_that_was_cut_before_its_last_report_keeps_its_lower_bound() -> None:
    start = {"input_tokens": 21, "output_tokens": 3}
    found = streamed((0, "message_start", "message.usage", start))
    assert (found.meters, found.flags) == ({"input_tokens": 21, "output_tokens": 3}, ("lower_bound",))


def test_the_report_behind_the_beginning_is_read_as_strictly() -> None:
    start = (0, "message_start", "message.usage", {"input_tokens": 21, "output_tokens": 3})
    assert streamed(start, (5, "message_delta", "usage", {})).flags == ("lower_bound",)
    assert streamed(start, (5, "message_delta", "usage", {"output_tokens": 9})).flags == ()
    assert streamed(start, (5, "message_delta", "usage", {"output_tokens": "nine"})).refusal == "not_whole"


def test_zeros_behind_counts_state_nothing() -> None:
    start = (0, "message_start", "message.usage", {"input_tokens": 21, "output_tokens": 3})
    end = (9, "message_delta", "usage", {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 250})
    assert streamed(start, end).meters == {"input_tokens": 21, "output_tokens": 250}
    counts = (1, None, "usage", {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30})
    zeros = (2, None, "usage", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    assert streamed(counts, zeros).meters == {"input_tokens": 10, "output_tokens": 20}
    less = (2, None, "usage", {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10})
    assert streamed(counts, less).refusal == "sources_disagree"


def test_an_input_that_is_zero_until_the_end_is_one_answer() -> None:
    first = (0, None, "usage", {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1})
    last = (9, None, "usage", {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30})
    assert streamed(first, last).meters == {"input_tokens": 10, "output_tokens": 20}


def test_an_output_of_zero_is_refused_where_there_is_text() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}
    assert said(usage, output_chars=51).refusal == "zero_with_text"
    assert said(usage, output_chars=0).meters == {"input_tokens": 10, "output_tokens": 0}


def test_a_recording_without_text_and_end_is_an_embedding_where_output_is_absent() -> None:
    usage = {"billed_units": {"input_tokens": 4}}
    assert said(usage, output_chars=0).meters == {"input_tokens": 4}
    assert said(usage, output_chars=0, finish=("stop",)).refusal == "meter_absent"


def test_messages_one_behind_the_other_add_up_and_a_repeated_beginning_does_not() -> None:
    start, delta = {"input_tokens": 17, "output_tokens": 1}, {"output_tokens": 65}
    begin, end = ("message_start", "message.usage"), ("message_delta", "usage")
    twice = streamed((0, *begin, start), (1, *begin, start), (5, *end, delta))
    assert twice.meters == {"input_tokens": 17, "output_tokens": 65}
    both = streamed((0, *begin, start), (5, *end, delta), (7, *begin, start), (9, *end, delta))
    assert both.meters == {"input_tokens": 34, "output_tokens": 130}


def test_the_last_of_running_totals_counts() -> None:
    def chunk(output: int) -> dict[str, Any]:
        return {"prompt_tokens": 11, "completion_tokens": output, "total_tokens": 11 + output}

    found = streamed(*((number, None, "usage", chunk(number + 1)) for number in range(40)))
    assert found.meters == {"input_tokens": 11, "output_tokens": 40}


def test_two_answers_in_one_recording_add_up() -> None:
    one = {"prompt_tokens": 322, "completion_tokens": 104, "total_tokens": 426}
    two = {"prompt_tokens": 433, "completion_tokens": 122, "total_tokens": 555}
    assert streamed((34, None, "usage", one), (96, None, "usage", two)).meters == {
        "input_tokens": 755,
        "output_tokens": 226,
    }
    done = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    socket = [(place, "response.completed", "response.usage", done) for place in (3, 9)]
    assert streamed(*socket).meters == {"input_tokens": 10, "output_tokens": 4}


def test_passes_that_the_totals_leave_out_are_added_and_another_models_stand_alone() -> None:
    def one(kind: str, given: int, made: int, **more: str) -> dict[str, Any]:
        return {"type": kind, "input_tokens": given, "output_tokens": made, "cache_read_input_tokens": 0, **more}

    top = {"input_tokens": 220, "output_tokens": 8, "cache_read_input_tokens": 0}
    compaction = said({**top, "iterations": [one("compaction", 55196, 125), one("message", 220, 8)]})
    assert compaction.meters == {"input_tokens": 55416, "output_tokens": 133}
    advised = said({
        **top,
        "iterations": [one("message", 100, 3), one("advisor_message", 900, 50, model="other"), one("message", 120, 5)],
    })  # fmt: skip
    assert [(use.model, dict(use.meters)) for use in advised.uses] == [
        (None, {"input_tokens": 220, "output_tokens": 8}),
        ("other", {"input_tokens": 900, "output_tokens": 50}),
    ]
    empty = said({**top, "iterations": [one("message", 90, 0, model="refusing"), one("fallback_message", 220, 8)]})
    assert [dict(use.meters) for use in empty.uses] == [{"input_tokens": 220, "output_tokens": 8}]
    assert said({**top, "iterations": [one("message", 1, 1)]}).refusal == "passes_mismatch"


def test_sources_of_one_answer_must_agree() -> None:
    usage = {"input_tokens": 392, "output_tokens": 97}
    for output, refusal in ((97, None), (133, "sources_disagree")):
        metrics = {"inputTokenCount": 392, "outputTokenCount": output, "invocationLatency": 9}
        found = streamed((0, "chunk", "usage", usage), (9, "chunk", "amazon-bedrock-invocationMetrics", metrics))
        assert found.refusal == refusal


def test_headers_speak_where_the_body_is_silent_and_must_agree_where_it_is_not() -> None:
    prefix = "x-amzn-bedrock-"
    headers = {
        f"{prefix}input-token-count": "3",
        f"{prefix}output-token-count": "44",
        f"{prefix}cache-read-input-token-count": "9511",
    }
    meters = {"input_tokens": 9514, "cache_read_tokens": 9511, "output_tokens": 44}
    assert normalise(Exchange("test", headers=headers)).meters == meters
    body = {"input_tokens": 3, "output_tokens": 44, "cache_read_input_tokens": 9511}
    assert said(body, headers=headers).meters == meters
    assert said({**body, "output_tokens": 45}, headers=headers).refusal == "sources_disagree"


@pytest.mark.parametrize(
    ("exchange", "reason"),
    [
        (Exchange("test", status=429), "error_answer"),
        (Exchange("test", status=200, failed=True, streamed=True), "error_answer"),
        (Exchange("test", kind="count", usage=(UsageEvent(0, None, "(count)", {"input_tokens": 9}),)), "count_only"),
        (Exchange("test", status=200, streamed=True), "stream_without_usage"),
        (Exchange("test", status=200), "no_usage"),
        (Exchange("test", events=0), "no_answer"),
    ],
)
def test_an_exchange_without_counts_says_why(exchange: Exchange, reason: str) -> None:
    assert normalise(exchange).refusal == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**15) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted({*CASES["voice"][0], *CASES["chat"][0], "iterations", "modality"})), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.sampled_from([case[0] for case in CASES.values()]), min_size=1, max_size=3), st.data())
def test_whatever_a_server_sends_ends_as_meters_of_the_tree_or_as_a_known_refusal(
    usages: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Any member of any shape replaced by anything, in streams of several: no exception, no part above its whole."""
    events = []
    for number, usage in enumerate(usages):
        changed = {**usage, data.draw(st.sampled_from([*usage, "iterations"])): data.draw(JSON)}
        events.append((number, data.draw(st.sampled_from([None, "message_start", "response.done"])), "usage", changed))
    found = streamed(*events)
    assert found.refusal is None or found.refusal in REFUSALS
    assert set(found.flags) <= FLAGS.keys()
    for use in found.uses:
        assert all(type(units) is int and 0 <= units <= 10**12 for units in use.meters.values())
        for whole in set(TREE.values()):
            parts = sum(units for part, units in use.meters.items() if TREE.get(part) == whole)
            assert parts <= use.meters.get(whole, 0)


def test_the_tree_is_that_of_the_seed_registry() -> None:
    registry = {meter.name: meter.parent for meter in parse(first_rates()).meters.values()}
    assert {part: registry[part] for part in TREE} == TREE
    emitted = {meter for _, meters in CASES.values() for meter in meters}
    assert emitted - registry.keys() <= BEYOND


def test_the_same_answer_reads_the_same_from_its_body() -> None:
    """A whole body, with the usage where the vendor puts it."""
    body = {"id": "x", "model": "m", "choices": [{"message": {"content": "hello"}}], "usage": CASES["chat"][0]}
    found = normalise(from_document(parse_json(json.dumps(body))))
    assert found.meters == CASES["chat"][1]
