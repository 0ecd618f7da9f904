"""The table of outcomes: how many exchanges of each vendor ended as exact meters, flagged, or refused, and as what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from settlement.meter.exchanges import Exchange
from settlement.meter.normaliser import normalise


@dataclass(slots=True)
class Row:
    """One vendor's outcomes. `checked` of the exact and flagged ones agree with a total of the vendor's own."""

    exchanges: int = 0
    exact: int = 0
    flagged: int = 0
    refused: int = 0
    checked: int = 0
    names: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, exchange: Exchange) -> None:
        """Count one exchange."""
        normal = normalise(exchange)
        self.exchanges += 1
        self.checked += normal.checked
        self.unread.update(normal.unread)
        if normal.refusal is not None:
            self.refused += 1
            self.names[normal.refusal] += 1
        elif normal.flags:
            self.flagged += 1
            self.names.update(normal.flags)
        else:
            self.exact += 1

    def document(self) -> dict[str, object]:
        """The row as JSON."""
        return {
            "exchanges": self.exchanges,
            "exact": self.exact,
            "flagged": self.flagged,
            "refused": self.refused,
            "checked": self.checked,
            "names": dict(sorted(self.names.items())),
            "unread": dict(sorted(self.unread.items())),
        }


def tabulate(exchanges: Iterable[Exchange]) -> dict[str, Row]:
    """The outcomes by vendor, in order of their names; the last row, ``all``, is their sum."""
    rows: dict[str, Row] = {}
    whole = Row()
    for exchange in exchanges:
        rows.setdefault(exchange.vendor, Row()).add(exchange)
        whole.add(exchange)
    return {**dict(sorted(rows.items())), "all": whole}


def lines(rows: dict[str, Row]) -> list[str]:
    """The table as a page of text: Markdown, so that it can stand in a document as it is."""
    found = [
        "| vendor | exchanges | exact | of them checked | flagged | refused | flags and refusals |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for vendor, row in rows.items():
        names = ", ".join(f"{name} {count}" for name, count in sorted(row.names.items()))
        found.append(
            f"| {vendor} | {row.exchanges} | {row.exact} | {row.checked} | {row.flagged} | {row.refused} | {names} |"
        )
    return found
