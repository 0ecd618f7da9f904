"""Surcharges: what a consumer was noticed of and charged for reserving without using."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict

from settlement.api.dependencies import ConsumerReader, ContextDep, StrictRoute
from settlement.api.shapes import EXAMPLE_TIME, Example, Out
from settlement.services import surcharges

router = APIRouter(prefix="/v1/accounts/me/surcharges", tags=["consumers"], route_class=StrictRoute)

_NOTICE: Example = {
    "journal_seq": 81,
    "at": "2026-11-23T02:00:00Z",
    "day": EXAMPLE_TIME,
    "holds": 4000,
    "unused": 3100,
    "due": "1100000",
    "since": "2026-11-25T00:00:00Z",
    "until": "2026-12-25T00:00:00Z",
    "amount": None,
}


class SurchargeOut(Out):
    """A day above what is free. `due` is microCU: a notice says what it would have cost, and which days will be charged
    (`since`, `until`); a charge says what it took, `amount`."""

    model_config = ConfigDict(json_schema_extra={"example": _NOTICE})

    journal_seq: int
    at: str
    day: str
    holds: int
    unused: int
    due: str
    since: str | None = None
    until: str | None = None
    amount: str | None = None


class SurchargesOut(Out):
    """All of them, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_NOTICE]}})

    data: list[SurchargeOut]


@router.get("", operation_id="listSurcharges", summary="My notices and surcharges")
async def listed(context: ContextDep, reader: ConsumerReader) -> SurchargesOut:
    """Of days on which too many holds ended unused."""
    found = await surcharges.of_consumer(context, reader.party.id)
    return SurchargesOut(data=[SurchargeOut(**surcharges.document(each)) for each in found])
