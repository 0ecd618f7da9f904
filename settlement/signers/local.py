"""Keys in this process: private JWKs from the environment or from an encrypted key file.

Ed25519 is ``{"kty":"OKP","crv":"Ed25519","x":..,"d":..}`` (RFC 8037), secp256k1 ``{"kty":"EC","crv":"secp256k1","x":..,
"y":..,"d":..}`` (RFC 8812).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from settlement.chain import Algorithm
from settlement.core import strictjson
from settlement.core.errors import Malformed, NotFound
from settlement.core.ids import Entropy
from settlement.core.signatures import base64url, parse_base64url
from settlement.signers import curves, sealed
from settlement.signers.files import read_secret, write_secret
from settlement.signers.uris import SignerUri, secret

MAX_KEY = 16 * 1024
PASSPHRASE = "SETTLEMENT_KEYSTORE_PASSPHRASE"  # noqa: S105 (the name of a variable)
"""The environment variable that holds the passphrase when a ``keystore:`` URI names no other place."""


class LocalSigner:
    """A private key of either curve. Neither its repr nor its errors show it, and it is not pickled."""

    __slots__ = ("_algorithm", "_key", "_public")

    def __init__(self, algorithm: Algorithm, secret_scalar: bytes) -> None:
        """`secret_scalar` is the 32-byte seed (ed25519) or scalar (secp256k1). Raises Malformed ``key_malformed``."""
        if len(secret_scalar) != 32:
            raise Malformed("key_malformed", f"the private part of an {algorithm} key has 32 bytes")
        self._algorithm = algorithm
        self._key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey
        if algorithm == "ed25519":
            self._key = Ed25519PrivateKey.from_private_bytes(secret_scalar)
            self._public = self._key.public_key().public_bytes_raw()
            return
        try:
            self._key = ec.derive_private_key(int.from_bytes(secret_scalar, "big"), ec.SECP256K1())
        except ValueError:
            raise Malformed("key_malformed", "a secp256k1 scalar is above zero and below the group's order") from None
        self._public = curves.compressed(self._key.public_key())

    @property
    def algorithm(self) -> Algorithm:
        return self._algorithm

    @property
    def public_key(self) -> bytes:
        return self._public

    def __repr__(self) -> str:
        return f"LocalSigner({self._algorithm}, {self._public.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signer is not pickled")

    async def sign(self, message: bytes) -> bytes:
        """See settlement.chain.Signer."""
        return self.sign_now(message)

    def sign_now(self, message: bytes) -> bytes:
        """As `sign`, for who has no event loop: a key in memory is never waited for."""
        curves.check_message(self._algorithm, message)
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(message)
        return curves.low_s(self._key.sign(message, curves.DIGEST))

    def jwk(self) -> dict[str, str]:
        """The private JWK. A secret."""
        if isinstance(self._key, Ed25519PrivateKey):
            return {**public_jwk(self._algorithm, self._public), "d": base64url(self._key.private_bytes_raw())}
        scalar = self._key.private_numbers().private_value.to_bytes(32, "big")
        return {**public_jwk(self._algorithm, self._public), "d": base64url(scalar)}


def public_jwk(algorithm: Algorithm, public: bytes) -> dict[str, str]:
    """The public JWK of a signer's key."""
    if algorithm == "ed25519":
        return {"kty": "OKP", "crv": "Ed25519", "x": base64url(public)}
    numbers = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public).public_numbers()
    x, y = (base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "secp256k1", "x": x, "y": y}


def from_jwk(jwk: Mapping[str, object]) -> LocalSigner:
    """The signer of a private JWK. Raises Malformed ``key_malformed`` when its public part is not that of ``d``."""
    curve: dict[object, Algorithm] = {"Ed25519": "ed25519", "secp256k1": "secp256k1"}
    algorithm, scalar = curve.get(jwk.get("crv")), jwk.get("d")
    if algorithm is None or not isinstance(scalar, str):
        raise Malformed("key_malformed", "a private key is a JWK of crv Ed25519 or secp256k1 with d")
    signer = LocalSigner(algorithm, parse_base64url(scalar) or b"")
    public = public_jwk(algorithm, signer.public_key)
    if any(jwk.get(name) != value for name, value in public.items()):
        raise Malformed("key_malformed", "kty or the public members do not belong to d")
    return signer


def open_local(uri: SignerUri, environ: Mapping[str, str]) -> LocalSigner:
    """The signer of an ``env:`` or ``keystore:`` URI."""
    text, where = private_text(uri, environ)
    return parse(text, where)


def private_text(uri: SignerUri, environ: Mapping[str, str]) -> tuple[bytes, str]:
    """The private JWK that an ``env:`` or ``keystore:`` URI leads to, and in words where it is."""
    if uri.scheme == "env":
        uri.only()
        if not environ.get(uri.path):
            raise NotFound("signer_missing", f"the environment variable {uri.path} should hold a private JWK")
        return os.fsencode(environ[uri.path]), f"the environment variable {uri.path}"
    settings = uri.only("passphrase-file", "passphrase-env")
    path = Path(uri.path).expanduser()
    where = f"the key file {path}"
    return sealed.unseal(read_secret(path, MAX_KEY), secret(settings, "passphrase", environ, PASSPHRASE), where), where


def parse(text: bytes, where: str) -> LocalSigner:
    """The signer of a private JWK's text. Raises Malformed ``key_malformed``, which says where and never what."""
    try:
        if len(text) > MAX_KEY:
            raise Malformed("key_malformed", "it is too long")
        jwk = strictjson.loads(text)
        if not isinstance(jwk, dict):
            raise Malformed("key_malformed", "a private key is a JWK, a JSON object")
        return from_jwk(jwk)
    except Malformed as error:
        detail = error.detail if error.code == "key_malformed" else "it is not JSON"
        raise Malformed("key_malformed", f"{where} holds no private JWK: {detail}") from None


def write(path: Path, signer: LocalSigner, passphrase: bytes, entropy: Entropy) -> None:
    """Write an encrypted key file. Raises as `write_secret`."""
    plain = json.dumps(signer.jwk(), separators=(",", ":")).encode()
    write_secret(path, sealed.seal(plain, passphrase), entropy)
