"""What an installation starts from: the files of governance/seed are what they say, and no time of theirs counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from governance import seeding
from governance.ratebook.catalogue import read_prices
from governance.ratebook.document import build
from settlement.core import canonical, rates, times
from settlement.core.errors import Malformed
from settlement.core.policy import SECTIONS, Policy

SINCE = datetime(2027, 1, 1, tzinfo=UTC)
MADE = datetime(2026, 11, 26, tzinfo=UTC)
"""The day whose prices the seed rate book has."""


def test_the_first_policy_states_every_section_with_its_defaults() -> None:
    found = seeding.first_policy(SINCE)
    assert found.left_out == frozenset()
    assert found == Policy(1, SINCE, usd_per_asset={code: Fraction(1) for code in ("USD", "USDC", "RLUSD")})
    stated = json.loads((Path(seeding.__file__).parent / "seed" / "policy.json").read_text("utf-8"))
    assert json.loads(found.document()) == stated | {"effective_from": times.text(SINCE)}, "nothing is behind the file"
    assert stated.keys() >= SECTIONS.keys()
    assert seeding.first_policy(SINCE, {"minimum_payout": "5"}).minimum_payout == 5
    with pytest.raises(Malformed, match="policy_malformed"):
        seeding.first_policy(SINCE, {"windows": {}})


def test_the_seed_rate_book_is_what_the_pinned_prices_make() -> None:
    """A new pin of the price data needs a new seed: `settlement rates build` as of that day, gzipped."""
    built, _ = build(read_prices(), version=1, parent=None, effective_from=SINCE, as_of=MADE)
    assert seeding.first_rates(SINCE) == built
    assert rates.parse(built).effective_from == SINCE


def test_the_charter_is_the_text_that_a_council_names() -> None:
    assert seeding.charter().startswith(b"# Charter of the council")
    assert canonical.digest(seeding.charter()).startswith("sha256:")
