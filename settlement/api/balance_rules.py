"""Balance rules: be told when little is left, and be asked for a payment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ConsumerReader, ContextDep, StrictRoute
from settlement.api.funding import CreateIntent, Funder, units_of
from settlement.api.shapes import EXAMPLE_TIME, Amount, Cu, Example, In, Out, amount_in, chain_amount
from settlement.core import times
from settlement.core.units import cu_text
from settlement.services import balance_rules
from settlement.services.context import Context
from settlement.storage.balance_rules import BalanceRule

router = APIRouter(prefix="/v1/balance-rules", tags=["consumers"], route_class=StrictRoute)

_ID = "rul_01kamk5q0r2c4e6g8j0m2p4r6t"
_ABOVE_ZERO = "a balance rule watches an amount above zero"
_TOP_UP: Example = {"chain": "simulated", "asset": "USD:sim1issuer", "amount": "25"}
_RULE: Example = {
    "id": _ID,
    "below": "1000",
    "top_up": _TOP_UP,
    "state": "fired",
    "times": 1,
    "fired_at": EXAMPLE_TIME,
    "intent": "fnd_01kamk5q0r1b3d5f7h9k1n3q5s",
    "created_at": EXAMPLE_TIME,
}


class TopUp(In):
    """The payment that is asked for when the rule fires."""

    model_config = ConfigDict(json_schema_extra={"example": _TOP_UP})

    chain: str = Field(max_length=32)
    asset: str = Field(max_length=128, description="`CODE` or `CODE:issuer`")
    amount: Amount = Field(max_length=40)


class CreateBalanceRule(In):
    """`below` is what is available, in CU."""

    model_config = ConfigDict(json_schema_extra={"example": {"below": "1000", "top_up": _TOP_UP}})

    below: Cu = Field(max_length=40)
    top_up: TopUp | None = None


class TopUpOut(Out):
    """The payment that is asked for."""

    chain: str
    asset: str
    amount: Amount


class BalanceRuleOut(Out):
    """A rule. `armed` until less than `below` is available, then `fired` until a tenth more than it is; `intent` is
    what was asked for the last time."""

    model_config = ConfigDict(json_schema_extra={"example": _RULE})

    id: str
    below: Cu
    top_up: TopUpOut | None
    state: str
    times: int
    fired_at: str | None
    intent: str | None
    created_at: str


class BalanceRulesOut(Out):
    """All balance rules of an account, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_RULE], "has_more": False}})

    data: list[BalanceRuleOut]
    has_more: bool = False
    next_cursor: None = None


@router.post("", status_code=201, operation_id="createBalanceRule", summary="Be told when little is left")
async def create(context: ContextDep, funder: Funder, document: CreateBalanceRule) -> BalanceRuleOut:
    """A webhook event `balance.low` when less than `below` is available, once until it has recovered. With `top_up`
    also `topup.requested`, with a fresh funding intent; paying it is yours."""
    below, wanted = amount_in(document.below, 6, "/below", above_zero=_ABOVE_ZERO), document.top_up
    if wanted is None:
        return _out(context, await balance_rules.create(context, funder.party, below))
    units = units_of(
        context, CreateIntent(chain=wanted.chain, asset=wanted.asset, amount=wanted.amount), "/top_up/amount"
    )
    made = await balance_rules.create(
        context, funder.party, below, chain=wanted.chain, asset=wanted.asset, amount=units
    )
    return _out(context, made)


@router.get("", operation_id="listBalanceRules", summary="My balance rules")
async def listed(context: ContextDep, reader: ConsumerReader) -> BalanceRulesOut:
    """Every rule with its state."""
    found = await balance_rules.listed(context, reader.party)
    return BalanceRulesOut(data=[_out(context, each) for each in found])


@router.delete("/{rule_id}", status_code=204, operation_id="removeBalanceRule", summary="Remove a balance rule")
async def remove(
    context: ContextDep, funder: Funder, rule_id: Annotated[str, Path(max_length=64, examples=[_ID])]
) -> None:
    """It is not watched any more. A funding intent that it asked for stays good."""
    await balance_rules.remove(context, funder.party, rule_id)


def _out(context: Context, rule: BalanceRule) -> BalanceRuleOut:
    wanted = None
    if rule.chain is not None and rule.asset is not None and rule.amount is not None:
        amount = chain_amount(context, rule.chain, rule.asset, rule.amount)
        wanted = TopUpOut(chain=rule.chain, asset=rule.asset, amount=amount)
    return BalanceRuleOut(
        id=rule.id,
        below=cu_text(rule.below),
        top_up=wanted,
        state="fired" if rule.fired else "armed",
        times=rule.times,
        fired_at=None if rule.fired_at is None else times.text(rule.fired_at),
        intent=rule.intent_id,
        created_at=times.text(rule.created_at),
    )
