"""Public keys as they are registered: a JWK (RFC 8037), refused unless it is one honest point of the curve.

`cryptography` takes any 32 bytes as a public key, points of small order included, under which one constant signature
verifies any message. Registration therefore asks libsodium whether the point is canonical, on the curve and in the
prime-order group. This is the only module of core that needs PyNaCl; the offline verifier doesn't import it.
"""

from __future__ import annotations

from collections.abc import Mapping

from nacl.bindings import crypto_core_ed25519_is_valid_point

from settlement.core.errors import Malformed
from settlement.core.signatures import ALGORITHMS, PublicKey, parse_base64url

_MEMBERS = frozenset({"kty", "crv", "x", "kid", "use", "alg"})


def parse_public_jwk(jwk: Mapping[str, object]) -> PublicKey:
    """The key of a public JWK: kty OKP, crv Ed25519, x; kid, use and alg are checked when present.

    Raises Malformed: ``key_private`` (d is present: the sender must replace that key), ``key_malformed`` (a member is
    missing, unknown or wrong), ``key_not_canonical``, ``key_low_order``, ``key_off_group`` (not on the curve, or
    mixed order).
    """
    if "d" in jwk:
        raise Malformed("key_private", "this is a private key; it is no longer secret, so replace it")
    if not jwk.keys() <= _MEMBERS:
        raise Malformed("key_malformed", "a public key has the members kty, crv, x and perhaps kid, use and alg")
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise Malformed("key_malformed", "a public key has kty OKP and crv Ed25519")
    alg = jwk.get("alg", "Ed25519")
    if jwk.get("use", "sig") != "sig" or not isinstance(alg, str) or alg not in ALGORITHMS:
        raise Malformed("key_malformed", "use is sig and alg is Ed25519 or EdDSA, when they are given")
    x = jwk.get("x")
    raw = parse_base64url(x) if isinstance(x, str) and len(x) == 43 else None
    if raw is None:
        raise Malformed("key_malformed", "x is 32 bytes in unpadded canonical base64url")
    key = public_key(raw)
    if jwk.get("kid", key.kid) != key.kid:
        raise Malformed("key_malformed", "kid is not the RFC 7638 thumbprint of the key")
    return key


def public_key(raw: bytes) -> PublicKey:
    """A key from its 32 bytes, after every check of the point. Raises as `parse_public_jwk` does."""
    key = PublicKey(raw)
    if not crypto_core_ed25519_is_valid_point(raw):
        raise Malformed("key_off_group", "this public key is not a point of the prime-order group")
    return key
