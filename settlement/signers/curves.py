"""What both curves need beside `cryptography`: one form of a signature, and the check of it.

A secp256k1 signature (r, s) has a twin (r, n - s) that verifies as well; networks take the one with the low s only, so
that nobody can make a second id for a transaction. Key services return either.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from settlement.chain import Algorithm
from settlement.core.errors import Malformed

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""How many points the group of secp256k1 has (SEC 2)."""

DIGEST = ec.ECDSA(Prehashed(SHA256()))
"""ECDSA over a digest of 32 bytes, whichever function made it."""


def low_s(der: bytes) -> bytes:
    """The DER signature with the lower of the two s."""
    r, s = decode_dss_signature(der)
    return encode_dss_signature(r, min(s, ORDER - s))


def der_of(raw: bytes) -> bytes:
    """The DER form of r and s, 32 bytes each, as an HSM returns them."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def check_message(algorithm: Algorithm, message: bytes) -> None:
    """Raises ValueError unless a secp256k1 key is given a digest."""
    if algorithm == "secp256k1" and len(message) != 32:
        raise ValueError(f"secp256k1 signs a digest of 32 bytes, not {len(message)}")


def verifies(algorithm: Algorithm, public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature is the key's; for secp256k1 `message` is the digest and a high s is no signature."""
    try:
        if algorithm == "ed25519":
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
            return True
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public)
        key.verify(signature, message, DIGEST)
        return decode_dss_signature(signature)[1] <= ORDER // 2
    except (InvalidSignature, ValueError):
        return False


def compressed(key: ec.EllipticCurvePublicKey) -> bytes:
    """33 bytes: the sign of y, and x."""
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def from_spki(der: bytes, where: str) -> tuple[Algorithm, bytes]:
    """Curve and public key of a SubjectPublicKeyInfo. Raises Malformed ``key_unsuited`` for any other kind of key."""
    try:
        key = load_der_public_key(der)
    except ValueError:
        raise Malformed("key_unsuited", f"{where} can't be read") from None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256K1):
        return "secp256k1", compressed(key)
    if isinstance(key, Ed25519PublicKey):
        return "ed25519", key.public_bytes_raw()
    raise Malformed("key_unsuited", f"{where} is neither an Ed25519 nor a secp256k1 key")
