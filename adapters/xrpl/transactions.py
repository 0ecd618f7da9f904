"""Transactions of our own: built field by field, signed, named by their hash. xrpl-py gives the codec, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha512
from typing import Any

from xrpl.core.addresscodec import (
    XRPLAddressCodecException,
    classic_address_to_xaddress,
    encode_classic_address,
    is_valid_classic_address,
    is_valid_xaddress,
    xaddress_to_classic_address,
)
from xrpl.core.binarycodec import XRPLBinaryCodecException, decode, encode, encode_for_signing
from xrpl.core.keypairs import derive_classic_address

from adapters.xrpl.amounts import to_ledger
from settlement.chain import AnchorOrder, Asset, Order, SetupOrder, Signer, Slot

FULLY_CANONICAL = 0x80000000
FIRST_NETWORK_WITH_ID = 1025
"""Networks from this id on want it in every transaction; those below refuse it."""

MEMO_BYTES = 900
"""What an anchor may carry: all memos together may have 1,024 bytes, names included."""

ORDER_MEMO = "settlement/order"
ANCHOR_MEMO = "settlement/anchor"
MARK_BYTES = 32
_HASH_PREFIX = bytes.fromhex("54584E00")


def mark(name: str) -> bytes:
    """The InvoiceID of a payout: its id in ASCII, filled up with zeros. Raises ValueError for what can't be one."""
    raw = name.encode("ascii", "replace")
    if not 0 < len(raw) <= MARK_BYTES or not name.isascii() or not name.isprintable():
        raise ValueError(f"an id is 1 to {MARK_BYTES} ASCII characters")
    return raw.ljust(MARK_BYTES, b"\0")


def fields(
    order: Order | SetupOrder,
    *,
    slot: Slot,
    fee: int,
    last: int,
    network_id: int,
    decimals: Mapping[Asset, int],
    send_max: Any = None,
    members: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The unsigned transaction of an order of at most one transfer, in the ledger's JSON form; of a step of setting an
    account up, `members` are what it consists of."""
    found: dict[str, Any] = {
        "Account": slot.account,
        "Fee": str(fee),
        "LastLedgerSequence": last,
        "Flags": FULLY_CANONICAL,
    }
    found |= {"Sequence": 0, "TicketSequence": slot.number} if slot.kind == "ticket" else {"Sequence": slot.number}
    if network_id >= FIRST_NETWORK_WITH_ID:
        found["NetworkID"] = network_id
    memos = [_memo(ORDER_MEMO, order.id.encode())]
    if isinstance(order, SetupOrder):
        step = members or {}
        found |= {**step, "Flags": found["Flags"] | step.get("Flags", 0)}
    elif isinstance(order, AnchorOrder):
        found["TransactionType"] = "AccountSet"
        memos.insert(0, _memo(ANCHOR_MEMO, order.digest))
    else:
        (transfer,) = order.transfers
        address, tag = taken_apart(transfer.to, transfer.reference)
        found |= {
            "TransactionType": "Payment",
            "Destination": address,
            "Amount": to_ledger(transfer.asset, transfer.amount, decimals[transfer.asset]),
            "InvoiceID": mark(transfer.id or order.id).hex().upper(),
        }
        if tag is not None:
            found["DestinationTag"] = tag
        if send_max is not None:
            found["SendMax"] = send_max
    found["Memos"] = memos
    return found


def taken_apart(to: str, reference: int | None) -> tuple[str, int | None]:
    """Classic address and tag; an X-address that has a tag brings its own. Raises ValueError when both name one and
    they differ."""
    if not is_valid_xaddress(to):
        return to, reference
    address, tag, _ = xaddress_to_classic_address(to)
    if tag is not None and reference not in (None, tag):
        raise ValueError("the X-address names another tag")
    return address, reference if tag is None else tag


def address_fits(address: str, *, test: bool) -> bool:
    """Whether it is a classic address, or an X-address of this kind of network, with a right checksum."""
    if not address.isascii():
        return False
    try:
        if is_valid_classic_address(address):
            return True
        return is_valid_xaddress(address) and xaddress_to_classic_address(address)[2] == test
    except (XRPLAddressCodecException, ValueError):
        return False


def x_address(address: str, tag: int | None, *, test: bool) -> str:
    """Address and tag in one, for one kind of network."""
    return classic_address_to_xaddress(address, tag, test)


def public_key_text(signer: Signer) -> str:
    """A signer's key as SigningPubKey states it."""
    return ("ED" if signer.algorithm == "ed25519" else "") + signer.public_key.hex().upper()


def address_of(signer: Signer) -> str:
    """The address that a signer's key is the master key of."""
    return derive_classic_address(public_key_text(signer))


def check_bounded(unsigned: Mapping[str, Any]) -> None:
    """Raises ValueError without LastLedgerSequence: what never expires may pay weeks later."""
    if not unsigned.get("LastLedgerSequence"):
        raise ValueError("a transaction is never signed without LastLedgerSequence")


async def signed(unsigned: Mapping[str, Any], signer: Signer) -> bytes:
    """The blob, signed by one key alone. Raises ValueError, see `check_bounded`."""
    check_bounded(unsigned)
    whole = {**unsigned, "SigningPubKey": public_key_text(signer)}
    message = bytes.fromhex(encode_for_signing(whole))
    signature = await signer.sign(message if signer.algorithm == "ed25519" else half_sha512(message))
    return bytes.fromhex(encode({**whole, "TxnSignature": signature.hex().upper()}))


def hash_of(blob: bytes) -> str:
    """A signed transaction's id."""
    return half_sha512(_HASH_PREFIX + blob).hex().upper()


def half_sha512(data: bytes) -> bytes:
    """The first half of SHA-512, the ledger's digest."""
    return sha512(data).digest()[:32]


def decoded(blob: bytes) -> dict[str, Any]:
    """A blob's fields. Raises ValueError."""
    try:
        return decode(blob.hex().upper())
    except (XRPLBinaryCodecException, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"not a transaction: {type(error).__name__}") from None


def unsigned_form(found: Mapping[str, Any]) -> str:
    """What is signed, whoever signs: equal for two forms of one multi-signed transaction."""
    return encode_for_signing({**found, "SigningPubKey": ""})


def slot_of(found: Mapping[str, Any]) -> Slot:
    """The slot that a transaction uses."""
    if ticket := found.get("TicketSequence"):
        return Slot(str(found["Account"]), int(ticket), "ticket")
    return Slot(str(found["Account"]), int(found["Sequence"]))


def memos(found: Mapping[str, Any]) -> dict[str, bytes]:
    """Our own memos in a transaction, by type; of a type that comes twice, the first. What is malformed is left out."""
    names: dict[str, bytes] = {}
    listed = found.get("Memos")
    for each in listed if isinstance(listed, list) else []:
        memo = each.get("Memo") if isinstance(each, dict) else None
        try:
            if isinstance(memo, dict):
                name = bytes.fromhex(memo["MemoType"]).decode("ascii")
                names.setdefault(name, bytes.fromhex(memo["MemoData"]))
        except (KeyError, ValueError, TypeError):
            continue
    return names


def account_address(raw: bytes) -> str:
    """The classic address of a 20-byte account id."""
    return encode_classic_address(raw)


def _memo(name: str, data: bytes) -> dict[str, dict[str, str]]:
    return {"Memo": {"MemoType": name.encode().hex().upper(), "MemoData": data.hex().upper()}}
