"""What the demonstration says at its end: counted from the audit export, the same lines that the verifier reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """Sums over the export of the whole demonstration. Amounts are microCU, fees the fee asset's smallest unit."""

    records: int = 0
    refused: int = 0
    reports: int = 0
    gross: int = 0
    netted: int = 0
    paid: int = 0
    unpaid: int = 0
    deposits: int = 0
    suspense: int = 0
    windows: int = 0
    transactions: Counter[str] = field(default_factory=Counter)
    fee: int = 0
    payouts: int = 0

    def feed(self, line: dict[str, Any]) -> None:
        """Count one line of the export."""
        kind = line["kind"]
        if kind == "usage_report":
            self.reports += 1
            self.records += line["accepted"]
            self.refused += len(line["refusals"])
        elif kind == "obligation":
            self.gross += int(line["posted"])
        elif kind == "position":
            self.netted += int(line["netted"])
        elif kind == "checkpoint":
            self.windows += 1
        elif kind == "payout" and line["state"] == "settled":
            self.payouts += 1
            self.paid += int(line["micro"])
        elif kind == "chain_order" and line["state"] == "settled":
            self.transactions[line["order_kind"]] += 1
            self.fee += int(line["fee"])
        elif kind == "deposit":
            self.deposits += 1
            self.suspense += line["party"] is None
        elif kind == "account" and line["account_kind"] == "provider":
            self.unpaid += int(line["settled"])

    @property
    def ratio(self) -> int:
        """Value netting in hundredths of a percent: the share of what was owed that nobody has to pay out."""
        return self.netted * 10_000 // self.gross if self.gross else 0
