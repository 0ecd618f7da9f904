"""The last step of every proof: is the checkpoint's digest on the chain, in the transaction that the service names?

Asks a node that the caller chose, by the network's public interface (docs/reference/anchors.md). A node is believed:
whoever doubts one asks another, or runs one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from settlement.client.lines import Fault, Fields, Wrong, equal, fault_of, require
from settlement.client.nodes import Ask, HttpNode, Unanswered
from settlement.core import canonical


@dataclass(frozen=True, slots=True)
class Anchor:
    """A transaction that is said to carry `digest` (its text form), in ledger `ledger` of `chain`.

    `account` is whose transaction it must be, "" when that isn't known; `network` as the service names it, such as
    ``xrpl:1``; `window` is for messages.
    """

    chain: str
    network: str
    tx: str
    ledger: int
    digest: str
    window: int = 0
    account: str = ""

    @property
    def name(self) -> str:
        """How reports of faults call it."""
        return f"anchor of window {self.window} on {self.chain}" if self.window else f"anchor on {self.chain}"


@dataclass(frozen=True, slots=True)
class OnChain:
    """What a node says of a transaction. `memos` are what it carries, as bytes; `network` is "" when nobody says."""

    final: bool
    succeeded: bool
    ledger: int
    account: str
    memos: tuple[bytes, ...]
    network: str = ""


LookUp = Callable[[Ask, str], OnChain | None]
"""Finds a transaction at a node; None when the node doesn't know it."""


def anchor_of(named: Mapping[str, Any], digest: str, window: int) -> Anchor:
    """One of a proof's `anchors`, for the digest of its checkpoint. Raises Wrong ``line_malformed``."""
    each = Fields(named, "anchor")
    return Anchor(each.text("chain"), each.text("network"), each.text("tx"), each.whole("ledger"), digest, window)


def check_anchor(anchor: Anchor, url: str) -> Fault | None:
    """Look an anchor up at the node of a URL; what doesn't hold, or None.

    Codes: ``anchor_unsupported``, ``node_unreachable``, and those of `verify_anchor`.
    """

    def check() -> None:
        find = LOOK_UPS.get(anchor.chain)
        if find is None:
            known = " and ".join(sorted(LOOK_UPS))
            raise Wrong("anchor_unsupported", anchor.name, f"only transactions of {known} can be looked up")
        try:
            found = find(HttpNode(url), anchor.tx)
        except Unanswered as error:
            raise Wrong("node_unreachable", anchor.name, str(error)) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise Wrong("node_unreachable", anchor.name, f"its answer can't be used: {error}") from None
        verify_anchor(anchor, found)

    return fault_of(check)


def check_anchors(anchors: Sequence[Anchor], nodes: Mapping[str, str]) -> tuple[int, Fault | None]:
    """Look up every anchor of the chains in `nodes` (URLs by chain), in order: how many hold, and the first fault."""
    held = 0
    for anchor in anchors:
        url = nodes.get(anchor.chain)
        if url is None:
            continue
        fault = check_anchor(anchor, url)
        if fault is not None:
            return held, fault
        held += 1
    return held, None


def verify_anchor(anchor: Anchor, found: OnChain | None) -> None:
    """Hold an anchor to what a node says of it. Raises Wrong.

    Codes in the order of the checks: ``anchor_missing``, ``anchor_network``, ``anchor_not_final``, ``anchor_failed``,
    ``anchor_ledger``, ``anchor_account``, ``anchor_memo``.
    """
    name = anchor.name
    if found is None:
        raise Wrong("anchor_missing", name, f"the node knows no transaction {anchor.tx}")
    if anchor.network and found.network:
        equal(anchor.network, found.network, "anchor_network", name, "its network")
    require(found.final, "anchor_not_final", name, "its transaction is in no final ledger")
    require(found.succeeded, "anchor_failed", name, "its transaction failed on the chain")
    equal(anchor.ledger, found.ledger, "anchor_ledger", name, "its ledger")
    if anchor.account and found.account:
        equal(anchor.account, found.account, "anchor_account", name, "whose transaction it is")
    digest = canonical.digest_raw(anchor.digest)
    carried = any(memo.startswith(digest) for memo in found.memos)
    shown = ", ".join(memo.hex() for memo in found.memos) or "nothing"
    require(carried, "anchor_memo", name, f"its transaction carries {shown}, and not the checkpoint's {digest.hex()}")


# --- XRPL -------------------------------------------------------------------------------------------------------------


def look_up_xrpl(node: Ask, tx: str) -> OnChain | None:
    """By rippled's JSON-RPC, version 1 or 2 of its answers: ``tx`` and ``server_state``."""
    answer = _object(node.post("", {"method": "tx", "params": [{"transaction": tx, "binary": False}]}), "result")
    if answer.get("error") == "txnNotFound":
        return None
    if answer.get("error"):
        raise Unanswered(f"the node refuses tx {tx}: {answer['error']}")
    content = answer["tx_json"] if isinstance(answer.get("tx_json"), dict) else answer
    if str(answer.get("hash") or content.get("hash", "")).upper() != tx.upper():
        raise Unanswered("the node answers about another transaction")
    meta = answer.get("meta")
    result = meta.get("TransactionResult") if isinstance(meta, dict) else None
    memos = [each.get("Memo", {}).get("MemoData", "") for each in content.get("Memos", []) if isinstance(each, dict)]
    state = _object(node.post("", {"method": "server_state", "params": [{}]}), "result").get("state")
    network = state.get("network_id", 0) if isinstance(state, dict) else None
    return OnChain(
        final=answer.get("validated") is True,
        succeeded=result == "tesSUCCESS",
        ledger=_whole(answer.get("ledger_index") or content.get("ledger_index")),
        account=str(content.get("Account", "")),
        memos=tuple(bytes.fromhex(memo) for memo in memos),
        network="" if network is None else f"xrpl:{_whole(network)}",
    )


# --- Stellar ----------------------------------------------------------------------------------------------------------


def look_up_stellar(node: Ask, tx: str) -> OnChain | None:
    """By Stellar RPC's ``getTransaction``; by Horizon's ``/transactions/{hash}`` where that isn't spoken.

    The memo is read from the signed envelope, not from what the node makes of it.
    """
    asked = {"jsonrpc": "2.0", "id": 1, "method": "getTransaction", "params": {"hash": tx}}
    answer = node.post("", asked, missing={404, 405})
    if answer is None or answer.get("jsonrpc") != "2.0":
        return _look_up_horizon(node, tx)
    found = _object(answer, "result")
    status = found.get("status")
    if status == "NOT_FOUND":
        return None
    envelope = read_envelope(base64.b64decode(str(found.get("envelopeXdr", "")), validate=True))
    return OnChain(True, status == "SUCCESS", _whole(found.get("ledger")), envelope.account, envelope.memos)


def _look_up_horizon(node: Ask, tx: str) -> OnChain | None:
    found = node.get(f"/transactions/{tx}", missing={404})
    if found is None:
        return None
    envelope = read_envelope(base64.b64decode(str(found.get("envelope_xdr", "")), validate=True))
    return OnChain(True, found.get("successful") is True, _whole(found.get("ledger")), envelope.account, envelope.memos)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is read of a transaction envelope: its source account as ``G...`` text, and the 32 bytes of a hash memo."""

    account: str
    memos: tuple[bytes, ...]


class _Xdr:
    """A cursor over XDR (RFC 4506): everything is a multiple of four bytes, big end first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        padded = size + -size % 4
        part = self._data[self._at : self._at + padded]
        if len(part) != padded:
            raise Unanswered("the transaction envelope ends too early")
        self._at += padded
        return part[:size]

    def number(self, size: int = 4) -> int:
        return int.from_bytes(self.take(size), "big")

    def optional(self, size: int) -> None:
        if self.number():
            self.take(size)


_V1, _FEE_BUMP = 2, 5
_MUXED = 0x100
_HASH_MEMO = 3


def read_envelope(data: bytes) -> Envelope:
    """Source account and memo of a TransactionEnvelope, of a fee bump the inner transaction's.

    Raises Unanswered for anything that isn't one.
    """
    xdr = _Xdr(data)
    kind = xdr.number()
    if kind == _FEE_BUMP:
        _account(xdr), xdr.take(8)
        kind = xdr.number()
    if kind != _V1:
        raise Unanswered(f"the envelope is of type {kind}, which carries no anchor")
    account = _account(xdr)
    xdr.take(4 + 8)  # fee, sequence number
    _skip_conditions(xdr)
    memo = xdr.number()
    return Envelope(account, (xdr.take(32),) if memo == _HASH_MEMO else ())


def _account(xdr: _Xdr) -> str:
    kind = xdr.number()
    if kind == _MUXED:
        xdr.take(8)
    elif kind:
        raise Unanswered(f"an account of type {kind}")
    return strkey(xdr.take(32))


def _skip_conditions(xdr: _Xdr) -> None:
    kind = xdr.number()
    if kind == 1:
        xdr.take(16)
    elif kind == 2:
        xdr.optional(16)  # time bounds
        xdr.optional(8)  # ledger bounds
        xdr.optional(8)  # minimum sequence number
        xdr.take(8 + 4)  # minimum sequence age, minimum ledger gap
        for _ in range(min(xdr.number(), 2)):
            _skip_signer(xdr)
    elif kind:
        raise Unanswered(f"preconditions of type {kind}")


def _skip_signer(xdr: _Xdr) -> None:
    kind = xdr.number()
    xdr.take(32)
    if kind == 3:  # a signed payload has its bytes behind the key
        xdr.take(xdr.number())


def strkey(raw: bytes) -> str:
    """The ``G...`` text of an Ed25519 account (SEP-23): version byte, key, CRC-16/XMODEM little end first, base32."""
    data = bytes([6 << 3]) + raw
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return base64.b32encode(data + crc.to_bytes(2, "little")).decode().rstrip("=")


LOOK_UPS: Mapping[str, LookUp] = {"stellar": look_up_stellar, "xrpl": look_up_xrpl}
"""How a transaction is looked up, by the chain's name."""


def _object(answer: dict[str, Any] | None, name: str) -> dict[str, Any]:
    found = answer.get(name) if answer is not None else None
    if not isinstance(found, dict):
        raise Unanswered(f"the node's answer has no {name}")
    return found


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise Unanswered(f"{value!r} is no ledger or network number")
    return value
