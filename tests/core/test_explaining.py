"""A charge in words says the same as its figures."""

from __future__ import annotations

import re
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import multipliers, rates, rating
from settlement.core.explaining import cu, explained
from settlement.core.multipliers import Multiplier
from tests.core.test_rating import NOON, excess, modified, rate_tables, table, usage_of


def test_the_worked_example_reads_like_a_bill() -> None:
    usage = {"input_tokens": 1155, "output_tokens": 211}
    charge = rating.rate(table(), "gpt-5", "standard", "completed", usage, NOON, (Multiplier("ask", 9_000),))
    assert isinstance(charge, rating.Charge)
    found = explained(charge, NOON)
    assert [line["says"] for line in found["lines"]] == [
        "1,155 input_tokens at 277.777778 CU per million: 0.32083333359 CU",
        "211 output_tokens at 2222.222222 CU per million: 0.468888888842 CU",
    ]
    assert found["multipliers"][0]["says"] == (
        "times 0.9 for what the provider asks in its signed offer: 0.789722222432 becomes 0.710750000188 CU"
    )
    assert (found["par_pico"], found["charge_pico"], found["charge"]) == (
        "789722222432",
        "710750000188",
        "0.710750000188",
    )


def test_excess_minimum_hours_and_nothing_are_said() -> None:
    charge = rating.rate(excess((200, 150)), "m", "standard", "completed", {"input_tokens": 1201}, NOON)
    assert isinstance(charge, rating.Charge)
    assert explained(charge, NOON)["lines"][1]["says"].startswith("1,001 input_tokens above 200 cost 0.00005 CU")
    dear = modified(minimum=5_000, hours=[{"from": "12:00", "until": "13:00", "multiplier": "0.5"}])
    charge = rating.rate(dear, "m", "standard", "completed", {}, NOON)
    assert isinstance(charge, rating.Charge)
    found = explained(charge, NOON)
    assert "costs 0.000000005 CU at least" in found["minimum"]["says"]
    assert "the time of day, 2026-11-22T12:00:00Z" in found["multipliers"][0]["says"]
    charge = rating.rate(dear, "m", "standard", "errored", {}, NOON)
    assert isinstance(charge, rating.Charge)
    assert any("costs nothing" in sentence for sentence in explained(charge, NOON)["says"])


@settings(max_examples=150, deadline=None)
@given(rate_tables(), st.data())
def test_words_and_numbers_agree_and_lead_to_the_charge(table: rates.RateTable, data: st.DataObject) -> None:
    usage = data.draw(usage_of(table))
    further = [Multiplier("ask", data.draw(st.integers(2_500, 40_000)))]
    at = NOON + timedelta(minutes=data.draw(st.integers(0, 1439)))
    charge = rating.rate(table, "m", "standard", "completed", usage, at, further)
    if isinstance(charge, rating.Refusal):
        return
    found = explained(charge, at)
    pico = sum(int(line["pico"]) for line in found["lines"])
    for line in found["lines"]:
        assert int(line["pico"]) == line["units"] * line["rate"]
        assert f"{cu(int(line['pico']))} CU" in line["says"]
    pico += int(found["minimum"]["pico"]) if found["minimum"] else 0
    for step in found["multipliers"]:
        before = pico
        pico = pico * multipliers.parse(step["multiplier"]) // 10_000
        assert step["pico"] == str(pico)
        assert re.search(rf": {re.escape(cu(before))} becomes {re.escape(cu(pico))} CU$", step["says"])
    assert found["charge_pico"] == str(pico) == str(charge.pico)


def test_a_hold_that_had_less_left_is_said() -> None:
    charge = rating.rate(table(), "gpt-5", "standard", "completed", {"output_tokens": 100}, NOON)
    assert isinstance(charge, rating.Charge)
    found = explained(charge, NOON, 200_000_000_000)
    assert (found["charge"], found["capped"]["pico"]) == ("0.2", "22222222200")
    assert "never costs more than its hold has left" in found["capped"]["says"]
    assert explained(charge, NOON, charge.pico)["capped"] is None
