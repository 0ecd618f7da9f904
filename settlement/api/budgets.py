"""Budgets of spending keys: nested limits by request, day and month."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ConsumerReader, ContextDep, StrictRoute, needs
from settlement.api.shapes import Cu, Example, In, Out, amount_in
from settlement.core.units import cu_text
from settlement.services import budgets, participants
from settlement.services.authentication import Principal
from settlement.services.budgets import BudgetView
from settlement.storage.budgets import Limits

router = APIRouter(prefix="/v1/budgets", tags=["keys"], route_class=StrictRoute)

_EXAMPLE_ID = "bud_01kamk5q0r2c4e6g8j0m2p4r6t"
_LIMITS: Example = {
    "name": "research",
    "per_request": "5",
    "per_day": "100",
    "per_month": "2000",
    "models": ["gpt-5"],
    "providers": ["prv_01kamk5q0r5t7v9x1z3b5d7f9h"],
    "alert_at": [50, 80, 100],
}
_OUT: Example = {**_LIMITS, "id": _EXAMPLE_ID, "parent": _EXAMPLE_ID, "used_today": "1.5", "used_this_month": "20"}
_OUT |= {"alert_today": 0, "alert_this_month": 50}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@+-]{1,128}$")]
Label = Annotated[str, Field(min_length=1, max_length=256, description="1 to 128 printable characters")]
Percent = Annotated[int, Field(ge=1, le=100)]
_administers = needs("api-keys", "consumer")
Administrator = Annotated[Principal, Depends(_administers)]
BudgetId = Annotated[str, Path(max_length=64, examples=[_EXAMPLE_ID])]


class BudgetLimits(In):
    """What holds under this budget may take; what is left out is not limited."""

    model_config = ConfigDict(json_schema_extra={"example": _LIMITS})

    name: Label
    per_request: Cu | None = None
    per_day: Cu | None = None
    per_month: Cu | None = None
    models: list[Name] | None = Field(default=None, max_length=1_000)
    providers: list[Name] | None = Field(default=None, max_length=1_000)
    alert_at: list[Percent] = Field(default=[], max_length=10)

    def limits(self) -> Limits:
        """The limits in microCU. Raises Malformed ``amount_malformed`` and ``name_malformed``."""
        per_request, per_day, per_month = map(self._micro, ("per_request", "per_day", "per_month"))
        name, alert_at = participants.clean_name(self.name), sorted(set(self.alert_at))
        return Limits(name, per_request, per_day, per_month, self.models, self.providers, alert_at)

    def _micro(self, member: str) -> int | None:
        text: str | None = getattr(self, member)
        return None if text is None else amount_in(text, 6, f"/{member}")


class CreateBudget(BudgetLimits):
    """A budget, and the one that it is below."""

    model_config = ConfigDict(json_schema_extra={"example": {**_LIMITS, "parent": _EXAMPLE_ID}})

    parent: str | None = Field(default=None, max_length=64)


class BudgetOut(Out):
    """A budget with what counts in it now: open holds with their amount, captured ones with what was taken."""

    model_config = ConfigDict(json_schema_extra={"example": _OUT})

    id: str
    parent: str | None
    name: str
    per_request: Cu | None
    per_day: Cu | None
    per_month: Cu | None
    models: list[str] | None
    providers: list[str] | None
    alert_at: list[int]
    used_today: Cu
    used_this_month: Cu
    alert_today: int
    alert_this_month: int


class BudgetsOut(Out):
    """All budgets of a consumer, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_OUT], "has_more": False}})

    data: list[BudgetOut]
    has_more: bool = False
    next_cursor: None = None


@router.post("", status_code=201, operation_id="createBudget", summary="Make a budget")
async def create(context: ContextDep, owner: Administrator, document: CreateBudget) -> BudgetOut:
    """For spending keys: `POST /v1/api-keys` names it in `budget`."""
    return _out(await budgets.create(context, owner.party, document.limits(), document.parent))


@router.put("/{budget_id}", operation_id="changeBudget", summary="Replace a budget's limits")
async def change(context: ContextDep, owner: Administrator, budget_id: BudgetId, document: BudgetLimits) -> BudgetOut:
    """For holds from now on. A limit below what is used refuses new holds and takes nothing back."""
    return _out(await budgets.change(context, owner.party, budget_id, document.limits()))


@router.get("", operation_id="listBudgets", summary="My budgets")
async def listed(context: ContextDep, reader: ConsumerReader) -> BudgetsOut:
    """Every budget with what counts in it today and this month (UTC)."""
    return BudgetsOut(data=[_out(view) for view in await budgets.listed(context, reader.party)])


def _out(view: BudgetView) -> BudgetOut:
    budget = view.budget
    amounts = (budget.per_request, budget.per_day, budget.per_month)
    texts = [None if amount is None else cu_text(amount) for amount in amounts]
    return BudgetOut(
        id=budget.id,
        parent=view.parent,
        name=budget.name,
        per_request=texts[0],
        per_day=texts[1],
        per_month=texts[2],
        models=None if budget.models is None else list(budget.models),
        providers=None if budget.providers is None else list(budget.providers),
        alert_at=list(budget.alert_at),
        used_today=cu_text(view.day.used),
        used_this_month=cu_text(view.month.used),
        alert_today=view.day.alerted,
        alert_this_month=view.month.alerted,
    )
