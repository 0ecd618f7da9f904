"""Ed25519 keys and signatures: detached and compact JWS (RFC 7515, RFC 7797, RFC 8037, RFC 9864).

A report, an offer or an approval is signed *beside* its body: header ``x-jws-signature: protected..signature`` over
the exact bytes (``b64: false``). Receipts are compact JWS that carry their payload. Checkpoints and rate tables carry
a list of ``{"protected", "signature"}`` over their canonical bytes. Nothing is ever identified by a signature, and the
key is always chosen by the verifier: a protected header may name one (``kid``) and may never bring one (``jwk``).

Refusals are Unauthenticated with one of the codes ``signature_missing``, ``signature_malformed``,
``signature_algorithm``, ``key_unknown``, ``signature_invalid``; they are checked in that order.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from settlement.core import strictjson
from settlement.core.canonical import encode
from settlement.core.errors import Malformed, Unauthenticated

ALGORITHMS = frozenset({"Ed25519", "EdDSA"})
"""RFC 9864's name and RFC 8037's older one; with our keys both mean Ed25519."""

MAX_HEADER = 1024
"""Characters of a detached value or of a protected segment; ours have about 260."""

MAX_TOKEN = 64 * 1024
"""Characters of a compact JWS; a receipt has under 1,000."""

REPORT_TYPE = "usage-report+jws"
RECEIPT_TYPE = "receipt+jws"

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_KID = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+/-]{0,127}", re.ASCII)
_MEMBERS = frozenset({"alg", "b64", "crit", "kid", "typ"})
_PRIME = 2**255 - 19
# The y coordinates of the eight points whose order divides the cofactor. With such a key one constant signature
# verifies under any message, and cryptography takes them; the two long ones belong to the four points of order 8.
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)

KeyLookup = Callable[[str], "PublicKey | None"]
"""Returns the trusted key of a kid, or None. Decides trust: what it returns may sign."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key: 32 bytes (RFC 8032 5.1.5). Equal when the bytes are equal.

    Raises Malformed ``key_malformed`` when it isn't 32 bytes, ``key_not_canonical`` when its y is not below the prime
    or its sign is that of no point, ``key_low_order`` for the eight points of small order. What needs curve arithmetic
    (off the curve, mixed order) is refused at registration by `settlement.core.keys`.
    """

    raw: bytes
    kid: str = field(init=False, compare=False)
    _key: Ed25519PublicKey = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise Malformed("key_malformed", "an Ed25519 public key has 32 bytes")
        y = int.from_bytes(self.raw, "little") & (1 << 255) - 1
        if y >= _PRIME or (self.raw[31] & 0x80 and y in (1, _PRIME - 1)):
            raise Malformed("key_not_canonical", "this is another spelling of a public key")
        if y in _LOW_ORDER:
            raise Malformed("key_low_order", "this public key is a point of small order; anything would verify")
        object.__setattr__(self, "_key", Ed25519PublicKey.from_public_bytes(self.raw))
        object.__setattr__(self, "kid", base64url(sha256(encode(self.jwk())).digest()))

    def jwk(self) -> dict[str, str]:
        """The members that the thumbprint (``kid``, RFC 7638) is made of: crv, kty and x."""
        return {"crv": "Ed25519", "kty": "OKP", "x": base64url(self.raw)}

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the 64 bytes are this key's signature of the message."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """An Ed25519 private key, made from its 32-byte seed. Neither its repr nor its errors show the seed."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise Malformed("key_malformed", "an Ed25519 seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.public.kid!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is not pickled")

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of a message."""
        return self._key.sign(message)

    def jwk(self) -> dict[str, str]:
        """The private JWK (RFC 8037 2): the public members, kid, and the seed in ``d``. A secret."""
        return {**self.public.jwk(), "d": base64url(self._key.private_bytes_raw()), "kid": self.public.kid}

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> SigningKey:
        """The key of a private JWK; raises Malformed ``key_malformed`` when a member is wrong or x is not d's."""
        seed = jwk.get("d")
        if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519" or not isinstance(seed, str):
            raise Malformed("key_malformed", "a private key is a JWK of kty OKP, crv Ed25519 with d")
        key = cls(parse_base64url(seed) or b"")
        if jwk.get("x") != key.public.jwk()["x"] or jwk.get("kid", key.public.kid) != key.public.kid:
            raise Malformed("key_malformed", "x or kid does not belong to d")
        return key


def base64url(data: bytes) -> str:
    """RFC 7515 base64url, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse_base64url(text: str) -> bytes | None:
    """The bytes of unpadded base64url text, or None when it isn't their only spelling (a stray bit, padding, space)."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        return None
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return data if base64url(data) == text else None


def detached_kid(value: str) -> str:
    """The kid that a detached value names, after every check of it that needs no key. Nothing is verified yet."""
    kid: str = _split_detached(value)[1]["kid"]
    return kid


def sign_detached(key: SigningKey, body: bytes, typ: str | None = None) -> str:
    """The value of the header ``x-jws-signature`` for a body."""
    protected = _protected(key, typ)
    return f"{protected}..{base64url(key.sign(protected.encode() + b'.' + body))}"


def verify_detached(value: str, body: bytes, key: PublicKey, typ: str | None = None) -> None:
    """Returns when the value is ``key``'s signature over exactly these bytes; raises Unauthenticated otherwise.

    With ``typ``, a protected header that has a type must have this one, so that a signature made for one purpose isn't
    taken for another.
    """
    protected, header, signature = _split_detached(value)
    if header["kid"] != key.kid:
        _refuse("key_unknown", "the signature names another key")
    if typ is not None and header.get("typ", typ) != typ:
        _refuse("signature_malformed", f"the signature's typ is not {typ}")
    _verify(key, signature, protected.encode() + b"." + body)


def sign_compact(key: SigningKey, payload: bytes, typ: str) -> str:
    """A compact JWS that carries its payload; its protected header has alg, kid and typ."""
    protected = base64url(encode({"alg": "Ed25519", "kid": key.public.kid, "typ": typ}))
    signed = f"{protected}.{base64url(payload)}"
    return f"{signed}.{base64url(key.sign(signed.encode()))}"


def verify_compact(token: str, lookup: KeyLookup, typ: str) -> bytes:
    """The payload of a compact JWS of that type, verified with the key that ``lookup`` has for its kid."""
    if not token:
        _refuse("signature_missing", "there is no token")
    protected, payload, signature = _segments(token, MAX_TOKEN)
    header = _header(protected, detached=False)
    if header.get("typ") != typ:
        _refuse("signature_malformed", f"the token's typ is not {typ}")
    raw, content = _signature(signature), _bytes(payload)
    _verify(_trusted(lookup, header["kid"]), raw, f"{protected}.{payload}".encode())
    return content


def sign_document(key: SigningKey, data: bytes) -> dict[str, str]:
    """One entry of a document's ``signatures``: protected header and signature over detached canonical bytes."""
    protected = _protected(key, None)
    return {"protected": protected, "signature": base64url(key.sign(protected.encode() + b"." + data))}


def verify_document(signature: Mapping[str, object], data: bytes, lookup: KeyLookup) -> str:
    """The kid of the trusted key that signed exactly these bytes; raises Unauthenticated when there is none."""
    protected, value = signature.get("protected"), signature.get("signature")
    if not isinstance(protected, str) or not isinstance(value, str) or len(signature) != 2:
        _refuse("signature_malformed", "a signature has the members protected and signature, both text")
    header = _header(protected, detached=True)
    raw = _signature(value)
    _verify(_trusted(lookup, header["kid"]), raw, protected.encode() + b"." + data)
    kid: str = header["kid"]
    return kid


def signed_kid(signature: Mapping[str, object]) -> str:
    """The kid that an entry of a document's ``signatures`` names. Nothing is verified."""
    kid: str = _header(str(signature.get("protected")), detached=True)["kid"]
    return kid


def _protected(key: SigningKey, typ: str | None) -> str:
    header: dict[str, object] = {"alg": "Ed25519", "b64": False, "crit": ["b64"], "kid": key.public.kid}
    if typ is not None:
        header["typ"] = typ
    return base64url(encode(header))


def _split_detached(value: str) -> tuple[str, dict[str, Any], bytes]:
    if not value:
        _refuse("signature_missing", "the header x-jws-signature is missing")
    protected, payload, signature = _segments(value, MAX_HEADER)
    if payload:
        _refuse("signature_malformed", "a detached signature has nothing between its two dots")
    header = _header(protected, detached=True)
    return protected, header, _signature(signature)


def _segments(value: str, limit: int) -> list[str]:
    parts = value.split(".", 3) if len(value) <= limit else []
    if len(parts) != 3:
        _refuse("signature_malformed", f"a JWS is three segments with dots between them, at most {limit} characters")
    return parts


def _header(protected: str, *, detached: bool) -> dict[str, Any]:
    """The protected header, strictly: our members only, one algorithm, b64 false exactly when it's detached."""
    if len(protected) > MAX_HEADER:
        _refuse("signature_malformed", "the protected header is too long")
    try:
        header = strictjson.loads(_bytes(protected))
    except Malformed as error:
        raise Unauthenticated("signature_malformed", f"the protected header: {error.detail}") from None
    if not isinstance(header, dict) or not header.keys() <= _MEMBERS:
        _refuse("signature_malformed", "the protected header has members other than alg, b64, crit, kid and typ")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        _refuse("signature_algorithm", "alg is Ed25519 or EdDSA")
    if detached and (header.get("b64") is not False or header.get("crit") != ["b64"]):
        _refuse("signature_malformed", 'a detached signature has "b64":false and "crit":["b64"]')
    if not detached and ("b64" in header or "crit" in header):
        _refuse("signature_malformed", "a compact token has neither b64 nor crit")
    kid, typ = header.get("kid"), header.get("typ", "jose")
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        _refuse("signature_malformed", "kid is the RFC 7638 thumbprint of the key")
    if not isinstance(typ, str) or not _TYPE.fullmatch(typ):
        _refuse("signature_malformed", "typ is a media type")
    return header


def _bytes(text: str) -> bytes:
    data = parse_base64url(text)
    if data is None:
        _refuse("signature_malformed", "a segment is not unpadded canonical base64url")
    return data


def _signature(text: str) -> bytes:
    if len(text) != 86:
        _refuse("signature_malformed", "an Ed25519 signature is 64 bytes, 86 characters of base64url")
    return _bytes(text)


def _trusted(lookup: KeyLookup, kid: str) -> PublicKey:
    key = lookup(kid)
    if key is None or key.kid != kid:
        _refuse("key_unknown", "no key by that kid may sign this")
    return key


def _verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    if not key.verify(signature, message):
        _refuse("signature_invalid", "the signature is not of these bytes by this key")


def _refuse(code: str, detail: str) -> NoReturn:
    raise Unauthenticated(code, detail)
