"""Deposits from a node's events (CAP-67): what `transfer` and `mint` say has reached the treasury.

Only what the asset's own contract says counts, and only whole ledgers are read, so that the cursor is a ledger number
that any reader can go on from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from stellar_sdk import Address, MuxedAccount, scval, xdr
from stellar_sdk import Asset as SdkAsset

from adapters.nodes import NoAnswer, Node
from adapters.stellar import rpc
from adapters.stellar.transactions import inner_of
from settlement.chain import Asset, Deposit, Gap, Ledger, Page

LIMIT = 200
"""Events asked for in one call."""

PLACES = 1_000
"""A deposit's index is its operation's place in the transaction times this, plus its place in the operation."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event that says that money has reached the treasury."""

    at: Ledger
    place: tuple[int, ...]
    tx: str
    operation: int
    asset: Asset
    amount: int
    reference: int | None
    sender: str


PROBED = 20
"""How many of the last ledgers are searched for a sign that a node emits classic events."""


def symbol(text: str) -> str:
    """A topic's symbol as base64 XDR."""
    return scval.to_symbol(text).to_xdr()


def shapes(treasury: str) -> tuple[tuple[str, ...], ...]:
    """What to ask for: transfers to us by anybody, and what an issuer pays us straight, which is no transfer."""
    us = scval.to_address(Address(treasury)).to_xdr()
    return ((symbol("transfer"), "*", us, "*"), (symbol("mint"), us, "*"))


async def emits(node: Node, passphrase: str, tip: rpc.Look) -> bool:
    """Whether a node emits the events of classic payments, which is off unless its operator has turned it on.

    With them, every transaction has a fee event. Where the last ledgers hold no transaction, nothing can be said, and
    nothing has arrived in them either: True.
    """
    first = max(tip.oldest, tip.latest.number - PROBED + 1)
    native = SdkAsset.native().contract_id(passphrase)
    found, _ = await rpc.events(node, [native], (symbol("fee"), "*"), first=first, limit=1)
    if found:
        return True
    result = await rpc.call(node, "getTransactions", {"startLedger": first, "pagination": {"limit": 1}})
    return not result.get("transactions")


async def page(node: Node, treasury: str, contracts: Mapping[str, Asset], after: int | None, passphrase: str) -> Page:
    """Deposits of whole ledgers behind `after`. Raises Gap when the node has forgotten one of them, NoAnswer."""
    now = await rpc.tip(node)
    latest = now.latest.number
    if after is not None and latest <= after:
        return Page((), str(after), now.latest)  # a node that lags, or nothing new: the cursor stays
    first = now.oldest if after is None else after + 1
    if first < now.oldest:
        raise Gap(f"{node.name} has ledgers {now.oldest} to {latest}, wanted is {first}")
    through, rows = latest, []
    for topics in shapes(treasury):
        found, upto = await _scan(node, tuple(contracts), topics, first, latest)
        through = min(through, upto)
        rows += found
    with rpc.reading(node, "getEvents"):
        arrivals = [each for row in rows if (each := arrival(row, treasury, contracts)) is not None]
    kept = [each for each in arrivals if each.at.number <= through]
    envelopes = {name: (await rpc.landed(node, name)).envelope for name in {each.tx for each in kept}}
    with rpc.reading(node, "an envelope"):
        kept = [replace(each, sender=_named(each, envelopes[each.tx], passphrase)) for each in kept]
    return Page(deposits(kept), str(through), now.latest, more=through < latest)


async def departures(
    node: Node, treasury: str, contracts: Mapping[str, Asset], after: int
) -> tuple[list[str], int, Ledger]:
    """Transactions of whole ledgers behind `after` that took money from the treasury, in chain order; the last ledger
    that was searched, and the node's last. Raises Gap, NoAnswer."""
    now = await rpc.tip(node)
    latest = now.latest.number
    if latest <= after:
        return [], after, now.latest
    if after + 1 < now.oldest:
        raise Gap(f"{node.name} has ledgers {now.oldest} to {latest}, wanted is {after + 1}")
    us = scval.to_address(Address(treasury)).to_xdr()
    rows, through = await _scan(node, tuple(contracts), (symbol("transfer"), us, "*", "*"), after + 1, latest)
    with rpc.reading(node, "getEvents"):
        found = [_hash(row["txHash"]) for row in rows if rpc.number(row["ledger"]) <= through]
    return list(dict.fromkeys(found)), through, now.latest


def _named(found: Arrival, raw: xdr.TransactionEnvelope, passphrase: str) -> str:
    """The sender as it wrote itself into its operation, which events don't tell: an M-address keeps its id."""
    inner = inner_of(raw, passphrase)
    source = inner.operations[found.operation].source or inner.source
    return sender_of(found.sender, source.account_id, source.account_muxed_id)


def sender_of(sender: str, source: str, muxed_id: int | None) -> str:
    """The M-address of a sender that is the source of its operation and has an id there; else the sender."""
    return sender if source != sender or muxed_id is None else MuxedAccount(sender, muxed_id).universal_account_id


async def _scan(
    node: Node, contracts: tuple[str, ...], topics: tuple[str, ...], first: int, latest: int
) -> tuple[list[dict[str, Any]], int]:
    """Events from a ledger on, of whole ledgers, and the last ledger that they are complete to."""
    found, cursor = await rpc.events(node, contracts, topics, first=first, limit=LIMIT)
    rows, full = list(found), len(found) >= LIMIT
    with rpc.reading(node, "getEvents"):
        while full and rpc.number(rows[-1]["ledger"]) == first:  # a ledger that one answer can't hold
            found, cursor = await rpc.events(node, contracts, topics, first=first, limit=LIMIT, cursor=cursor)
            rows, full = rows + list(found), len(found) >= LIMIT
        # A full answer may have ended inside of its last ledger; otherwise the cursor says how far the node searched.
        upto = rpc.number(rows[-1]["ledger"]) - 1 if full else int(cursor.partition("-")[0]) >> 32
        if upto < first:
            raise NoAnswer(f"{node.name}: getEvents makes no progress from ledger {first}")
    return rows, min(upto, latest)


def arrival(row: Mapping[str, Any], treasury: str, contracts: Mapping[str, Asset]) -> Arrival | None:
    """What an event says has reached the treasury; None for one that brings it nothing.

    Raises ValueError, TypeError or KeyError for a row that can't be read.
    """
    asset = contracts.get(row["contractId"])
    if asset is None or row["type"] != "contract" or row.get("inSuccessfulContractCall") is False:
        return None
    topics = [xdr.SCVal.from_xdr(each) for each in row["topic"]]
    name = scval.from_symbol(topics[0])
    if name == "transfer" and len(topics) == 4:
        sender, to = (scval.from_address(each).address for each in topics[1:3])
    elif name == "mint" and len(topics) == 3:
        sender, to = asset.issuer, scval.from_address(topics[1]).address
    else:
        return None
    amount, reference = _data(xdr.SCVal.from_xdr(row["value"]))
    if to != treasury or sender == treasury or amount <= 0:
        return None
    closed = datetime.fromisoformat(row["ledgerClosedAt"])
    if closed.utcoffset() != timedelta(0):
        raise ValueError("a close time that is not in UTC")
    place = tuple(int(part) for part in str(row["id"]).split("-"))
    at = Ledger(rpc.number(row["ledger"]), closed.astimezone(UTC))
    return Arrival(at, place, _hash(row["txHash"]), rpc.number(row["operationIndex"]), asset, amount, reference, sender)


def _data(value: xdr.SCVal) -> tuple[int, int | None]:
    """Amount and reference of an event: a bare amount, or one with the muxed id or the memo of its destination.

    Of memos only a number is one of our references: text that looks like a number is somebody's text (CAP-67).
    """
    if value.map is None:
        return scval.from_int128(value), None
    fields = {scval.from_symbol(each.key): each.val for each in value.map.sc_map}
    stated = fields.get("to_muxed_id")
    is_number = stated is not None and stated.type == xdr.SCValType.SCV_U64
    return scval.from_int128(fields["amount"]), scval.from_uint64(stated) if stated is not None and is_number else None


def deposits(arrivals: list[Arrival]) -> tuple[Deposit, ...]:
    """In chain order, each with its id: transaction, and place in it."""
    made, counts = [], dict[tuple[str, int], int]()
    for each in sorted(arrivals, key=lambda found: (found.at.number, found.place)):
        nth = counts.get((each.tx, each.operation), 0)
        counts[each.tx, each.operation] = nth + 1
        index = each.operation * PLACES + nth
        made.append(Deposit((each.tx, index), each.asset, each.amount, each.reference, each.sender, each.at))
    return tuple(made)


def _hash(text: Any) -> str:
    if not isinstance(text, str) or len(bytes.fromhex(text)) != 32:
        raise ValueError("a transaction's hash")
    return text.lower()
