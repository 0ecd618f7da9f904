"""Every pair of states: the legal steps say why, all others raise."""

from __future__ import annotations

from itertools import product

import pytest

from settlement.core.errors import Broken
from settlement.core.states import (
    IN_FLIGHT,
    ORDER_STATES,
    ORDER_STEPS,
    PAYOUT_STATES,
    PAYOUT_STEPS,
    step_order,
    step_payout,
)


@pytest.mark.parametrize(("old", "new"), list(product(ORDER_STATES, ORDER_STATES)))
def test_orders_step_legally_or_not_at_all(old: str, new: str) -> None:
    if (old, new) in ORDER_STEPS:
        assert step_order(old, new)  # type: ignore[arg-type]
    else:
        with pytest.raises(Broken, match="illegal_step"):
            step_order(old, new)  # type: ignore[arg-type]


@pytest.mark.parametrize(("old", "new"), list(product(PAYOUT_STATES, PAYOUT_STATES)))
def test_payouts_step_legally_or_not_at_all(old: str, new: str) -> None:
    if (old, new) in PAYOUT_STEPS:
        assert step_payout(old, new)  # type: ignore[arg-type]
    else:
        with pytest.raises(Broken, match="illegal_step"):
            step_payout(old, new)  # type: ignore[arg-type]


def test_what_has_ended_stays_ended() -> None:
    assert not {old for old, _ in ORDER_STEPS} & {"settled", "failed"}
    assert not {old for old, _ in PAYOUT_STEPS} & {"settled", "failed"}


def test_what_may_have_left_is_signed_again_only_after_proven_expiry() -> None:
    into_signed = {old for old, new in ORDER_STEPS if new == "signed"}
    assert into_signed == {"planned"}
    assert {old for old, new in ORDER_STEPS if new == "planned"} == set(IN_FLIGHT)


def test_a_contested_order_is_never_signed_or_planned_again() -> None:
    assert {new for old, new in ORDER_STEPS if old == "contested"} == {"settled", "failed"}
