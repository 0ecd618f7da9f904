"""One door, by value mode: which price for which use, when nothing is converted, and what an own rate covers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import conversion
from settlement.core.conversion import Fresh, Lot, Worth
from settlement.core.errors import Malformed, Unavailable
from settlement.core.observations import Oracle
from settlement.core.policy import Policy, to_units
from settlement.core.value import UNIT, Fixing
from settlement.core.valuing import IndexPolicy

AT = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)
ORACLES = tuple(Oracle(name, "x") for name in "abc")
FIXED = Policy(1, AT, usd_per_asset={"USD": Fraction(1)})
INDEX = replace(FIXED, fixing_good_for=36 * HOUR, index=IndexPolicy(oracles=ORACLES))


def fixed(value: str, basket: str, **more: Any) -> Fixing:
    in_basket, in_value = int(Fraction(basket) * UNIT), int(Fraction(value) * UNIT)
    return Fixing(7, AT, {}, {}, AT, in_basket, in_basket, in_value, **more)


BELOW = fixed("0.005", "0.004")


def usd(found: Worth | None) -> Fraction:
    """USD for 1 CU by a worth of millionths of a USD."""
    assert found is not None
    return 1 / found.micro_per_unit


def test_without_an_index_every_use_has_the_policy_s_worth_and_names_no_fixing() -> None:
    for use in ("deposit", "payout", "withdrawal"):
        assert conversion.worth(FIXED, None, use, "USD", 6, AT) == Worth(Fraction(2000, 9))
    assert conversion.worth(FIXED, None, "deposit", "XRP", 6, AT) is None
    assert conversion.paused(FIXED, None, AT) is None
    coin = replace(FIXED, settlement_asset=("XRP", Fraction(1, 640)))
    assert conversion.worth(coin, None, "payout", "XRP", 6, AT) == Worth(Fraction(640))


def test_a_deposit_pays_the_higher_and_a_withdrawal_gets_the_lower_less_the_spread() -> None:
    """Value 0.005, basket 0.004: a payout is at 0.005, a withdrawal at 0.004 x 0.9975 = 0.00399."""
    uses = [conversion.worth(INDEX, BELOW, use, "USD", 6, AT) for use in ("deposit", "payout", "withdrawal")]
    assert [usd(each) for each in uses] == [Fraction("0.005"), Fraction("0.005"), Fraction("0.00399")]
    assert {each.fixing for each in uses if each} == {7}
    above = conversion.worth(INDEX, fixed("0.004", "0.005"), "deposit", "USD", 6, AT)
    assert usd(above) == Fraction("0.005")
    assert conversion.worth(INDEX, BELOW, "deposit", "XRP", 6, AT) is None


@pytest.mark.parametrize(
    ("fixing", "later", "why"),
    [
        (None, 0, "no fixing"),
        (replace(BELOW, frozen="source_stale XRP"), 0, "source_stale"),
        (replace(BELOW, frozen="gap between basket and value"), 0, "gap"),
        (BELOW, 36, ""),
        (BELOW, 37, "too old"),
    ],
)
def test_what_is_missing_frozen_or_old_converts_nothing(fixing: Fixing | None, later: int, why: str) -> None:
    at = AT + later * HOUR
    if not why:
        assert conversion.worth(INDEX, fixing, "deposit", "USD", 6, at) is not None
        return
    with pytest.raises(Unavailable, match=f"conversions_paused.*{why}"):
        conversion.worth(INDEX, fixing, "deposit", "USD", 6, at)


def withdrawn(wanted: int, fresh: Fresh) -> Worth:
    found = conversion.withdrawal(INDEX, BELOW, "USD", 6, AT, wanted, fresh)
    assert found is not None
    return found


def test_fresh_money_comes_back_at_what_it_cost_as_far_as_it_is_there() -> None:
    lots = [Lot(1_000_000, Fraction("0.005")), Lot(3_000_000, Fraction("0.0046"))]
    fresh = Fresh(lots, 0, 10_000_000)
    assert (fresh.left, fresh.price) == (4_000_000, Fraction("0.0047"))
    own = withdrawn(4_000_000, fresh)
    assert (usd(own), own.own_rate) == (Fraction("0.0047"), True)
    assert not withdrawn(4_000_500, fresh).own_rate, "one unit more than is left"
    assert not withdrawn(4_000_000, replace(fresh, returned=1_000)).own_rate
    assert not withdrawn(4_000_000, replace(fresh, balance=3_999_000)).own_rate, "what was spent was older money"
    cheap = Fresh([Lot(4_000_000, Fraction("0.003"))], 0, 10_000_000)
    assert not withdrawn(1_000, cheap).own_rate, "the usual price is better"


@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**7)), max_size=4),
    st.integers(0, 10**9),
    st.integers(0, 10**10),
    st.integers(1, 10**10),
)
def test_nobody_gets_more_back_than_fresh_money_brought(
    lots: list[tuple[int, int]], returned: int, balance: int, wanted: int
) -> None:
    fresh = Fresh([Lot(micro, Fraction(price, 10**9)) for micro, price in lots], returned, balance)
    found = withdrawn(wanted, fresh)
    units, micro = to_units(wanted, found.micro_per_unit)
    assert usd(found) >= Fraction("0.00399")
    if found.own_rate:
        assert micro <= fresh.left
        assert units <= sum(micro * Fraction(price, 10**9) for micro, price in lots)


def test_the_books_are_brought_to_what_the_assets_are_worth() -> None:
    """1,000.000001 units of a USD at 0.005 are 200,000.0002 CU, rounded down; what has no worth counts nothing."""
    held = [("USD", 6, 1_000_000_001), ("XRP", 6, 5)]
    assert conversion.revalued(INDEX, BELOW, held) == -200_000_000_200
    assert conversion.measured(INDEX, BELOW, "USD", 6) == 200
    assert conversion.measured(INDEX, None, "USD", 6) is None
    assert conversion.measured(FIXED, None, "USD", 6) == Fraction(2000, 9)
    assert conversion.measured(INDEX, replace(BELOW, frozen="gap"), "USD", 6) == 200


def test_fixings_are_a_day_apart_and_know_a_gap_from_distrust() -> None:
    assert not conversion.too_soon(None, AT)
    assert conversion.too_soon(BELOW, AT + 22 * HOUR)
    assert not conversion.too_soon(BELOW, AT + 23 * HOUR)
    gap, distrust = replace(BELOW, frozen="gap between"), replace(BELOW, frozen="sources_differ TOK")
    assert [conversion.is_gap(each) for each in (BELOW, gap, distrust)] == [False, True, False]
    assert [conversion.is_distrusted(each) for each in (BELOW, gap, distrust)] == [False, False, True]


def test_a_policy_of_an_index_is_read_as_it_was_written_and_only_one_that_can_convert() -> None:
    assert Policy.parse(INDEX.document()) == INDEX
    assert INDEX.follows_index
    for wrong in (
        replace(INDEX, fixing_good_for=24 * HOUR),
        replace(INDEX, index=IndexPolicy(oracles=ORACLES[:2])),
    ):
        with pytest.raises(Malformed, match="policy_malformed"):
            Policy.parse(wrong.document())
    for seconds in (b"true", b'"129600"', b"1.5"):
        with pytest.raises(Malformed, match="policy_malformed"):
            Policy.parse(INDEX.document().replace(b'"fixing_seconds":129600', b'"fixing_seconds":' + seconds))
