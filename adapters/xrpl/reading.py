"""What a validated transaction has brought an account: the credit rule of CHAINS 1.4, and balances from metadata.

Only what was delivered counts, never what a transaction asked for. Reading is tolerant of fields that are unknown here
and of both forms of the API, and strict about those that money depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from adapters.xrpl.amounts import LedgerAmount, decimal, from_ledger
from settlement.chain import Asset, Ledger

PARTIAL_PAYMENT = 0x00020000
SUCCESS = "tesSUCCESS"
_RIPPLE_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A validated transaction: its fields, what became of it, and where it stands."""

    id: str
    at: Ledger
    position: int
    tx: Mapping[str, Any]
    meta: Mapping[str, Any]

    @property
    def result(self) -> str:
        return str(self.meta.get("TransactionResult", ""))


@dataclass(frozen=True, slots=True)
class Incoming:
    """Money that reached an account. Without `credited` it came some other way than by a payment that says for whom."""

    asset: Asset
    value: Decimal
    reference: int | None
    sender: str
    credited: bool
    sender_reference: int | None = None
    """The source tag: what the sender wants on whatever comes back to it."""


def entry(raw: Mapping[str, Any]) -> Entry:
    """A row of ``account_tx`` or an answer of ``tx``, in either form of the API.

    Raises ValueError when it isn't validated or lacks what money depends on.
    """
    tx = raw.get("tx_json") or raw.get("tx")
    tx = tx if isinstance(tx, dict) else raw
    meta = raw.get("meta")
    if raw.get("validated") is not True or not isinstance(meta, dict):
        raise ValueError("not a validated transaction with its metadata")
    name, number = raw.get("hash") or tx.get("hash"), raw.get("ledger_index") or tx.get("ledger_index")
    position, result = meta.get("TransactionIndex"), meta.get("TransactionResult")
    if not isinstance(name, str) or not isinstance(number, int) or not isinstance(position, int):
        raise ValueError("a transaction without its id or its place")
    if not isinstance(result, str) or not isinstance(tx.get("Account"), str):
        raise ValueError("a transaction without its result or its account")
    return Entry(name.upper(), Ledger(number, _closed_at(raw, tx)), position, tx, meta)


def close_time(seconds: Any) -> datetime:
    """The ledger's own count of seconds as UTC. Raises ValueError."""
    if not isinstance(seconds, int) or not 0 <= seconds < 1 << 33:
        raise ValueError("not a close time")
    return _RIPPLE_EPOCH + timedelta(seconds=seconds)


def incoming(found: Entry, account: str, assets: Mapping[Key, Asset]) -> list[Incoming]:
    """What `found` brought `account` of the accepted assets, if it is final, succeeded, and is not the account's own.

    A payment's delivery carries its tag and is never more than the balance rose by; everything else that raised the
    balance comes without a reference, so that it ends in suspense.
    """
    tx = found.tx
    if found.result != SUCCESS or tx["Account"] == account:
        return []
    gains = {key: value for key, value in gained(found.meta, account).items() if key in assets}
    arrived: list[Incoming] = []
    if tx.get("TransactionType") in ("Payment", "AccountDelete") and tx.get("Destination") == account:
        stated = delivered(tx, found.meta)
        if stated is not None and stated.key in assets and stated.value > 0:
            gain = gains.get(stated.key, stated.value)
            value = min(stated.value, gain)
            tags = _tag(tx), _tag(tx, "SourceTag")
            arrived.append(Incoming(assets[stated.key], value, tags[0], str(tx["Account"]), True, tags[1]))
            gains[stated.key] = gain - value
    arrived += [
        Incoming(assets[key], value, None, str(tx["Account"]), False, _tag(tx, "SourceTag"))
        for key, value in sorted(gains.items())
        if value > 0
    ]
    return [each for each in arrived if each.value > 0]


def delivered(tx: Mapping[str, Any], meta: Mapping[str, Any]) -> LedgerAmount | None:
    """What a payment delivered; None when nobody can say, as for a partial payment of before 2014."""
    stated = meta.get("delivered_amount", meta.get("DeliveredAmount"))
    if stated is None and not int(tx.get("Flags", 0)) & PARTIAL_PAYMENT:
        # A node leaves it out in some answers; without the flag a payment that succeeded delivered its amount.
        stated = tx.get("Amount", tx.get("DeliverMax"))
    try:
        return None if stated is None else from_ledger(stated)
    except ValueError:
        return None


def gained(meta: Mapping[str, Any], account: str) -> dict[Key, Decimal]:
    """By how much each of an account's balances changed, from the ledger objects that a transaction touched."""
    changes: dict[Key, Decimal] = {}
    for kind, now, before in _objects(meta):
        change = _change(kind, now, before, account)
        if change is not None:
            key, value = change
            changes[key] = changes.get(key, Decimal(0)) + value
    return changes


def sequence_after(meta: Mapping[str, Any], account: str) -> int | None:
    """The sequence that an account has after a transaction that touched it."""
    for kind, now, _ in _objects(meta):
        if kind == "AccountRoot" and now.get("Account") == account and isinstance(now.get("Sequence"), int):
            return int(now["Sequence"])
    return None


def _objects(meta: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any] | None]]:
    """Type, fields after, and fields before: only those that changed; None for an object that is new.

    An object that was touched without a change of its fields has none before, and is left out.
    """
    nodes = meta.get("AffectedNodes")
    for node in nodes if isinstance(nodes, list) else []:
        for how, body in node.items() if isinstance(node, dict) else ():
            if isinstance(body, dict):
                new = how == "CreatedNode"
                now, before = body.get("NewFields" if new else "FinalFields"), body.get("PreviousFields")
                if isinstance(now, dict) and (new or isinstance(before, dict)):
                    yield str(body.get("LedgerEntryType")), now, None if new else before


def _change(
    kind: str, now: Mapping[str, Any], before: Mapping[str, Any] | None, account: str
) -> tuple[Key, Decimal] | None:
    try:
        if kind == "AccountRoot" and now.get("Account") == account:
            return ("XRP", ""), _difference(before, "Balance", now)
        if kind == "MPToken" and now.get("Account") == account:
            return ("", str(now["MPTokenIssuanceID"]).upper()), _difference(before, "MPTAmount", now)
        if kind == "RippleState":
            low, high = now["LowLimit"]["issuer"], now["HighLimit"]["issuer"]
            if account in (low, high):
                rise = _difference(before, "Balance", now)
                currency = str(now["LowLimit"]["currency"])
                return (currency, high if account == low else low), rise if account == low else -rise
    except (KeyError, TypeError, ValueError):
        return None
    return None


def _difference(before: Mapping[str, Any] | None, name: str, now: Mapping[str, Any]) -> Decimal:
    after = _number(now.get(name))
    if before is None or not before:
        # New, or nothing was there before: an amount that was zero is left out, and so is its name.
        return after if before is None or name == "MPTAmount" else Decimal(0)
    return after - _number(before[name]) if name in before else Decimal(0)


def _number(stated: Any) -> Decimal:
    if stated is None:
        return Decimal(0)  # an object that has none yet, such as a fresh MPToken
    return decimal(stated["value"] if isinstance(stated, dict) else str(stated))


def _tag(tx: Mapping[str, Any], name: str = "DestinationTag") -> int | None:
    tag = tx.get(name)
    return tag if isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < 1 << 32 else None


def _closed_at(raw: Mapping[str, Any], tx: Mapping[str, Any]) -> datetime:
    text = raw.get("close_time_iso")
    if isinstance(text, str):
        return datetime.fromisoformat(text).astimezone(UTC)
    return close_time(raw.get("date", tx.get("date")))
