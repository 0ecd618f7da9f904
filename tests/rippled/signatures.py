"""Whose signatures count, as rippled decides it: a master or regular key, or the quorum of a signer list."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha512
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from xrpl.core.addresscodec import decode_classic_address
from xrpl.core.binarycodec import encode_for_multisigning, encode_for_signing
from xrpl.core.keypairs import derive_classic_address

if TYPE_CHECKING:
    from tests.rippled.engine import Root

MOST_SIGNERS = 32


def badly_signed(tx: dict[str, Any], root: Root, accounts: Mapping[str, Root]) -> str | None:
    """The code for signatures that don't count for the account; None when they do."""
    if "Signers" in tx:
        return _multi_signed_badly(tx, root, accounts)
    key = tx.get("SigningPubKey", "")
    if not verifies(key, bytes.fromhex(encode_for_signing(tx)), tx.get("TxnSignature", "")):
        return "temBAD_SIGNATURE"
    address = derive_classic_address(key)
    if address == tx["Account"]:
        return None if root.masters else "tefMASTER_DISABLED"
    return None if address == root.regular else "tefBAD_AUTH"


def _multi_signed_badly(tx: dict[str, Any], root: Root, accounts: Mapping[str, Root]) -> str | None:
    signers = [each["Signer"] for each in tx["Signers"]]
    ids = [decode_classic_address(each["Account"]) for each in signers]
    if tx.get("SigningPubKey") != "" or "TxnSignature" in tx or not 0 < len(signers) <= MOST_SIGNERS:
        return "temINVALID"
    if any(one >= other for one, other in pairwise(ids)):
        return "temINVALID"  # not in the order of the accounts' ids, or one twice
    if any(each["Account"] == tx["Account"] for each in signers):
        return "temINVALID"
    for each in signers:
        message = bytes.fromhex(encode_for_multisigning(tx, each["Account"]))
        if not verifies(each["SigningPubKey"], message, each["TxnSignature"]):
            return "temBAD_SIGNATURE"
    if not root.signers:
        return "tefNOT_MULTI_SIGNING"
    weight = 0
    for each in signers:
        if each["Account"] not in root.signers:
            return "tefBAD_SIGNATURE"
        own = accounts.get(each["Account"])
        if derive_classic_address(each["SigningPubKey"]) == each["Account"]:
            if own is not None and not own.masters:
                return "tefMASTER_DISABLED"
        elif own is None or derive_classic_address(each["SigningPubKey"]) != own.regular:
            return "tefBAD_SIGNATURE"
        weight += root.signers[each["Account"]]
    return None if weight >= root.quorum else "tefBAD_QUORUM"


def verifies(key: str, message: bytes, signature: str) -> bool:
    """Whether a key in hexadecimal has signed the message as transactions are signed."""
    try:
        raw, signed = bytes.fromhex(key), bytes.fromhex(signature)
        if raw[:1] == b"\xed":
            Ed25519PublicKey.from_public_bytes(raw[1:]).verify(signed, message)
        else:
            digest = sha512(message).digest()[:32]
            public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), raw)
            public.verify(signed, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except (ValueError, InvalidSignature):
        return False
    return True
