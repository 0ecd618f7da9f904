"""The deposit cursor: the last ledger read to its end, and of each asset what is less than a unit so far.

``105`` or ``105;RLUSD:rIssuer=0.25``: the rests are part of the cursor, because reading on from it must give the same
deposits however often it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from adapters.xrpl.amounts import decimal
from settlement.chain import Asset

REST_DIGITS = 24
"""Of a rest, so many digits behind the point are kept; what is finer than that never makes a unit."""


def text(ledger: int, rests: Mapping[Asset, Decimal]) -> str:
    """The cursor behind a ledger."""
    parts = [str(ledger)]
    for asset, rest in sorted(rests.items(), key=lambda pair: pair[0].text):
        kept = rest.quantize(Decimal(1).scaleb(-REST_DIGITS), rounding="ROUND_FLOOR")
        if kept:
            parts.append(f"{asset.text}={kept.normalize():f}")
    return ";".join(parts)


def parsed(cursor: str | None) -> tuple[int | None, dict[Asset, Decimal]]:
    """Ledger and rests of a cursor; (None, {}) for the beginning. Raises ValueError for what is no cursor."""
    if cursor is None:
        return None, {}
    ledger, *parts = cursor.split(";")
    if not ledger.isascii() or not ledger.isdecimal():
        raise ValueError(f"not a cursor of the XRP Ledger: {cursor[:80]!r}")
    rests = {}
    for part in parts:
        name, _, rest = part.rpartition("=")
        rests[Asset.parse(name)] = decimal(rest)
    return int(ledger), rests
