"""Proof of an address: the signature that wallets of the ledger make of a message, by the address's master key."""

from __future__ import annotations

import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from xrpl.core.addresscodec import XRPLAddressCodecException, is_valid_xaddress, xaddress_to_classic_address
from xrpl.core.keypairs import derive_classic_address

from adapters.xrpl.transactions import half_sha512

METHOD = "xrpl-message"
_KEY = re.compile(r"(?:ED|0[23])[0-9A-F]{64}")


def proves(address: str, text: str, public_key: str, signature: str) -> bool:
    """Whether the key, of which the address is the hash, signed the text: Ed25519 over its bytes, or ECDSA over the
    first half of their SHA-512. Key and signature in hexadecimal."""
    named = public_key.upper()
    if not _KEY.fullmatch(named):
        return False
    try:
        classic = xaddress_to_classic_address(address)[0] if is_valid_xaddress(address) else address
        if derive_classic_address(named) != classic:
            return False
        raw, signed, message = bytes.fromhex(named), bytes.fromhex(signature), text.encode()
        if named.startswith("ED"):
            Ed25519PublicKey.from_public_bytes(raw[1:]).verify(signed, message)
        else:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), raw)
            key.verify(signed, half_sha512(message), ec.ECDSA(Prehashed(SHA256())))
    except (InvalidSignature, XRPLAddressCodecException, ValueError):
        return False
    return True
