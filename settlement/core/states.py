"""The life of a chain order and of a payout: every legal step, with its reason. Any other step is Broken.

*Unknown* is a state, not an error: a timeout, a refusal or silence after a submission says nothing. An order leaves
``signed``, ``submitted`` and ``unknown`` only by what a final ledger says (CHAINS 0, 5.1; RELIABILITY 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from settlement.core.errors import Broken

OrderState = Literal["planned", "signed", "submitted", "unknown", "settled", "failed", "contested"]
PayoutState = Literal["planned", "ordered", "settled", "failed"]
PayoutKind = Literal["earnings", "withdrawal", "refund"]
"""Whose money leaves: a provider's earnings, a consumer's balance, a deposit that goes back to its sender."""

ORDER_STATES: tuple[OrderState, ...] = ("planned", "signed", "submitted", "unknown", "settled", "failed", "contested")
PAYOUT_STATES: tuple[PayoutState, ...] = ("planned", "ordered", "settled", "failed")

IN_FLIGHT: tuple[OrderState, ...] = ("signed", "submitted", "unknown")
"""Bytes of these orders may have left, so each of them is looked up; after a restart ``signed`` is no better."""

ORDER_STEPS: Mapping[tuple[OrderState, OrderState], str] = {
    ("planned", "signed"): "an attempt was signed and is on record; not a byte of it has left yet",
    (
        "planned",
        "failed",
    ): "it can't be built because of one transfer, or its chain is given up; nothing of it can land",
    ("signed", "submitted"): "the node took the bytes, which is a hint and no outcome",
    ("signed", "unknown"): "no answer, or a refusal: the bytes may have left all the same",
    ("signed", "settled"): "found in a final ledger; the process had stopped before it noted the submission",
    ("signed", "failed"): "found as failed in a final ledger; the process had stopped before it noted the submission",
    ("signed", "planned"): "every attempt is proven expired; the slot stays",
    ("signed", "contested"): "its slot was used by something that isn't on record",
    ("submitted", "settled"): "found in a final ledger",
    ("submitted", "failed"): "found as failed in a final ledger",
    ("submitted", "planned"): "every attempt is proven expired; the slot stays",
    ("submitted", "contested"): "its slot was used by something that isn't on record",
    ("unknown", "submitted"): "the same bytes were handed over again and taken",
    ("unknown", "settled"): "found in a final ledger",
    ("unknown", "failed"): "found as failed in a final ledger",
    ("unknown", "planned"): "every attempt is proven expired; the slot stays",
    ("unknown", "contested"): "its slot was used by something that isn't on record",
    ("contested", "settled"): "a person had it looked up again, and one of its attempts is in a final ledger after all",
    ("contested", "failed"): "a person had it looked up again: the slot went to a stranger, nothing of it can land",
}

PAYOUT_STEPS: Mapping[tuple[PayoutState, PayoutState], str] = {
    ("planned", "ordered"): "it is one transfer of a chain order",
    ("ordered", "planned"): "its order failed without its fault; it gets a new order",
    ("ordered", "settled"): "its whole amount was delivered in a final ledger",
    ("ordered", "failed"): "it is at fault, or its chain is given up; the money goes back to where it came from",
}


def step_order(old: OrderState, new: OrderState) -> str:
    """Why an order may go from `old` to `new`. Raises Broken ``illegal_step``."""
    reason = ORDER_STEPS.get((old, new))
    if reason is None:
        raise Broken("illegal_step", f"a chain order can't go from {old} to {new}")
    return reason


def step_payout(old: PayoutState, new: PayoutState) -> str:
    """Why a payout may go from `old` to `new`. Raises Broken ``illegal_step``."""
    reason = PAYOUT_STEPS.get((old, new))
    if reason is None:
        raise Broken("illegal_step", f"a payout can't go from {old} to {new}")
    return reason
