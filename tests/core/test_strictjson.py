"""Hostile JSON is refused by name, quickly; everything else is read as the standard parser reads it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from settlement.core.errors import Malformed
from settlement.core.strictjson import MAX_DEPTH, loads


def code_of(body: bytes) -> str:
    with pytest.raises(Malformed) as refused:
        loads(body)
    return f"{refused.value.status} {refused.value.code}"


REFUSED = [
    (b"", "400 json_empty"),
    (b" \r\n\t", "400 json_empty"),
    (b"\xef\xbb\xbf{}", "400 json_bom"),
    ("{}".encode("utf-16"), "400 json_bom"),
    ("{}".encode("utf-16-le"), "400 json_nul_byte"),
    (b'{"a":"\xff"}', "400 json_encoding"),
    (b'"\xed\xa0\x80"', "400 json_encoding"),
    (b'"\xc0\x80"', "400 json_encoding"),
    (b'{"a":"\0"}', "400 json_nul_byte"),
    (b"{}\0", "400 json_nul_byte"),
    (b"[NaN]", "400 json_not_finite"),
    (b"[Infinity]", "400 json_not_finite"),
    (b'{"a":-Infinity}', "400 json_not_finite"),
    (b"{", "400 json_malformed"),
    (b'{"a":1,}', "400 json_malformed"),
    (b"{'a':1}", "400 json_malformed"),
    (b"[1 2]", "400 json_malformed"),
    (b'"a', "400 json_malformed"),
    (b'"\\x"', "400 json_malformed"),
    (b'"\\u12"', "400 json_malformed"),
    (b'"a\nb"', "400 json_malformed"),
    (b"tru", "400 json_malformed"),
    (b"[.5]", "400 json_malformed"),
    (b"[+1]", "400 json_malformed"),
    (b"[0x1]", "400 json_malformed"),
    (b"[1_000]", "400 json_malformed"),
    ("[１]".encode(), "400 json_malformed"),
    (b"[-]", "400 json_malformed"),
    (b'\\"[', "400 json_malformed"),
    (b"]" * 50 + b"[" * 50, "400 json_malformed"),
    (b"{} {}", "400 json_trailing_data"),
    (b"01", "400 json_trailing_data"),
    (b"1 x", "400 json_trailing_data"),
    (b"[" * 33 + b"]" * 33, "422 json_too_deep"),
    (b"[" * 100_000, "422 json_too_deep"),
    (b'{"a":' * 100_000, "422 json_too_deep"),
    (b"[{" * 50_000, "422 json_too_deep"),
    (b'["\\\\",' + b"[" * 32 + b"]" * 33, "422 json_too_deep"),
    (b"1.0", "422 json_number_not_integer"),
    (b"[1e3]", "422 json_number_not_integer"),
    (b"[1E400]", "422 json_number_not_integer"),
    (b'{"a":-0.0}', "422 json_number_not_integer"),
    (b"[1.e5]", "422 json_number_not_integer"),
    (b"12345678901234567890", "422 json_number_too_long"),
    (b"[-12345678901234567890]", "422 json_number_too_long"),
    (b"1" + b"0" * 4000, "422 json_number_too_long"),
    (b"-0", "422 json_negative_zero"),
    (b'{"a":-0}', "422 json_negative_zero"),
    (b'{"a":"\\u0000"}', "422 json_nul_escape"),
    (b'{"\\u0000":1}', "422 json_nul_escape"),
    (b'"\\ud800"', "422 json_lone_surrogate"),
    (b'"\\uDFFF"', "422 json_lone_surrogate"),
    (b'"\\ude00\\ud83d"', "422 json_lone_surrogate"),
    (b'"\\ud83d\\ud83d\\ude00"', "422 json_lone_surrogate"),
    (b'"\\ud83dx\\ude00"', "422 json_lone_surrogate"),
    (b'{"\\udc00":1}', "422 json_lone_surrogate"),
    (b'{"a":1,"a":1}', "422 json_duplicate_key"),
    (b'[{"b":{"a":1,"\\u0061":2}}]', "422 json_duplicate_key"),
]


@pytest.mark.parametrize(("body", "code"), REFUSED, ids=lambda value: ascii(value)[:40])
def test_refused_by_name(body: bytes, code: str) -> None:
    assert code_of(body) == code


ACCEPTED = [
    b"{}", b"[]", b"0", b'""', b"null", b" true\n", b"-1", b"9999999999999999999", b"-9999999999999999999",
    b"[" * 32 + b"]" * 32,
    b"[" + b",".join([b"[{}]"] * 1000) + b"]",
    b'"' + b"[" * 1000 + b'"', b'"1.5 1e3 -0 NaN Infinity 12345678901234567890 ["', b'{"1.5":"-0"}',
    b'"\\\\u0000"', b'"\\\\ud800"', b'"\\"[[[["', b'"\\\\\\"{"', b'"\\\\"', b'"\\ud83d\\ude00"', '"😀é"'.encode(),
    b'{"a":1,"A":2,"":3}', b'[{"a":1},{"a":1}]', b'["\\/\\b\\f\\n\\r\\t\\u00e9"]',
]  # fmt: skip


@pytest.mark.parametrize("body", ACCEPTED, ids=lambda value: ascii(value)[:40])
def test_accepted_as_the_standard_parser_does(body: bytes) -> None:
    assert loads(body) == json.loads(body)


def test_the_detail_names_the_byte() -> None:
    for body, offset in [(b'{"1.5":"x","\xc3\xa9":2.5}', 16), (b'["\\"1.0", -0]', 10), (b'["a[[", ' + b"[" * 40, 39)]:
        with pytest.raises(Malformed) as refused:
            loads(body)
        assert refused.value.detail.endswith(f"(at byte {offset})"), body


def reference(body: bytes) -> Any:
    """The rules once more, over the parsed tree and the parser's own hooks: slow, unsafe, and independent."""

    def refuse(*_: object) -> Any:
        raise ValueError

    def integer(text: str) -> int:
        if text == "-0" or len(text.lstrip("-")) > 19:
            raise ValueError
        return int(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    def walk(value: Any, depth: int) -> None:
        if isinstance(value, str):
            value.encode()
            if "\0" in value:
                raise ValueError
        elif isinstance(value, (dict, list)):
            if depth == MAX_DEPTH:
                raise ValueError
            for member in value:
                walk(member, depth + 1)
            for member in value.values() if isinstance(value, dict) else ():
                walk(member, depth + 1)

    value = json.loads(
        body.decode(), parse_float=refuse, parse_constant=refuse, parse_int=integer, object_pairs_hook=unique
    )
    walk(value, 0)
    return value


FRAGMENTS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'\\"', b"\\\\", b"\\u0000", b"\\ud83d", b"\\ude00", b"\\ud800",
     b'"a"', b'"a":', b"1", b"-0", b"0", b"-", b".", b"e", b"E5", b"NaN", b"true", b"null", b" ", b"\n", b"\xc3\xa9",
     b"\xff", b"\0", b"12345678901234567890", b"[[[[[[[[", b"]]]]]]]]", b'"\\ud83d\\ude00"']
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@given(
    st.lists(FRAGMENTS, max_size=30).map(b"".join)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=30)
)
@example(b'{"a":[1,-0]}')
def test_agrees_with_an_independent_reading(body: bytes) -> None:
    try:
        expected = json.dumps(reference(body))
    except ValueError:
        with pytest.raises(Malformed):
            loads(body)
    else:
        assert json.dumps(loads(body)) == expected


@given(st.lists(FRAGMENTS, max_size=8).map(b"".join).map(lambda part: b'{"a":' + part + b"}"))
def test_agrees_with_an_independent_reading_inside_an_object(body: bytes) -> None:
    test_agrees_with_an_independent_reading.hypothesis.inner_test(body)  # type: ignore[attr-defined]


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "brackets": lambda size: b"[" * size,
    "pairs": lambda size: b"[" + b"[]," * (size // 3) + b"[]]",
    "sawtooth": lambda size: b"[" + (b"[" * 31 + b"]" * 31 + b",") * (size // 63) + b"0]",
    "crossed": lambda size: b"[" + b"[}" * (size // 2),
    "quotes": lambda size: b'"' * size,
    "backslashes": lambda size: b'"' + b"\\" * size,
    "digits": lambda size: b"1" * size,
    "short numbers": lambda size: b"[" + b"1," * (size // 2) + b"1]",
    "surrogates": lambda size: b'"' + b"\\ud83d" * (size // 6) + b'"',
    "minus": lambda size: b"[" + b"-1," * (size // 3) + b"-0]",
    "keys": lambda size: b"{" + b",".join(b'"%d":0' % number for number in range(size // 10)) + b',"7":1}',
    "same key": lambda size: b"{" + b'"a":0,' * (size // 6) + b'"a":0}',
}


def steps(body: bytes) -> int:
    """How many lines of Python run until `body` is refused or read; each calls compiled primitives that are linear."""
    count = 0

    def trace(_frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(Malformed):
            loads(body)
    finally:
        sys.settrace(earlier)
    return count


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_hostile_body_costs_grows_with_its_size_alone(name: str) -> None:
    """16 times the bytes take 16 times as many steps at most; what is quadratic would take 256 times."""
    assert steps(HOSTILE[name](1 << 16)) <= 16 * steps(HOSTILE[name](1 << 12))
