"""The text that proves an address is the one that its page shows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from settlement.core import addresses

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "address-proof.md"


def test_the_text_is_the_one_on_the_page() -> None:
    text = addresses.statement(
        network="simulated:demo",
        address="sim1consumer",
        kid="kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        at=datetime(2026, 11, 25, 21, 0, 0, 5, tzinfo=UTC),
    )
    assert f"```text\n{text}\n```" in PAGE.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.count("\n") == 4
