"""The tables of docs/reference/payouts.md are those of the code."""

from __future__ import annotations

from pathlib import Path

from settlement.core.states import ORDER_STEPS, PAYOUT_STEPS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "payouts.md"


def steps_under(heading: str) -> dict[tuple[str, str], str]:
    section = PAGE.read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return {(old, new): reason for old, new, reason in rows[2:]}


def test_steps_of_an_order() -> None:
    assert steps_under("Steps of an order") == ORDER_STEPS


def test_steps_of_a_payout() -> None:
    assert steps_under("Steps of a payout") == PAYOUT_STEPS
