"""Counting signatures by distinct raw public keys."""

from __future__ import annotations

import pytest

from governance.tally import tally
from settlement.core.signatures import PublicKey, SigningKey, sign_document

DATA = b'{"type":"rates/1"}'
KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 4)]
PUBLIC = [key.public for key in KEYS]


def test_the_operators_signature_alone_meets_a_threshold_of_one() -> None:
    count = tally(DATA, [sign_document(KEYS[0], DATA)], PUBLIC[:1], 1)
    assert count.reached
    assert (count.signed, count.missing, count.rejected) == ((PUBLIC[0].kid,), (), ())


def test_who_signed_and_who_is_missing() -> None:
    count = tally(DATA, [sign_document(key, DATA) for key in KEYS[1:]], PUBLIC, 3)
    assert not count.reached
    assert count.signed == tuple(sorted(key.kid for key in PUBLIC[1:]))
    assert count.missing == (PUBLIC[0].kid,)
    assert tally(DATA, [sign_document(key, DATA) for key in KEYS], PUBLIC, 3).reached


def test_one_key_is_one_voice_however_often_it_signs_or_is_listed() -> None:
    twice = [sign_document(KEYS[0], DATA), sign_document(KEYS[0], DATA)]
    count = tally(DATA, twice, [*PUBLIC, PublicKey(PUBLIC[0].raw)], 2)
    assert not count.reached
    assert [(bad.index, bad.code) for bad in count.rejected] == [(1, "signature_repeated")]
    with pytest.raises(ValueError, match="1 distinct"):
        tally(DATA, twice, [PUBLIC[0], PublicKey(PUBLIC[0].raw)], 2)


def test_bad_signatures_do_not_count_and_do_not_hide_good_ones() -> None:
    stranger = SigningKey(b"\x09" * 32)
    moved = sign_document(KEYS[1], DATA + b" ")
    forged = {**sign_document(KEYS[2], DATA), "signature": sign_document(KEYS[1], DATA)["signature"]}
    count = tally(DATA, [{}, sign_document(stranger, DATA), moved, forged, sign_document(KEYS[0], DATA)], PUBLIC, 1)
    assert count.reached
    assert count.signed == (PUBLIC[0].kid,)
    assert [bad.code for bad in count.rejected] == [
        "signature_malformed",
        "key_unknown",
        "signature_invalid",
        "signature_invalid",
    ]


@pytest.mark.parametrize("threshold", [0, -1, 4])
def test_a_threshold_that_is_no_rule_or_never_met_is_refused(threshold: int) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        tally(DATA, [], PUBLIC, threshold)
