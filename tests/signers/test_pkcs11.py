"""Keys in an HSM, with SoftHSM as the HSM: a real PKCS#11 library, real sessions, keys made inside the token."""

from __future__ import annotations

import asyncio
import os
import subprocess
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from shutil import which

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from settlement.core.errors import Malformed, NotFound, Unavailable
from settlement.signers import curves, open_signer

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: no test of keys in an HSM runs")

MODULES = [str(path) for path in sorted(Path("/usr/lib").glob("**/softhsm/libsofthsm2.so"))]
PIN = "canary-5150"

needs_softhsm = pytest.mark.skipif(
    not MODULES or which("softhsm2-util") is None,
    reason="SoftHSM is not installed (Debian: apt-get install softhsm2): no test of keys in an HSM runs",
)
ED25519 = b"\x13\x0cedwards25519"
"""CKA_EC_PARAMS of Ed25519: a printable string (PKCS#11 3.0, 2.3.10)."""


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The module's path, with an initialised token ``cu`` that has one key of each curve, and one that can't sign."""
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    for label in ("cu", "locked"):
        init = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN]
        subprocess.run(init, check=True, capture_output=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _make_keys(MODULES[0])
    yield MODULES[0]
    pkcs11.unload(MODULES[0])
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def _make_keys(module: str) -> None:
    with pkcs11.lib(module).get_token(token_label="cu").open(rw=True, user_pin=PIN) as session:
        parameters = (
            ("ed", ED25519, pkcs11.KeyType.EC_EDWARDS, pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN),
            ("koblitz", pkcs11.util.ec.encode_named_curve_parameters("secp256k1"), pkcs11.KeyType.EC, None),
            ("nist", pkcs11.util.ec.encode_named_curve_parameters("secp256r1"), pkcs11.KeyType.EC, None),
        )
        for number, (label, encoded, kind, mechanism) in enumerate(parameters):
            domain = session.create_domain_parameters(kind, {pkcs11.Attribute.EC_PARAMS: encoded}, local=True)
            domain.generate_keypair(label=label, id=bytes([number]), store=True, mechanism=mechanism)


def uri(module: str, path: str) -> str:
    return f"pkcs11:token=cu;{path}?module-path={module}&pin-env=PIN"


@needs_softhsm
@pytest.mark.parametrize(
    ("path", "algorithm"),
    [("object=ed", "ed25519"), ("object=koblitz;type=private", "secp256k1"), ("id=%01", "secp256k1")],
)
async def test_a_key_made_in_the_token_signs(token: str, path: str, algorithm: str) -> None:
    signer = open_signer(uri(token, path), {"PIN": PIN})
    assert signer.algorithm == algorithm
    messages = [sha256(bytes([number])).digest() for number in range(20)]
    for message, signature in zip(messages, await asyncio.gather(*map(signer.sign, messages)), strict=True):
        assert curves.verifies(signer.algorithm, signer.public_key, message, signature)
        if algorithm == "secp256k1":
            assert decode_dss_signature(signature)[1] <= curves.ORDER // 2
    assert signer.public_key.hex() in repr(signer)
    assert PIN not in repr(signer)


@needs_softhsm
async def test_an_ed25519_key_signs_messages_of_any_length(token: str) -> None:
    signer = open_signer(uri(token, "object=ed"), {"PIN": PIN})
    for length in (0, 1, 115, 5000):
        message = bytes(length)
        assert curves.verifies("ed25519", signer.public_key, message, await signer.sign(message))


@needs_softhsm
def test_another_curve_is_no_signer(token: str) -> None:
    with pytest.raises(Malformed, match="key_unsuited"):
        open_signer(uri(token, "object=nist"), {"PIN": PIN})


@needs_softhsm
@pytest.mark.parametrize("path", ["object=none", "object=ed;id=%07"])
def test_a_key_that_is_not_there_is_said_to_be_missing(token: str, path: str) -> None:
    with pytest.raises(NotFound, match="signer_missing"):
        open_signer(uri(token, path), {"PIN": PIN})


@needs_softhsm
def test_a_token_that_is_not_there_is_said_to_be_missing(token: str) -> None:
    with pytest.raises(NotFound, match="signer_missing"):
        open_signer(uri(token, "object=ed").replace("token=cu", "token=other"), {"PIN": PIN})


@needs_softhsm
def test_a_wrong_pin_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(Unavailable, match="PinIncorrect") as refused:
        open_signer(uri(token, "object=ed").replace("token=cu", "token=locked"), {"PIN": "canary-0000"})
    assert "canary" not in str(refused.value)


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="signer_unavailable"):
        open_signer(f"pkcs11:object=a?module-path={tmp_path}/none.so", {})
