"""Demand: the steps that multiply the charges of busy providers are public."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, StrictRoute
from settlement.api.shapes import EXAMPLE_DIGEST, Example, Out
from settlement.services import demand

router = APIRouter(prefix="/v1/demand", tags=["rates"], route_class=StrictRoute)

_STEP: Example = {
    "number": 2,
    "digest": EXAMPLE_DIGEST,
    "document": '{"type":"demand/1"}',
    "signatures": [{"protected": "eyJhbGciOiJFZDI1NTE5In0", "signature": "c2lnbmF0dXJl"}],
}


class StepOut(Out):
    """A step: `document` is its canonical text, a `demand/1`."""

    model_config = ConfigDict(json_schema_extra={"example": _STEP})

    number: int
    digest: str
    document: str
    signatures: list[dict[str, str]]


class StepsOut(Out):
    """The newest steps, the last one first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_STEP]}})

    data: list[StepOut]


@router.get("", operation_id="listDemand", summary="What multiplies the charges of busy providers")
async def listed(context: ContextDep, limit: Annotated[int, Query(ge=1, le=100, examples=[2])] = 2) -> StepsOut:
    """The one in force is among the last two; none where the policy has no curve."""
    return StepsOut(data=[StepOut(**demand.document(each)) for each in await demand.newest(context, limit)])
