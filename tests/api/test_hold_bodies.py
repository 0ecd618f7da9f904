"""The short way to read a hold's body takes and refuses exactly what the strict way does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.api import holds
from settlement.core.errors import Malformed

NAME = "019aaa00-0000-7000-8000-000000000000"
ODD = st.sampled_from(
    [
        *(b'"requests":2', b'"requests":1', b'"output_tokens":0', b'"output_tokens":-0', b'"output_tokens" : -0'),
        *(b'"output_tokens":1.0', b'"output_tokens":1e2', b'"output_tokens":01', b'"output_tokens":true'),
        *(b'"meters":{}', b'"meters":{"a":1,"a":2}', b'"meters" :{"a":0}', b'"meters":{"a":-0}', b'"meters":{"a:b":1}'),
        *(b'"meters":{"\\u0061":1}', b'"meters":{"\\u0000":1}', b'"meters":{"\\ud800":1}', b'"meters":[]'),
        *(b'"final":{"action":"absorb","limit":"1"}', b'"final":{"action":"stop","action":"stop"}', b'"final":null'),
        *(b'"model":"gpt-4.1:x"', b'"model":"a b"', b'"model":"\xff"', b'"tier":"t"', b'"other":1', b'"demand":"-0"'),
        b'"expires_in":99999999999999999999',
    ]
)


def outcome(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except Malformed as error:
        return error.code, error.status, error.problems


@given(
    st.lists(ODD, max_size=4),
    st.sampled_from([b"", b" ", b"\n", b"x", b"\0"]),
    st.sampled_from([b"", b"\xef\xbb\xbf", b"[", b" "]),
    st.booleans(),
)
def test_both_ways_say_the_same(more: list[bytes], behind: bytes, before: bytes, spaced: bool) -> None:
    plain = {
        "request": NAME,
        "model": "gpt-5",
        "tier": "standard",
        "meters": {"a": 1},
    }
    body = json.dumps(plain, separators=(",", " : ") if spaced else None).encode()[:-1]
    body = before + b",".join([body, *more]) + b"}" + behind
    found = outcome(lambda given: holds._decoded(given, holds._read_hold), body)
    assert found == outcome(lambda given: holds._strictly(given, holds.HoldRequest), body)


def test_a_usual_body_never_goes_the_strict_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "_strictly", None)
    asked = {
        "request": NAME,
        "model": "gpt-5",
        "tier": "standard",
        "meters": {"a": 0},
    }
    more = {"requests": 3, "final": {"action": "absorb", "limit": "2.5"}, "demand": "1.5", "max_output_tokens": 4_096}
    for document in (asked, {**asked, **more}, {**asked, "meters": {"a": 1, "b": 2}}):
        assert holds._decoded(json.dumps(document).encode(), holds._read_hold).model == "gpt-5"
