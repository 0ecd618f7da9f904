"""What signers read of a build: counts, reasons, and prices in exact decimals."""

from __future__ import annotations

from fractions import Fraction

import pytest

from governance.ratebook.catalogue import MAX_PLACES, Skip
from governance.ratebook.report import Contradiction, Disagreement, Held, Report, usd_text


def test_prices_are_exact_decimals() -> None:
    assert usd_text(Fraction(5, 4)) == "1.25"
    assert usd_text(Fraction(10)) == "10"
    assert usd_text(Fraction(1, 10**MAX_PLACES)) == "0." + "0" * (MAX_PLACES - 1) + "1"
    for odd in (Fraction(1, 3), Fraction(1, 10 ** (MAX_PLACES + 1))):
        with pytest.raises(ValueError, match="finitely many"):
            usd_text(odd)


def test_everything_that_was_left_out_is_counted_by_its_reason() -> None:
    report = Report(
        models={"openai": 2, "anthropic": 1},
        priced=3,
        aliases=4,
        skipped=(
            Skip("a", "m", "price x", "is odd"),
            Skip("b", "n", "price y", "is odd"),
            Skip("b", "n", "model", "gone"),
        ),
        notes=(),
        disagreements=(Disagreement("m", "input_tokens", "a", "1", "b", "10.5"),),
        contradictions=(Contradiction("v", "m", "input_tokens", "one", "1", "two", "1.06"),),
        held=(Held("m", "standard", "input_tokens", 1, 10),),
        gone=("old",),
    )
    assert report.text().splitlines() == [
        "3 models priced, 4 aliases",
        "  anthropic: 1",
        "  openai: 2",
        "not used: 3",
        "  2 x price is odd",
        "  1 x model gone",
        "to note: 0",
        "tenfold disagreements: 1",
        "  m input_tokens: a 1, b 10.5",
        "sources that differ by more than 5 %: 1",
        "  v m input_tokens: one 1, two 1.06",
        "tenfold moves held for a person: 1",
        "  m standard input_tokens: 1 would be 10",
        "models and aliases that the table before has and this one has not: 1",
        "  old",
    ]
