"""Canonical JSON against the rfc8785 package, the JCS vectors and our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import strictjson
from settlement.core.canonical import MAX_INTEGER, digest, digest_raw, encode
from settlement.core.errors import Malformed
from tests.shared import shared

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "canonical_json.json").read_text("utf-8"))
KEYS = st.text(st.characters(max_codepoint=127), max_size=6)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_equals_the_rfc8785_package(document: Any) -> None:
    assert encode(document) == rfc8785.dumps(document)


@given(DOCUMENTS.filter(lambda value: "\\u0000" not in json.dumps(value)))
def test_what_we_write_we_read(document: Any) -> None:
    assert strictjson.loads(encode(document)) == document


def test_every_character_of_the_basic_plane() -> None:
    text = "".join(chr(point) for point in range(0x10000) if not 0xD800 <= point < 0xE000)
    assert encode(text) == rfc8785.dumps(text)


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["digest"][7:15])
def test_our_vectors(vector: dict[str, Any]) -> None:
    data = encode(vector["value"])
    assert data.hex() == vector["canonical_hex"]
    assert digest(data) == vector["digest"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["json"])
def test_our_refused_vectors(vector: dict[str, str]) -> None:
    with pytest.raises(Malformed) as refused:
        encode(json.loads(vector["json"]))
    assert refused.value.code == "canonical_value"


@pytest.mark.shared
def test_the_jcs_vectors_in_our_subset() -> None:
    vectors = json.loads(shared("protocol/rfc8785_jcs_vectors.json").read_text("utf-8"))["vectors"]
    taken = 0
    for vector in vectors:
        document = json.loads(vector["input"], parse_float=lambda text: int(float(text)) if text == "56.0" else text)
        try:
            data = encode(document)
        except Malformed:
            assert vector["name"] == "weird"  # keys beyond ASCII
            continue
        if vector["name"] == "values":  # holds real fractions
            continue
        assert data.hex() == vector["canonical_utf8_hex"], vector["name"]
        taken += 1
    assert taken >= 2


@pytest.mark.parametrize(
    "value",
    [0.0, 1.5, float("nan"), MAX_INTEGER + 1, -MAX_INTEGER - 1, {"é": 1}, {1: 2}, {None: 1}, "\ud800", {"a": "\udfff"},
     b"x", {1, 2}, ..., [[1.0]], {"a": {"b": 2**64}}],
    ids=ascii,
)  # fmt: skip
def test_refuses(value: object) -> None:
    with pytest.raises(Malformed) as refused:
        encode(value)
    assert refused.value.code == "canonical_value"


def test_refuses_cycles_and_depth() -> None:
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    with pytest.raises(Malformed):
        encode(cycle)


def test_limits_are_taken() -> None:
    assert encode([MAX_INTEGER, -MAX_INTEGER]) == b"[9007199254740991,-9007199254740991]"
    assert encode((True, 1, None)) == b"[true,1,null]"


def test_digest_text_form() -> None:
    text = digest(b"")
    assert text == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_raw(text).hex() == text[7:]


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 64 + "\n", "sha512:" + "a" * 64,
     " sha256:" + "a" * 64, "sha256:" + "١" * 64],
)  # fmt: skip
def test_other_digest_texts_are_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        digest_raw(text)
    assert refused.value.code == "digest_malformed"
