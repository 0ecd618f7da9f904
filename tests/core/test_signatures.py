"""Signatures against RFC 8037, Wycheproof and joserfc; and every way in which one is refused."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import OKPKey

from settlement.core.errors import Malformed, Unauthenticated
from settlement.core.signatures import (
    RECEIPT_TYPE,
    REPORT_TYPE,
    PublicKey,
    SigningKey,
    base64url,
    detached_kid,
    parse_base64url,
    sign_compact,
    sign_detached,
    sign_document,
    verify_compact,
    verify_detached,
    verify_document,
)
from tests.shared import shared

VECTORS_DIR = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((VECTORS_DIR / "detached_jws.json").read_text("utf-8"))
RECEIPT = json.loads((VECTORS_DIR / "receipt_jws.json").read_text("utf-8"))
KEYS = [SigningKey(bytes.fromhex(key["seed_hex"])) for key in VECTORS["keys"]]
KEY, OTHER = KEYS
REGISTRY = jws.JWSRegistry(algorithms=["Ed25519", "EdDSA"])
BODY = b'{"v":1,"records":[]}'
GOOD: dict[str, Any] = {"alg": "Ed25519", "b64": False, "crit": ["b64"], "kid": KEY.public.kid}


def lookup(kid: str) -> PublicKey | None:
    return {key.public.kid: key.public for key in KEYS}.get(kid)


def segment(data: bytes) -> str:
    """base64url by the standard library, so that a fault in ours can't hide."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(header: str | bytes | dict[str, Any], body: bytes = BODY, key: SigningKey = KEY) -> str:
    """A detached value, honestly signed, under any protected header at all."""
    text = json.dumps(header) if isinstance(header, dict) else header
    protected = segment(text.encode() if isinstance(text, str) else text)
    return f"{protected}..{segment(key.sign(protected.encode() + b'.' + body))}"


def code_of(value: str, body: bytes = BODY, key: PublicKey = KEY.public, typ: str | None = None) -> str:
    with pytest.raises(Unauthenticated) as refused:
        verify_detached(value, body, key, typ)
    return refused.value.code


# --- vectors -----------------------------------------------------------------------------------------------------


def test_our_keys() -> None:
    for key, vector in zip(KEYS, VECTORS["keys"], strict=True):
        assert key.public.raw.hex() == vector["public_hex"]
        assert key.public.jwk() == vector["jwk"]
        assert key.public.kid == vector["kid"]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["value"][-8:])
def test_our_detached_vectors(case: dict[str, Any]) -> None:
    key, body = KEYS[case["key"]], bytes.fromhex(case["body_hex"])
    assert sign_detached(key, body, case["typ"]) == case["value"]
    assert detached_kid(case["value"]) == key.public.kid
    verify_detached(case["value"], body, key.public, case["typ"])


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["code"])
def test_our_refused_vectors(case: dict[str, str]) -> None:
    assert code_of(case["value"]) == case["code"]


def test_our_document_and_receipt_vectors() -> None:
    vector = VECTORS["document"]
    data = bytes.fromhex(vector["data_hex"])
    assert sign_document(KEYS[vector["key"]], data) == vector["signature"]
    assert verify_document(vector["signature"], data, lookup) == KEYS[vector["key"]].public.kid
    payload = bytes.fromhex(RECEIPT["payload_hex"])
    assert sign_compact(KEYS[RECEIPT["key"]], payload, RECEIPT["typ"]) == RECEIPT["token"]
    assert verify_compact(RECEIPT["token"], lookup, RECEIPT["typ"]) == payload


@pytest.mark.shared
def test_rfc_8037() -> None:
    vector = json.loads(shared("protocol/rfc8037_ed25519.json").read_text("utf-8"))
    key = SigningKey.from_jwk(vector["jwk_private"])
    assert key.public.kid == vector["jwk_thumbprint_sha256"]
    assert key.public.jwk() == vector["jwk_public"]
    signature = base64url(key.sign(vector["jws"]["signing_input"].encode()))
    assert f"{vector['jws']['signing_input']}.{signature}" == vector["jws"]["compact"]


@pytest.mark.shared
def test_wycheproof() -> None:
    groups = json.loads(gzip.decompress(shared("protocol/wycheproof_ed25519.json.gz").read_bytes()))["testGroups"]
    seen = {"valid": 0, "invalid": 0}
    for group in groups:
        key = PublicKey(bytes.fromhex(group["publicKey"]["pk"]))
        for test in group["tests"]:
            verdict = key.verify(bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))
            assert verdict == (test["result"] == "valid"), test
            seen[test["result"]] += 1
    assert seen == {"valid": 88, "invalid": 63}


# --- joserfc, both ways --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("algorithm", ["Ed25519", "EdDSA"])
@pytest.mark.parametrize("typ", [None, REPORT_TYPE])
def test_we_take_what_joserfc_signs(algorithm: str, typ: str | None) -> None:
    key = OKPKey.import_key({**KEY.jwk()})
    header: dict[str, Any] = {**GOOD, "alg": algorithm} | ({"typ": typ} if typ else {})
    protected, _, signature = jws.serialize_compact(header, BODY, key, registry=REGISTRY).split(".")
    verify_detached(f"{protected}..{signature}", BODY, KEY.public, typ)
    plain = {"alg": algorithm, "kid": KEY.public.kid, "typ": RECEIPT_TYPE}
    assert verify_compact(jws.serialize_compact(plain, b"x.y", key, registry=REGISTRY), lookup, RECEIPT_TYPE) == b"x.y"


def test_joserfc_takes_what_we_sign() -> None:
    key = OKPKey.import_key({**KEY.public.jwk()})
    detached = jws.deserialize_compact(sign_detached(KEY, BODY, REPORT_TYPE), key, registry=REGISTRY, payload=BODY)
    assert detached.headers() == {**GOOD, "typ": REPORT_TYPE}
    receipt = jws.deserialize_compact(sign_compact(KEY, BODY, RECEIPT_TYPE), key, registry=REGISTRY)
    assert receipt.payload == BODY
    document: Any = {"payload": BODY.decode(), "signatures": [sign_document(KEY, BODY)]}
    assert jws.deserialize_json(document, key, registry=REGISTRY).payload == BODY
    with pytest.raises(BadSignatureError):
        jws.deserialize_compact(sign_detached(OTHER, BODY), key, registry=REGISTRY, payload=BODY)


# --- refusals ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10**6))
def test_any_body_and_no_other(body: bytes, position: int) -> None:
    value = sign_detached(KEY, body)
    verify_detached(value, body, KEY.public)
    assert code_of(value, body + b"\n") == "signature_invalid"
    if body:
        bit = position % (len(body) * 8)
        changed = (int.from_bytes(body, "big") ^ 1 << bit).to_bytes(len(body), "big")
        assert code_of(value, changed) == "signature_invalid"


def test_every_flipped_bit_of_the_signature_fails() -> None:
    protected, _, signature = sign_detached(KEY, BODY).split(".")
    raw = parse_base64url(signature) or b""
    for bit in range(512):
        forged = (int.from_bytes(raw, "big") ^ 1 << bit).to_bytes(64, "big")
        assert code_of(f"{protected}..{base64url(forged)}") == "signature_invalid"


def test_no_other_character_anywhere_is_taken() -> None:
    value = sign_detached(KEY, BODY, REPORT_TYPE)
    for at, character in enumerate(value):
        for other in "A_=. é" if character != "A" else "B":
            if other != character:
                code_of(value[:at] + other + value[at + 1 :])


def test_another_key() -> None:
    value = sign_detached(KEY, BODY)
    assert code_of(value, key=OTHER.public) == "key_unknown"
    assert code_of(signed(GOOD, key=OTHER)) == "signature_invalid"


KID = KEY.public.kid
HEADERS: list[tuple[Any, str]] = [
    ({**GOOD, "alg": "none"}, "signature_algorithm"),
    ({**GOOD, "alg": "HS256"}, "signature_algorithm"),
    ({**GOOD, "alg": "eddsa"}, "signature_algorithm"),
    ({**GOOD, "alg": "Ed448"}, "signature_algorithm"),
    ({**GOOD, "alg": ["EdDSA"]}, "signature_algorithm"),
    ({**GOOD, "alg": None}, "signature_algorithm"),
    ({"b64": False, "crit": ["b64"], "kid": KID}, "signature_algorithm"),
    ({**GOOD, "jwk": KEY.public.jwk()}, "signature_malformed"),
    ({**GOOD, "jku": "https://example.org"}, "signature_malformed"),
    ({**GOOD, "x5u": "https://example.org"}, "signature_malformed"),
    ({**GOOD, "x5c": []}, "signature_malformed"),
    ({**GOOD, "exp": 1}, "signature_malformed"),
    ({**GOOD, "b64": True}, "signature_malformed"),
    ({**GOOD, "b64": 0}, "signature_malformed"),
    ({**GOOD, "b64": None}, "signature_malformed"),
    ({**GOOD, "crit": []}, "signature_malformed"),
    ({**GOOD, "crit": ["b64", "b64"]}, "signature_malformed"),
    ({**GOOD, "crit": ["b64", "exp"]}, "signature_malformed"),
    ({**GOOD, "crit": "b64"}, "signature_malformed"),
    ({"alg": "Ed25519", "kid": KID}, "signature_malformed"),
    ({"alg": "Ed25519", "b64": False, "kid": KID}, "signature_malformed"),
    ({"alg": "Ed25519", "b64": False, "crit": ["b64"]}, "signature_malformed"),
    ({**GOOD, "kid": ""}, "signature_malformed"),
    ({**GOOD, "kid": 7}, "signature_malformed"),
    ({**GOOD, "kid": KID + "="}, "signature_malformed"),
    ({**GOOD, "kid": KID[:-1] + "5"}, "signature_malformed"),
    ({**GOOD, "kid": OTHER.public.kid}, "key_unknown"),
    ({**GOOD, "typ": 1}, "signature_malformed"),
    ({**GOOD, "typ": ""}, "signature_malformed"),
    ({**GOOD, "typ": "a b"}, "signature_malformed"),
    ({**GOOD, "typ": "x" * 200}, "signature_malformed"),
    (json.dumps(GOOD)[:-1] + ',"alg":"Ed25519"}', "signature_malformed"),
    (json.dumps(GOOD)[:-1] + ',"\\u0061lg":"Ed25519"}', "signature_malformed"),
    (json.dumps(GOOD) + " {}", "signature_malformed"),
    ("\ufeff" + json.dumps(GOOD), "signature_malformed"),
    (json.dumps(GOOD)[:-1] + ',"b64":0.0}', "signature_malformed"),
    ("[" * 700, "signature_malformed"),
    (json.dumps([GOOD]), "signature_malformed"),
    ("null", "signature_malformed"),
    ("", "signature_malformed"),
    (b"\xff\xfe", "signature_malformed"),
]


@pytest.mark.parametrize(("header", "code"), HEADERS, ids=str)
def test_protected_headers_that_are_refused(header: Any, code: str) -> None:
    assert code_of(signed(header)) == code


def test_an_honest_header_in_another_spelling_is_taken() -> None:
    verify_detached(signed(json.dumps(GOOD, indent=1, sort_keys=True)), BODY, KEY.public)


VALUE = sign_detached(KEY, BODY)
PROTECTED, SIGNATURE = VALUE.split("..")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "signature_missing"),
        (" ", "signature_malformed"),
        ("..", "signature_malformed"),
        (PROTECTED, "signature_malformed"),
        (f"{PROTECTED}.{SIGNATURE}", "signature_malformed"),
        (f"{VALUE}.", "signature_malformed"),
        (f"{VALUE} ", "signature_malformed"),
        (f"{VALUE}\n", "signature_malformed"),
        (f"{VALUE}==", "signature_malformed"),
        (f"{VALUE}, {VALUE}", "signature_malformed"),
        (f"{PROTECTED}.{segment(BODY)}.{SIGNATURE}", "signature_malformed"),
        (f"{PROTECTED}=..{SIGNATURE}", "signature_malformed"),
        (f"{PROTECTED}..{SIGNATURE[:-1]}", "signature_malformed"),
        (f"{PROTECTED}..{SIGNATURE[:-2]}", "signature_malformed"),
        (f"{PROTECTED}..", "signature_malformed"),
        (f"{PROTECTED}..{SIGNATURE[:-1]}{chr(ord(SIGNATURE[-1]) + 1)}", "signature_malformed"),
        (f"{PROTECTED}..{'+' + SIGNATURE[1:]}", "signature_malformed"),
        ("A" * 1025, "signature_malformed"),
        ("." * 10**6, "signature_malformed"),
        ("é..é", "signature_malformed"),
    ],
    ids=lambda text: text[-12:],
)
def test_values_that_are_refused(value: str, code: str) -> None:
    assert code_of(value) == code
    with pytest.raises(Unauthenticated) as refused:
        detached_kid(value)
    assert refused.value.code == code


def test_a_type_is_binding_when_there_is_one() -> None:
    value = sign_detached(KEY, BODY, "offers+jws")
    assert code_of(value, typ=REPORT_TYPE) == "signature_malformed"
    verify_detached(value, BODY, KEY.public, "offers+jws")
    verify_detached(sign_detached(KEY, BODY), BODY, KEY.public, REPORT_TYPE)


def test_compact_refusals() -> None:
    token = sign_compact(KEY, BODY, RECEIPT_TYPE)
    protected, payload, signature = token.split(".")
    unencoded = segment(json.dumps({**GOOD, "typ": RECEIPT_TYPE}).encode())
    cases = [
        ("", "signature_missing"),
        (token + ".", "signature_malformed"),
        (f"{protected}..{signature}", "signature_invalid"),
        (f"{protected}.{segment(BODY + b' ')}.{signature}", "signature_invalid"),
        (f"{protected}.{payload}=.{signature}", "signature_malformed"),
        (f"{protected}.{payload}.{signature[:-2]}", "signature_malformed"),
        (f"{unencoded}.{payload}.{signature}", "signature_malformed"),
        (sign_compact(KEY, BODY, "other+jws"), "signature_malformed"),
        (sign_compact(SigningKey(bytes(32)), BODY, RECEIPT_TYPE), "key_unknown"),
        ("A" * 2000 + "." + payload + "." + signature, "signature_malformed"),
        (f"{protected}.{'A' * 70_000}.{signature}", "signature_malformed"),
    ]
    for value, code in cases:
        with pytest.raises(Unauthenticated) as refused:
            verify_compact(value, lookup, RECEIPT_TYPE)
        assert refused.value.code == code, value[:60]
    assert verify_compact(token, lookup, RECEIPT_TYPE) == BODY


def test_document_refusals() -> None:
    good = sign_document(KEY, BODY)
    assert verify_document(good, BODY, lookup) == KEY.public.kid
    cases: list[tuple[dict[str, object], bytes, str]] = [
        ({**good}, BODY + b" ", "signature_invalid"),
        ({**good, "header": {}}, BODY, "signature_malformed"),
        ({"protected": good["protected"]}, BODY, "signature_malformed"),
        ({**good, "signature": None}, BODY, "signature_malformed"),
        ({**good, "signature": good["signature"] + "="}, BODY, "signature_malformed"),
        ({**good, "protected": ""}, BODY, "signature_malformed"),
        ({**sign_document(SigningKey(bytes(32)), BODY)}, BODY, "key_unknown"),
    ]
    for signature, data, code in cases:
        with pytest.raises(Unauthenticated) as refused:
            verify_document(signature, data, lookup)
        assert refused.value.code == code


def test_a_protected_header_is_short_wherever_it_comes() -> None:
    for spaces, taken in [(100, True), (800, False)]:
        protected, signature = signed(json.dumps(GOOD) + " " * spaces).split("..")
        if taken:
            assert verify_document({"protected": protected, "signature": signature}, BODY, lookup) == KID
            continue
        with pytest.raises(Unauthenticated) as refused:
            verify_document({"protected": protected, "signature": signature}, BODY, lookup)
        assert refused.value.code == "signature_malformed"


def test_a_lookup_that_answers_with_another_key_is_not_trusted() -> None:
    with pytest.raises(Unauthenticated) as refused:
        verify_document(sign_document(KEY, BODY), BODY, lambda kid: OTHER.public)
    assert refused.value.code == "key_unknown"


# --- keys ----------------------------------------------------------------------------------------------------------


def test_the_seed_never_shows() -> None:
    seed = bytes(range(100, 132))
    key = SigningKey(seed)
    shown = repr(key) + str(key) + f"{key}"
    assert seed.hex() not in shown
    assert base64url(seed) not in shown
    assert key.public.kid in shown
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_private_jwk_round_trip() -> None:
    again = SigningKey.from_jwk(KEY.jwk())
    assert again.public == KEY.public
    assert again.sign(b"x") == KEY.sign(b"x")


@pytest.mark.parametrize(
    "change",
    [{"d": None}, {"d": ""}, {"d": "A" * 42}, {"x": OTHER.public.jwk()["x"]}, {"x": None}, {"kty": "oct"},
     {"crv": "X25519"}, {"kid": OTHER.public.kid}],
    ids=str,
)  # fmt: skip
def test_private_jwks_that_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed) as refused:
        SigningKey.from_jwk({**KEY.jwk(), **change})
    assert refused.value.code == "key_malformed"
    assert KEY.jwk()["d"] not in str(refused.value)


def test_public_keys_are_values() -> None:
    assert PublicKey(KEY.public.raw) == KEY.public
    assert len({KEY.public, PublicKey(KEY.public.raw), OTHER.public}) == 2
    assert not KEY.public.verify(b"", b"")


@given(st.binary(max_size=40))
def test_base64url(data: bytes) -> None:
    assert parse_base64url(base64url(data)) == data
    assert base64url(data) == segment(data)


@pytest.mark.parametrize("text", ["A", "AB", "AAB", "AA==", "AA\n", "A A", "A+", "A/", "é", "AAAAA"])
def test_other_spellings_of_base64url(text: str) -> None:
    assert parse_base64url(text) is None
