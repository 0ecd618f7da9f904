"""Encrypted key files: other JOSE libraries open ours, and no file says how it wants to be opened."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode

import pytest
from joserfc import jwe
from joserfc.jwk import OctKey

from settlement.core.errors import Malformed
from settlement.signers import sealed

WORDS = b"correct horse battery staple"


def test_the_header_names_the_algorithms_and_enough_rounds() -> None:
    header = sealed.seal(b"{}", WORDS).split(".", maxsplit=1)[0]
    found = json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    assert (found["alg"], found["enc"], found["p2c"]) == ("PBES2-HS512+A256KW", "A256GCM", 250_000)


def test_what_was_sealed_comes_back_and_no_two_files_are_alike() -> None:
    one, two = sealed.seal(b'{"d":"secret"}', WORDS), sealed.seal(b'{"d":"secret"}', WORDS)
    assert one != two
    assert sealed.unseal(one.encode() + b"\n", WORDS, "here") == b'{"d":"secret"}'


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_every_segment_counts(at: int) -> None:
    parts = sealed.seal(b"{}", WORDS).split(".")
    parts[at] = parts[at][:-2] + ("AA" if parts[at][-2:] != "AA" else "BB")
    with pytest.raises(Malformed, match="key_sealed"):
        sealed.unseal(".".join(parts).encode(), WORDS, "here")


@pytest.mark.parametrize(("alg", "enc"), [("PBES2-HS256+A128KW", "A256GCM"), ("PBES2-HS512+A256KW", "A128GCM")])
def test_a_file_with_other_algorithms_does_not_open(alg: str, enc: str) -> None:
    registry = jwe.JWERegistry(algorithms=[alg, enc])
    text = jwe.encrypt_compact({"alg": alg, "enc": enc}, b"{}", OctKey.import_key(WORDS), registry=registry)
    with pytest.raises(Malformed, match="key_sealed"):
        sealed.unseal(text.encode(), WORDS, "here")


@pytest.mark.parametrize("text", [b"", b"hello", b"a.b.c.d.e", b"....", b"\xff\xfe", b"{}"])
def test_what_is_no_key_file_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed, match="key_sealed"):
        sealed.unseal(text, WORDS, "here")


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(Malformed, match="passphrase_short"):
        sealed.seal(b"{}", b"short")
