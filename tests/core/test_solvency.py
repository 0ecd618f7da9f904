"""What covers what is owed: worth rounded down once, suspense set aside, nothing without a worth."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from tests.client.test_solvency import SIM, SOUND, USD


def test_what_is_owed_a_microcu_more_is_not_covered() -> None:
    assert not replace(SOUND, owed=200_001).covered


def test_suspense_that_is_not_there_is_not_covered_by_another_asset() -> None:
    found = replace(SOUND, owed=0, assets=(USD, replace(SIM, amount=99)))
    assert (found.covered, found.short) == (False, "simulated/SIM")


def test_worth_is_rounded_down_once_for_all_assets() -> None:
    half = replace(USD, amount=1, suspense=0, micro_per_unit=Fraction(1, 2))
    assert replace(SOUND, assets=(half, replace(half, asset="B"))).held == 1
    assert replace(SOUND, assets=(replace(half, amount=-1),)).held == -1
