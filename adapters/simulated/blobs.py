"""What travels on the simulated network: addresses, keys and signed transactions as bytes.

A transaction is canonical JSON (sorted keys, no spaces, ASCII; amounts as decimal strings) with an Ed25519 signature
over the body. Its id is the SHA-256 of the whole blob. The node takes only the one canonical spelling of a transaction,
so that nobody but the holder of the key can make a second id for it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MEMO_BYTES = 256
INVOICE_CHARACTERS = 64
REFERENCE_BITS = 32
MAX_AMOUNT = (1 << 63) - 1
"""The most that one balance and one transfer can hold, in smallest units; the width of the node's integers."""

_MAX_BLOB = 32_768
_PREFIX = "sim1"
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_TAG = b"SIMULATED-TRANSACTION-1\x00"
_MESSAGE_TAG = b"SIMULATED-MESSAGE-1\x00"
_AMOUNT = re.compile(r"[1-9][0-9]{0,18}")
_INVOICE = re.compile(rf"[!-~]{{0,{INVOICE_CHARACTERS}}}")


class BadBlob(ValueError):
    """These bytes are not a transaction of this network. `code` is the node's result code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Payment:
    """One transfer inside a transaction. `partial`, if set, is what really arrives: the rest stays with the sender."""

    to: str
    asset: str
    amount: int
    reference: int | None = None
    partial: int | None = None

    @property
    def delivers(self) -> int:
        return self.amount if self.partial is None else self.partial


@dataclass(frozen=True, slots=True)
class Body:
    """An unsigned transaction. It can land only up to `last_ledger`; `fee` is in the native smallest unit."""

    network: str
    account: str
    sequence: int
    fee: int
    last_ledger: int
    invoice: str = ""
    memo: bytes = b""
    payments: tuple[Payment, ...] = ()


class Key:
    """An Ed25519 key made from a 32-byte seed, and the address that it controls."""

    __slots__ = ("_private", "address", "public")

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()
        self.address = address_of(self.public)

    def __repr__(self) -> str:
        return f"Key({self.address})"

    def signed(self, body: Body) -> bytes:
        """The blob of `body`, signed. Ed25519 is deterministic: the same body always gives the same blob and id."""
        document = _document(body, self.public)
        return _canonical({"body": document, "signature": self._private.sign(_TAG + _canonical(document)).hex()})

    def signed_text(self, text: str) -> str:
        """The signature of a text, in hexadecimal: what proves that whoever has this key controls its address."""
        return self._private.sign(_MESSAGE_TAG + text.encode()).hex()


def proves(address: str, text: str, public: str, signature: str) -> bool:
    """Whether the signature of a text (`Key.signed_text`) is by the key that the address is made from."""
    try:
        key, signed = bytes.fromhex(public), bytes.fromhex(signature)
        if len(key) != 32 or address_of(key) != address:
            return False
        Ed25519PublicKey.from_public_bytes(key).verify(signed, _MESSAGE_TAG + text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def address_of(public: bytes) -> str:
    """``sim1`` and 40 base32 characters: 21 bytes of the key's SHA-256 and a checksum of 4 bytes."""
    payload = sha256(public).digest()[:21]
    number = int.from_bytes(payload + _checksum(payload), "big")
    return _PREFIX + "".join(_BASE32[number >> shift & 31] for shift in range(195, -1, -5))


def is_address(text: str) -> bool:
    """Whether `text` is spelled as an address and its checksum is right. Says nothing about the account's existence."""
    digits = text.removeprefix(_PREFIX)
    if len(digits) != 40 or not text.startswith(_PREFIX) or any(digit not in _BASE32 for digit in digits):
        return False
    number = 0
    for digit in digits:
        number = number << 5 | _BASE32.index(digit)
    value = number.to_bytes(25, "big")
    return _checksum(value[:21]) == value[21:]


def blob_id(blob: bytes) -> str:
    """A transaction's id: the SHA-256 of its blob, in hexadecimal."""
    return sha256(blob).hexdigest()


def decoded(blob: bytes) -> Body:
    """The body of a signed blob. Raises BadBlob ``malformed``, ``bad_signature``."""
    if len(blob) > _MAX_BLOB:
        raise BadBlob("malformed")
    try:
        outer = json.loads(blob)
        document = outer["body"]
        signature, public = bytes.fromhex(outer["signature"]), bytes.fromhex(document["key"])
        body = _body(document)
        spelled = _canonical({"body": _document(body, public), "signature": signature.hex()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadBlob("malformed") from None
    if spelled != blob:
        raise BadBlob("malformed")
    if len(public) != 32 or address_of(public) != body.account:
        raise BadBlob("bad_signature")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _TAG + _canonical(document))
    except (InvalidSignature, ValueError):
        raise BadBlob("bad_signature") from None
    return body


def _checksum(payload: bytes) -> bytes:
    return sha256(_PREFIX.encode() + payload).digest()[:4]


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _document(body: Body, public: bytes) -> dict[str, Any]:
    return {
        "account": body.account,
        "fee": str(body.fee),
        "invoice": body.invoice,
        "key": public.hex(),
        "last_ledger": body.last_ledger,
        "memo": body.memo.hex(),
        "network": body.network,
        "payments": [
            {
                "amount": str(payment.amount),
                "asset": payment.asset,
                "partial": None if payment.partial is None else str(payment.partial),
                "reference": payment.reference,
                "to": payment.to,
            }
            for payment in body.payments
        ],
        "sequence": body.sequence,
    }


def _body(document: dict[str, Any]) -> Body:
    """The body that a document spells. Raises ValueError and its like for anything that isn't one."""
    memo = bytes.fromhex(document["memo"])
    if len(memo) > MEMO_BYTES or not _INVOICE.fullmatch(document["invoice"]):
        raise ValueError("memo or invoice")
    return Body(
        network=_text(document["network"]),
        account=_text(document["account"]),
        sequence=_number(document["sequence"], MAX_AMOUNT),
        fee=_amount(document["fee"]),
        last_ledger=_number(document["last_ledger"], MAX_AMOUNT),
        invoice=document["invoice"],
        memo=memo,
        payments=tuple(_payment(payment) for payment in document["payments"]),
    )


def _payment(document: dict[str, Any]) -> Payment:
    reference, partial = document["reference"], document["partial"]
    payment = Payment(
        to=_text(document["to"]),
        asset=_text(document["asset"]),
        amount=_amount(document["amount"]),
        reference=None if reference is None else _number(reference, (1 << REFERENCE_BITS) - 1),
        partial=None if partial is None else _amount(partial),
    )
    if not is_address(payment.to) or payment.delivers > payment.amount or not payment.asset.isascii():
        raise ValueError("payment")
    return payment


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _number(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("number")
    return value


def _amount(value: object) -> int:
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or int(value) > MAX_AMOUNT:
        raise ValueError("amount")
    return int(value)
