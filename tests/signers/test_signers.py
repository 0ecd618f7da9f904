"""Opening a signer by URI: whatever keeps the key, one form of signature comes out and no secret does."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from settlement.chain import Algorithm
from settlement.core.errors import Malformed, NotFound, SettlementError
from settlement.signers import curves, local, open_signer
from settlement.signers.local import LocalSigner

WORDS = b"correct horse battery staple"
CURVES: list[Algorithm] = ["ed25519", "secp256k1"]


def key(algorithm: Algorithm, number: int = 7) -> LocalSigner:
    return LocalSigner(algorithm, sha256(number.to_bytes(4, "big")).digest())


@pytest.mark.parametrize("algorithm", CURVES)
async def test_a_key_in_an_encrypted_file_signs_as_before(tmp_path: Path, algorithm: Algorithm) -> None:
    file, made = tmp_path / "key.jwe", key(algorithm)
    local.write(file, made, WORDS, os.urandom)
    words = tmp_path / "words"
    words.write_bytes(WORDS + b"\n")
    words.chmod(0o600)
    assert file.stat().st_mode & 0o777 == 0o600
    for uri, environ in (
        (f"keystore:{file}?passphrase-file={words}", {}),
        (f"keystore:{file}?passphrase-env=MINE", {"MINE": WORDS.decode()}),
        (f"keystore:{file}", {"SETTLEMENT_KEYSTORE_PASSPHRASE": WORDS.decode()}),
    ):
        found = open_signer(uri, environ)
        assert (found.algorithm, found.public_key) == (algorithm, made.public_key)
        message = sha256(b"message").digest()
        assert curves.verifies(algorithm, made.public_key, message, await found.sign(message))


@pytest.mark.parametrize("algorithm", CURVES)
async def test_a_key_in_the_environment(algorithm: Algorithm) -> None:
    found = open_signer("env:TREASURY", {"TREASURY": json.dumps(key(algorithm).jwk())})
    assert found.public_key == key(algorithm).public_key
    assert len(found.public_key) == {"ed25519": 32, "secp256k1": 33}[algorithm]
    with pytest.raises(NotFound, match="TREASURY"):
        open_signer("env:TREASURY", {})


async def test_every_secp256k1_signature_has_the_low_s() -> None:
    """Half of what the curve yields has the high one; networks take no such signature."""
    signer = key("secp256k1")
    for number in range(64):
        digest = sha256(number.to_bytes(4, "big")).digest()
        signature = await signer.sign(digest)
        r, s = decode_dss_signature(signature)
        assert 0 < s <= curves.ORDER // 2
        twin = encode_dss_signature(r, curves.ORDER - s)
        assert not curves.verifies("secp256k1", signer.public_key, digest, twin)
        assert curves.low_s(twin) == signature


async def test_secp256k1_signs_digests_alone() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        await key("secp256k1").sign(b"a whole message")


@pytest.mark.parametrize("algorithm", CURVES)
async def test_no_repr_no_error_and_no_pickle_shows_a_secret(tmp_path: Path, algorithm: Algorithm) -> None:
    """A canary in every place where a secret may stand: private parts, passphrases, whole URIs."""
    import pickle

    canary = "canary-pass-phrase-5150"
    made = key(algorithm)
    private = made.jwk()["d"]
    assert private not in repr(made)
    assert private not in str(made)
    with pytest.raises(TypeError):
        pickle.dumps(made)
    file = tmp_path / "key.jwe"
    local.write(file, made, canary.encode(), os.urandom)
    stored = file.read_text()
    assert canary not in stored
    assert private not in stored
    attempts: list[tuple[str, dict[str, str]]] = [
        (f"keystore:{file}?passphrase={canary}", {}),
        (f"keystore:{file}?{canary}", {}),
        (f"keystore:{file}", {"SETTLEMENT_KEYSTORE_PASSPHRASE": canary + "!"}),
        (f"keystore:{file}", {"SETTLEMENT_KEYSTORE_PASSPHRASE": canary[:6]}),
        ("env:X", {"X": canary}),
        ("env:X", {"X": json.dumps(made.jwk() | {"x": canary})}),
        ("env:X", {"X": json.dumps(made.jwk() | {"d": canary})}),
        ("env:X", {"X": json.dumps(made.jwk())[:-2]}),
        (f"{canary}:{private}", {}),
        (f"pkcs11:object=a?pin-value={canary}&module-path=/none.so", {}),
        (f"pkcs11:pin={canary}", {}),
        (f"awskms:key?secret={canary}", {}),
    ]
    for uri, environ in attempts:
        with pytest.raises(SettlementError) as refused:
            open_signer(uri, environ)
        shown = [str(refused.value), repr(refused.value)]
        cause: BaseException | None = refused.value.__cause__
        while cause is not None:
            shown.append(repr(cause))
            cause = cause.__cause__
        for text in shown:
            assert canary[:6] not in text, text
            assert private not in text, text


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("", "signer_malformed"),
        ("keystore", "signer_malformed"),
        ("keystore:", "signer_malformed"),
        ("vault:key", "signer_malformed"),
        ("keystore:/none.jwe?passphrase-env=A", "key_file_missing"),
        ("env:A?b=c", "signer_malformed"),
        ("keystore:/k?passphrase-env=A&passphrase-env=B", "signer_malformed"),
        ("pkcs11:token=a?module-path=/none.so", "signer_malformed"),
        ("pkcs11:object=a;object=b?module-path=/none.so", "signer_malformed"),
        ("pkcs11:object=a;type=cert?module-path=/none.so", "signer_malformed"),
        ("pkcs11:object=a", "signer_malformed"),
    ],
)
def test_what_is_no_signer_is_refused(uri: str, code: str) -> None:
    with pytest.raises(SettlementError) as refused:
        open_signer(uri, {"A": "a" * 20})
    assert refused.value.code == code


@pytest.mark.parametrize("scalar", [bytes(32), curves.ORDER.to_bytes(32, "big"), b"\xff" * 32, bytes(31)])
def test_a_scalar_outside_the_group_is_no_key(scalar: bytes) -> None:
    with pytest.raises(Malformed, match="key_malformed"):
        LocalSigner("secp256k1", scalar)


def test_a_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.jwe"
    local.write(file, key("ed25519"), WORDS, os.urandom)
    file.chmod(0o644)
    with pytest.raises(Malformed, match="key_file_open"):
        open_signer(f"keystore:{file}?passphrase-env=A", {"A": WORDS.decode()})
