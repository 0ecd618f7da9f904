"""The recorded XRP Ledger transactions as the adapter reads them, one line of text each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from adapters.xrpl.reading import Entry, Key, delivered, entry, gained, incoming
from settlement.chain import Asset


def recorded(file: Path) -> list[dict[str, Any]]:
    """Every row of the file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def as_entry(row: dict[str, Any]) -> Entry:
    """A row in the form of ``account_tx``; what old recordings lack is filled in, as if it were validated."""
    meta = {"TransactionIndex": 0, **row["meta"]}
    number = str(row["ledger_index"])
    raw = {"validated": True, "hash": row["hash"] or "0" * 64, "tx": row["tx"], "meta": meta}
    raw["ledger_index"] = int(number) if number.isdecimal() else 1
    raw["date"] = int(row["close"]) if str(row["close"]).isdecimal() and int(row["close"]) < 1 << 33 else 0
    return entry(raw)


class Everything(dict[Key, Asset]):
    """Accepts any asset, under its key's own text."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: Key) -> Asset:
        return Asset(key[0] or "MPT", key[1])


def line(row: dict[str, Any]) -> str:
    """What the transaction would credit if its destination were the treasury, and what would go to suspense at whom."""
    found = as_entry(row)
    account = found.tx.get("Destination") if found.tx.get("TransactionType") in ("Payment", "AccountDelete") else None
    brought = [each for each in incoming(found, str(account), Everything()) if each.credited] if account else []
    text = "; ".join(f"{each.value.normalize():f} {each.asset.code} tag {each.reference}" for each in brought)
    others = sorted(set(accounts(found)) - {str(found.tx["Account"])})
    stray = [each for other in others for each in incoming(found, other, Everything()) if not each.credited]
    return f"{found.tx['TransactionType']} {found.result}: {text or 'nothing'} | {len(stray)} strays"


def accounts(found: Entry) -> Iterator[str]:
    """Every account whose balance the metadata shows."""
    for node in found.meta.get("AffectedNodes", []):
        for body in node.values():
            fields = body.get("FinalFields") or body.get("NewFields") or {}
            kind = body.get("LedgerEntryType")
            if kind in ("AccountRoot", "MPToken") and "Account" in fields:
                yield fields["Account"]
            elif kind == "RippleState":
                yield from (fields["LowLimit"]["issuer"], fields["HighLimit"]["issuer"])


def contradiction(row: dict[str, Any]) -> str:
    """Where what was delivered and what the receiver's balance shows differ by more than the ledger's rounding."""
    found = as_entry(row)
    if found.tx.get("TransactionType") != "Payment" or found.result != "tesSUCCESS":
        return ""
    stated, gains = delivered(found.tx, found.meta), gained(found.meta, str(found.tx["Destination"]))
    if stated is None or found.tx["Account"] == found.tx["Destination"] or stated.key not in gains:
        return ""
    off = abs(gains[stated.key] - stated.value)
    return "" if off <= abs(stated.value) * Decimal("1e-12") else f"{found.id}: {stated.value} and {gains[stated.key]}"
