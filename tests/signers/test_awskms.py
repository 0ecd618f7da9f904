"""Keys in AWS KMS, through boto3 and a real socket to a small server with KMS's recorded semantics.

The server signs with keys of its own and knows what KMS refuses: an Ed25519 key takes RAW messages of at most 4,096
bytes with ``ED25519_SHA_512``, a secp256k1 key digests of 32 bytes with ``ECDSA_SHA_256``. As KMS does, it
returns the high s as often as the low one.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from settlement.chain import Unreachable
from settlement.core.errors import Malformed, NotFound, Unavailable
from settlement.signers import curves, open_signer

pytest.importorskip("boto3", reason="boto3 is not installed: no test of keys in AWS KMS runs")
pytestmark = pytest.mark.network

_SPECS = {"ed25519": "ECC_NIST_EDWARDS25519", "secp256k1": "ECC_SECG_P256K1", "nist": "ECC_NIST_P256"}
_SECRET = "canary-aws-secret-5150"


@dataclass
class Kms:
    """What the server has and was asked; `broken` makes it lie."""

    keys: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    broken: str = ""
    url: str = ""

    def answer(self, action: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append({"action": action, **request})
        if self.broken == "throttled":
            return 400, {"__type": "ThrottlingException", "message": _SECRET}
        key = self.keys.get(request["KeyId"])
        if key is None:
            return 400, {"__type": "NotFoundException", "message": "Key 'x' does not exist"}
        if action == "GetPublicKey":
            der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            usage = "ENCRYPT_DECRYPT" if self.broken == "usage" else "SIGN_VERIFY"
            spec = _SPECS[request["KeyId"]]
            return 200, {
                "KeyId": request["KeyId"],
                "PublicKey": b64encode(der).decode(),
                "KeyUsage": usage,
                "KeySpec": spec,
            }
        return self._sign(key, request)

    def _sign(self, key: Any, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        message, kind, how = b64decode(request["Message"]), request["MessageType"], request["SigningAlgorithm"]
        if isinstance(key, Ed25519PrivateKey):
            if kind != "RAW" or how != "ED25519_SHA_512" or len(message) > 4096:
                return 400, {"__type": "ValidationException", "message": "not for this key"}
            signature = key.sign(message)
        else:
            if kind != "DIGEST" or how != "ECDSA_SHA_256" or len(message) != 32:
                return 400, {"__type": "ValidationException", "message": "not for this key"}
            r, s = decode_dss_signature(key.sign(message, curves.DIGEST))
            signature = encode_dss_signature(
                r, max(s, curves.ORDER - s) if len(self.asked) % 2 else min(s, curves.ORDER - s)
            )
        if self.broken == "signature":
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        return 200, {"KeyId": request["KeyId"], "Signature": b64encode(signature).decode(), "SigningAlgorithm": how}


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    found = Kms(
        {
            "ed25519": Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
            "secp256k1": ec.derive_private_key(5150, ec.SECP256K1()),
            "nist": ec.derive_private_key(5150, ec.SECP256R1()),
        }
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            action = self.headers["X-Amz-Target"].removeprefix("TrentService.")
            assert self.headers["Authorization"].startswith("AWS4-HMAC-SHA256")
            status, document = found.answer(action, request)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    for name, value in (("AWS_ACCESS_KEY_ID", "canary-id"), ("AWS_SECRET_ACCESS_KEY", _SECRET)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def uri(kms: Kms, key: str) -> str:
    return f"awskms:{key}?region=eu-central-1&endpoint={kms.url}"


async def test_an_ed25519_key_signs_whole_messages(kms: Kms) -> None:
    signer = open_signer(uri(kms, "ed25519"), {})
    assert signer.algorithm == "ed25519"
    for length in (0 + 1, 115, 4096):
        message = bytes(length)
        assert curves.verifies("ed25519", signer.public_key, message, await signer.sign(message))
    asked = len(kms.asked)
    with pytest.raises(ValueError, match="4096"):
        await signer.sign(bytes(4097))
    assert len(kms.asked) == asked
    assert kms.asked[-1]["MessageType"] == "RAW"


async def test_a_secp256k1_key_signs_digests_and_the_high_s_is_lowered(kms: Kms) -> None:
    signer = open_signer(uri(kms, "secp256k1"), {})
    assert len(signer.public_key) == 33
    for number in range(6):
        digest = sha256(bytes([number])).digest()
        signature = await signer.sign(digest)
        assert curves.verifies("secp256k1", signer.public_key, digest, signature)
    assert kms.asked[-1]["MessageType"] == "DIGEST"
    with pytest.raises(ValueError, match="32 bytes"):
        await signer.sign(b"not a digest")


@pytest.mark.parametrize("key", ["ed25519", "secp256k1"])
async def test_a_signature_that_does_not_verify_never_leaves(kms: Kms, key: str) -> None:
    signer = open_signer(uri(kms, key), {})
    kms.broken = "signature"
    with pytest.raises(Unreachable, match="not its key's"):
        await signer.sign(bytes(32))


async def test_a_silent_kms_is_unreachable_and_nothing_it_says_is_repeated(kms: Kms) -> None:
    signer = open_signer(uri(kms, "ed25519"), {})
    kms.broken = "throttled"
    with pytest.raises(Unreachable, match="ThrottlingException") as refused:
        await signer.sign(bytes(32))
    assert "canary" not in f"{refused.value} {signer!r}"


def test_a_key_that_is_not_there(kms: Kms) -> None:
    with pytest.raises(NotFound, match="signer_missing"):
        open_signer(uri(kms, "none"), {})


def test_a_kms_that_does_not_answer(kms: Kms) -> None:
    kms.broken = "throttled"
    with pytest.raises(Unavailable, match="ThrottlingException") as refused:
        open_signer(uri(kms, "ed25519"), {})
    assert "canary" not in str(refused.value)


def test_another_curve_is_no_signer(kms: Kms) -> None:
    with pytest.raises(Malformed, match="key_unsuited"):
        open_signer(uri(kms, "nist"), {})


def test_a_key_that_is_not_for_signing(kms: Kms) -> None:
    kms.broken = "usage"
    with pytest.raises(Malformed, match="key_unsuited"):
        open_signer(uri(kms, "ed25519"), {})
