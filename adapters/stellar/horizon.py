"""Reading history from Horizon: deposits where the nodes' own events don't reach back, and what our accounts signed.

Only as a reader: nothing is submitted to it, and no outcome is taken from it. Its records carry decimals as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from stellar_sdk import StrKey

from adapters.nodes import NoAnswer, Node
from adapters.stellar import rpc
from adapters.stellar.assets import XLM, network_of, stroops
from adapters.stellar.events import Arrival, deposits, sender_of
from settlement.chain import Asset, Gap, Ledger, Page

ROWS = 200
_PAYMENTS = {
    "payment": "to",
    "create_account": "account",
    "path_payment": "to",
    "path_payment_strict_receive": "to",
    "path_payment_strict_send": "to",
}
"""Operations that pay, and the member that names their destination."""

_BY_EFFECT = {
    "account_merge": ("into", "account_credited"),
    "claim_claimable_balance": ("claimant", "claimable_balance_claimed"),
}
"""Operations that don't state what they bring: the member that names who gets it, and the effect that states it."""


async def identify(node: Node) -> str:
    """The network identity that the server's passphrase stands for."""
    root = await _get(node, "/")
    with rpc.reading(node, "the root"):
        return network_of(root["network_passphrase"])


async def page(node: Node, treasury: str, assets: Mapping[str, Asset], after: int | None) -> Page:
    """Deposits of whole ledgers behind `after`; `assets` by their text. Raises Gap, NoAnswer."""
    oldest, latest = await span(node)
    if after is not None and latest.number <= after:
        return Page((), str(after), latest)
    first = oldest if after is None else after + 1
    if first < oldest:
        raise Gap(f"{node.name} has ledgers from {oldest} on, wanted is {first}")
    # Operations, because claims are no payments there.
    path = f"/accounts/{treasury}/operations"
    rows, through = await rows_from(node, path, "&join=transactions", first, latest.number)
    found = [each for row in rows for each in await _arrivals(node, row, treasury, assets)]
    return Page(deposits(found), str(through), latest, more=through < latest.number)


async def span(node: Node) -> tuple[int, Ledger]:
    """The oldest ledger that the server has, and its last one."""
    root = await _get(node, "/")
    with rpc.reading(node, "the root"):
        latest = Ledger(int(root["history_latest_ledger"]), time_of(root["history_latest_ledger_closed_at"]))
        return int(root["history_elder_ledger"]), latest


async def rows_from(node: Node, path: str, more: str, first: int, last: int) -> tuple[list[dict[str, Any]], int]:
    """An account's records of whole ledgers from `first` to at most `last`, and the ledger they are complete to."""
    rows: list[dict[str, Any]] = []
    cursor = (first << 32) - 1
    while True:
        answer = await _get(node, f"{path}?order=asc&limit={ROWS}&cursor={cursor}{more}", missing=True)
        with rpc.reading(node, path):
            found = answer["_embedded"]["records"] if answer else []
            rows += found
            ledgers = [int(row["paging_token"]) >> 32 for row in rows]
            if len(found) < ROWS:
                return [row for row, at in zip(rows, ledgers, strict=True) if at <= last], last
            if ledgers[-1] > first:
                through = min(ledgers[-1] - 1, last)
                return [row for row, at in zip(rows, ledgers, strict=True) if at <= through], through
            cursor = int(found[-1]["paging_token"])


async def _arrivals(node: Node, row: Mapping[str, Any], treasury: str, assets: Mapping[str, Asset]) -> list[Arrival]:
    brought: list[dict[str, Any]] = []
    member, effect = _BY_EFFECT.get(row.get("type", ""), ("", ""))
    if member and row.get(member) == treasury:
        answer = await _get(node, f"/operations/{int(row['id'])}/effects?limit={ROWS}")
        with rpc.reading(node, "effects"):
            brought = [each for each in answer["_embedded"]["records"] if each["type"] == effect]
    with rpc.reading(node, "operations"):
        return arrivals(row, treasury, assets, brought)


def arrivals(
    row: Mapping[str, Any], treasury: str, assets: Mapping[str, Asset], effects: list[dict[str, Any]]
) -> list[Arrival]:
    """What one operation brought the treasury; `effects` are those of one that doesn't state it (`_BY_EFFECT`).

    A muxed id goes before the memo, and only a memo of the kind that is a number is a reference (CAP-67).
    """
    if row.get("transaction_successful") is not True:
        return []
    kind, brought = row["type"], list[tuple[str, Asset, int, int | None]]()
    if kind in _PAYMENTS and row[_PAYMENTS[kind]] == treasury:
        amount = row["starting_balance"] if kind == "create_account" else row["amount"]
        asset = assets.get(XLM.text if kind == "create_account" else asset_of(row).text)
        sender = row["funder"] if kind == "create_account" else row["from"]
        if asset is not None:
            brought.append((sender, asset, stroops(amount), _reference(row, "to_muxed_id")))
    elif kind == "account_merge" and row["into"] == treasury:
        for each in effects:
            if each["account"] == treasury:
                brought.append((row["account"], XLM, stroops(each["amount"]), _reference(row, "into_muxed_id")))
    elif kind == "claim_claimable_balance" and row["claimant"] == treasury:
        for each in effects:
            asset = assets.get(XLM.text if each["asset"] == "native" else each["asset"])
            if each["account"] == treasury and asset is not None:
                brought.append((_balance_address(row["balance_id"]), asset, stroops(each["amount"]), None))
    elif kind == "invoke_host_function":
        for each in row.get("asset_balance_changes") or ():
            asset = assets.get(asset_of(each).text)
            if each["type"] in ("transfer", "mint") and each.get("to") == treasury and asset is not None:
                muxed = each.get("destination_muxed_id")
                reference = None if muxed is None else int(muxed)
                brought.append((each.get("from") or asset.issuer, asset, stroops(each["amount"]), reference))
    token = int(row["paging_token"])
    at, tx = Ledger(token >> 32, time_of(row["created_at"])), str(row["transaction_hash"]).lower()
    source, source_id = row.get("source_account", ""), row.get("source_account_muxed_id")
    muxed_id = None if source_id is None else rpc.number(source_id)
    return [
        Arrival(at, (token, nth), tx, (token & 0xFFF) - 1, asset, amount, ref, sender_of(sender, source, muxed_id))
        for nth, (sender, asset, amount, ref) in enumerate(brought)
        if amount > 0 and sender != treasury
    ]


def _balance_address(balance_id: str) -> str:
    """The B-address by which events name a claimable balance (SEP-23)."""
    raw = bytes.fromhex(balance_id)
    if len(raw) != 36 or any(raw[:4]):
        raise ValueError("a claimable balance's id")
    return StrKey.encode_claimable_balance(raw[3:])


def asset_of(row: Mapping[str, Any]) -> Asset:
    """The asset that a record states."""
    if row["asset_type"] == "native":
        return XLM
    return Asset(row["asset_code"], row["asset_issuer"])


def _reference(row: Mapping[str, Any], member: str) -> int | None:
    if row.get(member) is not None:
        return rpc.number(row[member])
    joined = row.get("transaction")
    if isinstance(joined, dict) and joined.get("memo_type") == "id":
        return rpc.number(joined["memo"])
    return None


def time_of(text: str) -> datetime:
    """A record's time. Raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("time without zone")
    return found.astimezone(UTC)


async def _get(node: Node, path: str, *, missing: bool = False) -> dict[str, Any]:
    reply = await node.get(path, accept=(200, 404) if missing else (200,))
    if reply.status == 404:
        return {}
    if not isinstance(reply.value, dict):
        raise NoAnswer(f"{node.name} answered with something that is no object", lasting=True)
    return reply.value
