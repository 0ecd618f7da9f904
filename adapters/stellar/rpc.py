"""The methods of Stellar RPC that the adapter needs, each on one node, read strictly where money depends on it.

Numbers come as text or as integers, depending on the version of the node; both are read. XDR is decoded here, so that
whatever is malformed is no answer (`NoAnswer`).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stellar_sdk import xdr
from stellar_sdk.exceptions import SdkError

from adapters.nodes import NoAnswer, Node
from adapters.stellar.assets import network_of
from settlement.chain import Gap, Ledger

MOST_KEYS = 200
"""What one getLedgerEntries call may ask for."""

NOBODY = "0" * 64
"""No transaction has this id: asking for it tells the tip and its close time, in every version of the node."""


class Refused(NoAnswer):
    """The node answered with a JSON-RPC error."""

    def __init__(self, detail: str, code: int) -> None:
        super().__init__(detail, lasting=True)
        self.code = code


@dataclass(frozen=True, slots=True)
class Look:
    """One consistent read of getTransaction: a transaction, or its absence, and which ledgers were looked at."""

    status: str
    """``SUCCESS``, ``FAILED`` or ``NOT_FOUND``."""
    latest: Ledger
    oldest: int
    at: Ledger | None
    result: xdr.TransactionResult | None


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction in a closed ledger: its envelope, its result, and whether it succeeded."""

    at: Ledger
    envelope: xdr.TransactionEnvelope
    result: xdr.TransactionResult
    succeeded: bool


@dataclass(frozen=True, slots=True)
class Fees:
    """Stroops an operation: the least that got into the last ledgers, and what nine of ten bid no more than."""

    least: int
    usual: int


async def call(node: Node, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The result of a method. Raises NoAnswer, of which Refused says that the node understood and said no."""
    request: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        request["params"] = dict(params)
    answer = await node.rpc(request, echoes=True)
    error = answer.get("error")
    if error is not None:
        with reading(node, method):
            raise Refused(f"{node.name}: {method}: {str(error['message'])[:200]}", int(error["code"]))
    result = answer.get("result")
    if not isinstance(result, dict):
        raise NoAnswer(f"{node.name}: {method} has no result", lasting=True)
    return result


async def identify(node: Node) -> str:
    """The network identity that the node's passphrase stands for."""
    with reading(node, "getNetwork"):
        return network_of(_text((await call(node, "getNetwork"))["passphrase"]))


async def look(node: Node, name: str) -> Look:
    """A transaction by its hash, or by a fee bump's inner hash, in closed ledgers."""
    found = await call(node, "getTransaction", {"hash": name})
    with reading(node, "getTransaction"):
        status = _text(found["status"])
        latest = Ledger(number(found["latestLedger"]), close_time(found["latestLedgerCloseTime"]))
        oldest = number(found["oldestLedger"])
        if status == "NOT_FOUND":
            return Look(status, latest, oldest, None, None)
        if status not in ("SUCCESS", "FAILED"):
            raise ValueError("status")
        at = Ledger(number(found["ledger"]), close_time(found["createdAt"]))
        result = xdr.TransactionResult.from_xdr(_text(found["resultXdr"]))
        if not oldest <= at.number <= latest.number:
            raise ValueError("a transaction outside of the ledgers that were looked at")
        return Look(status, latest, oldest, at, result)


async def landed(node: Node, name: str) -> Landed:
    """A transaction that is known to be in a closed ledger. Raises NoAnswer when the node lacks it."""
    found = await call(node, "getTransaction", {"hash": name})
    with reading(node, "getTransaction"):
        if found["status"] == "NOT_FOUND":
            raise NoAnswer(f"{node.name} does not know transaction {name}, of which it gave an event")
        return Landed(
            Ledger(number(found["ledger"]), close_time(found["createdAt"])),
            xdr.TransactionEnvelope.from_xdr(_text(found["envelopeXdr"])),
            xdr.TransactionResult.from_xdr(_text(found["resultXdr"])),
            found["status"] == "SUCCESS",
        )


async def tip(node: Node) -> Look:
    """The last closed ledger, with the oldest one that the node still has."""
    return await look(node, NOBODY)


async def entries(node: Node, keys: Sequence[xdr.LedgerKey]) -> tuple[dict[str, xdr.LedgerEntryData], int]:
    """Ledger entries by the base64 XDR of their keys, and the ledger that they are read from; absent ones are left out.

    More keys than one call may ask for are asked in several; the ledger is the first call's, the oldest.
    """
    found: dict[str, xdr.LedgerEntryData] = {}
    at = 0
    for start in range(0, len(keys), MOST_KEYS):
        asked = [key.to_xdr() for key in keys[start : start + MOST_KEYS]]
        result = await call(node, "getLedgerEntries", {"keys": asked})
        with reading(node, "getLedgerEntries"):
            at = at or number(result["latestLedger"])
            for each in result.get("entries") or ():
                name = _text(each["key"])
                if name not in asked:
                    raise ValueError("an entry that was not asked for")
                found[name] = xdr.LedgerEntryData.from_xdr(_text(each["xdr"]))
    return found, at


async def fees(node: Node) -> Fees:
    """What operations bid lately."""
    result = await call(node, "getFeeStats")
    with reading(node, "getFeeStats"):
        stats = result["inclusionFee"]
        return Fees(number(stats["min"]), number(stats["p90"]))


async def send(node: Node, envelope: bytes) -> tuple[str, str]:
    """Hand an envelope over: the node's status, and the name of its error if it is one. A hint, never an outcome."""
    try:
        result = await call(node, "sendTransaction", {"transaction": base64.b64encode(envelope).decode()})
    except Refused as refusal:
        if refusal.code == -32602:
            return "ERROR", "invalid_params"
        raise
    with reading(node, "sendTransaction"):
        status = _text(result["status"])
        if status != "ERROR":
            return status, ""
        return status, code_of(xdr.TransactionResult.from_xdr(_text(result["errorResultXdr"])))


async def events(
    node: Node,
    contracts: Sequence[str],
    topics: Sequence[str],
    *,
    first: int,
    limit: int,
    cursor: str | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """Events of some contracts with exactly these topics (``*`` stands for any one), and the cursor behind them.

    One filter with one shape a call: nodes before 27.1.1 miss events when filters differ in shape. Raises Gap when the
    node has forgotten the ledgers.
    """
    wanted: dict[str, Any] = {
        "filters": [{"type": "contract", "contractIds": list(contracts), "topics": [list(topics)]}],
        "pagination": {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor},
    }
    if cursor is None:
        wanted["startLedger"] = first
    try:
        result = await call(node, "getEvents", wanted)
    except Refused as refusal:
        if "ledger range" in str(refusal):
            raise Gap(str(refusal)) from None
        raise
    with reading(node, "getEvents"):
        found = result.get("events") or []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ValueError("events")
        return found, _text(result["cursor"])


def code_of(result: xdr.TransactionResult) -> str:
    """The name of a result's code; of a fee bump's inner result when that is what failed."""
    inner = result.result.inner_result_pair
    found = result.result.code if inner is None else inner.result.result.code
    return str(found.name)


def number(value: Any) -> int:
    """A whole number from 0 on that came as text or as an integer. Raises ValueError."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("number")


def close_time(value: Any) -> datetime:
    """Seconds since 1970 as UTC. Raises ValueError."""
    seconds = number(value)
    if seconds >= 1 << 36:
        raise ValueError("time")
    return datetime.fromtimestamp(seconds, UTC)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


@contextmanager
def reading(node: Node, what: str) -> Iterator[None]:
    """Turns what a malformed answer raises while it is read into NoAnswer."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, EOFError, struct.error, SdkError):
        raise NoAnswer(f"{node.name}: {what} can't be read", lasting=True) from None
