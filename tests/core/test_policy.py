"""The policy's document round trips, and its conversions never give anything away."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import canonical
from settlement.core.errors import Malformed
from settlement.core.governing import GovernanceRules
from settlement.core.policy import SECTIONS, Policy, to_micro, to_units

START = datetime(2026, 11, 22, tzinfo=UTC)
WORTHS = st.fractions(Fraction(1, 10**9), Fraction(10**9), max_denominator=10**9)
AMOUNTS = st.integers(0, 2**63 - 1)


def policy(**changed: Any) -> Policy:
    return Policy(**{"version": 1, "effective_from": START, "usd_per_asset": {"USD": Fraction(1)}, **changed})


@given(WORTHS, st.dictionaries(st.sampled_from(["USD", "XRP", "EURC"]), WORTHS), AMOUNTS, st.integers(0, 10**7))
def test_document_round_trips(per_cu: Fraction, assets: dict[str, Fraction], minimum: int, seconds: int) -> None:
    made = policy(
        usd_per_cu=per_cu, usd_per_asset=assets, minimum_payout=minimum, address_cooldown=timedelta(seconds=seconds)
    )
    assert Policy.parse(made.document()) == made
    assert Policy.parse(made.document()).document() == made.document()


def test_a_document_from_before_a_section_is_read_with_its_defaults_and_written_as_it_was() -> None:
    document = json.loads(policy().document())
    for name in SECTIONS:
        del document[name]
    before = canonical.encode(document)
    read = Policy.parse(before)
    assert read.left_out == frozenset(SECTIONS)
    assert read.governance == GovernanceRules()
    assert read.document() == before


def test_a_policy_names_the_one_before() -> None:
    made = policy(version=2, parent="sha256:" + "1" * 64)
    assert json.loads(made.document())["parent"] == "sha256:" + "1" * 64
    assert Policy.parse(made.document()) == made


def altered(**changed: Any) -> bytes:
    document = json.loads(policy().document())
    document["value"].update(changed.pop("value", {}))
    return json.dumps(document | changed).encode()


def in_asset(asset: object, units: str) -> bytes:
    document = json.loads(policy().document())
    value = {"mode": "settlement_asset", "asset": asset, "units_per_cu": units, "usd_per_cu": "9/2000"}
    return json.dumps(document | {"value": value}).encode()


def test_in_a_settlement_asset_a_cu_is_so_many_units_of_it_and_of_nothing_else() -> None:
    """1 CU = 1/640 XRP: a drop, 10^-6 XRP, is 640 microCU."""
    made = policy(usd_per_asset={}, settlement_asset=("XRP", Fraction(1, 640)))
    assert Policy.parse(made.document()) == made
    assert Policy.parse(in_asset("XRP", "1/640")).settlement_asset == ("XRP", Fraction(1, 640))
    assert made.micro_per_unit("XRP", 6) == 640
    assert made.micro_per_unit("USD", 6) is None
    assert to_units(1_000_000, Fraction(640)) == (1_562, 999_680)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        altered(type="policy/2"),
        altered(version="x"),
        altered(version=None),
        altered(effective_from="yesterday"),
        altered(effective_from=5),
        altered(address_cooldown_seconds=10**18),
        altered(value={"mode": "index"}),
        altered(value={"mode": "settlement_asset"}),
        altered(value={"asset": "XRP"}),
        in_asset("XRP", "0"),
        in_asset("XRP", "-1"),
        in_asset("XRP", "x"),
        in_asset(5, "1"),
        altered(value={"usd_per_cu": "1/0"}),
        altered(value={"usd_per_cu": "0"}),
        altered(value={"usd_per_cu": "-1"}),
        altered(value={"usd_per_asset": []}),
        altered(value={"usd_per_asset": {"USD": "0"}}),
        altered(value={"usd_per_asset": {"USD": "-2"}}),
        altered(parent="sha256:1"),
        altered(parent=5),
        altered(governance={}),
        altered(governance=None),
    ],
)
def test_what_is_no_policy(document: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        Policy.parse(document)
    assert caught.value.code == "policy_malformed"


def test_worth_of_assets() -> None:
    """0.0045 USD a CU: one USD of six decimals is 222.2 CU, and its millionth 222.2 microCU."""
    assert policy().micro_per_unit("USD", 6) == Fraction(2_000, 9)
    assert policy().micro_per_unit("XRP", 6) is None
    assert to_micro(1_000_000, Fraction(2_000, 9)) == 222_222_222
    assert to_units(222_222_222, Fraction(2_000, 9)) == (999_999, 222_222_000)


@given(AMOUNTS, WORTHS)
def test_a_deposit_is_never_credited_more_than_its_worth(units: int, worth: Fraction) -> None:
    micro = to_micro(units, worth)
    assert micro <= units * worth < micro + 1


@given(AMOUNTS, WORTHS)
def test_a_payout_takes_what_its_units_are_worth_and_no_more_than_there_is(micro: int, worth: Fraction) -> None:
    units, taken = to_units(micro, worth)
    assert 0 <= taken <= micro
    assert taken - 1 < units * worth <= taken
    assert (units + 1) * worth > micro


@given(AMOUNTS, WORTHS)
def test_there_and_back_never_gains(units: int, worth: Fraction) -> None:
    assert to_units(to_micro(units, worth), worth)[0] <= units
