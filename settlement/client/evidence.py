"""The books as signed evidence alone makes them: an export read without believing any figure that is derived.

What a verifier compares, this one computes: balances from the chained journal, obligations from the signed reports.
All else is checked as ever, every root included; so what comes out belongs to the checkpoints that were signed.
"""

from __future__ import annotations

from dataclasses import dataclass

from settlement.client.lines import Fields
from settlement.client.verifier import ExportVerifier

DERIVED = frozenset({"account", "obligation"})
"""Kinds of lines whose amounts follow from the other kinds."""


@dataclass(frozen=True, slots=True)
class Owed:
    """What a consumer owes a provider for a window, from the records."""

    window: int
    provider: str
    consumer: str
    records: int
    carried_in: int
    pico: int
    posted: int


class EvidenceReader(ExportVerifier):
    """An ExportVerifier that takes derived figures from the evidence and compares them with nothing."""

    def __init__(self, trusted_keys: frozenset[str] | None = None) -> None:
        super().__init__(trusted_keys)
        self.obligations: list[Owed] = []

    @property
    def balances(self) -> dict[str, int]:
        """Every account that the journal has moved, with its balance."""
        return {account: amount for (account, _), amount in self._books.balances.items()}

    def _read(self, raw: bytes | str) -> None:
        line = Fields.parse(raw, f"line {self._number}")
        kind = line.text("kind")
        if kind == "obligation":
            self._totals.counts[kind] = self._totals.counts.get(kind, 0) + 1
            return
        if kind == "window":
            self._take_obligations()
        super()._read(raw)

    def _finish(self) -> None:
        self._take_obligations()
        super()._finish()

    def _check_accounts(self) -> None:
        """What the accounts say of themselves is what is to be made anew."""

    def _take_obligations(self) -> None:
        window = self._windows.current
        if window is None:
            return
        for (consumer, provider), pair in window.usage.pairs.items():
            made = Owed(window.no, provider, consumer, pair.records, pair.carried_in, pair.pico, pair.posted)
            self.obligations.append(made)
        window.stated = set(window.usage.pairs)
