"""What the treasury has signed in validated ledgers, for rebuilding lost books from the account's own history."""

from __future__ import annotations

from collections.abc import Mapping

from xrpl.core.binarycodec import XRPLBinaryCodecException, encode

from adapters.nodes import Node
from adapters.xrpl import rpc
from adapters.xrpl.amounts import from_ledger, places, units
from adapters.xrpl.outcomes import outcome_of
from adapters.xrpl.reading import Entry, Key
from adapters.xrpl.transactions import ANCHOR_MEMO, ORDER_MEMO, memos, slot_of
from settlement.chain import Asset, Sent, SentPage, Transaction, Transfer


async def sent_page(
    node: Node, treasury: str, keys: Mapping[Key, Asset], assets: Mapping[Asset, int], after: str | None
) -> SentPage:
    """Transactions of `treasury` behind a ledger. Raises Gap, Unreachable."""
    tip = await rpc.tip(node)
    read = None if after is None else int(after)
    if read is not None and tip.number <= read:
        return SentPage((), str(read))
    found, complete = await rpc.history(node, treasury, -1 if read is None else read + 1, tip.number)
    signed = tuple(_sent(each, keys, assets) for each in found if each.tx.get("Account") == treasury)
    return SentPage(signed, str(complete), complete < tip.number)


def _sent(found: Entry, keys: Mapping[Key, Asset], assets: Mapping[Asset, int]) -> Sent:
    tx = Transaction(
        found.id,
        (),
        _blob(found),
        slot_of(found.tx),
        found.at.number,
        int(found.tx.get("LastLedgerSequence", found.at.number)),
        int(found.tx["Fee"]),
    )
    marks: tuple[bytes, ...] = ()
    if (digest := memos(found.tx).get(ANCHOR_MEMO)) is not None:
        marks = (digest,)
    elif isinstance(invoice := found.tx.get("InvoiceID"), str):
        marks = (bytes.fromhex(invoice),)
    elif (name := memos(found.tx).get(ORDER_MEMO)) is not None:
        marks = (name,)
    return Sent(tx, found.at, marks, _transfers(found, keys, assets), outcome_of(found, assets))


def _transfers(found: Entry, keys: Mapping[Key, Asset], assets: Mapping[Asset, int]) -> tuple[Transfer, ...]:
    """What a payment of ours was to pay, as far as it is in an asset that the books know."""
    if found.tx.get("TransactionType") != "Payment":
        return ()
    try:
        stated = from_ledger(found.tx.get("Amount", found.tx.get("DeliverMax")))
    except ValueError:
        return ()
    asset = keys.get(stated.key)
    if asset is None:
        return ()
    amount, _ = units(stated.value, places(asset, assets[asset]))
    return (Transfer(str(found.tx["Destination"]), asset, amount, found.tx.get("DestinationTag")),)


def _blob(found: Entry) -> bytes:
    """The signed bytes, encoded again from the node's JSON; empty when that has a field that the codec doesn't know."""
    known = {name: value for name, value in found.tx.items() if name[:1].isupper()}
    if "DeliverMax" in known:
        known["Amount"] = known.pop("DeliverMax")
    try:
        return bytes.fromhex(encode(known))
    except (XRPLBinaryCodecException, ValueError, KeyError, TypeError):
        return b""
