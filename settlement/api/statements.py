"""Statements: everything that a party needs to recompute its own window alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response

from settlement.api.dependencies import ContextDep, Reader, StrictRoute
from settlement.api.shapes import EXAMPLE_CONSUMER, EXAMPLE_TIME, Example, window_number
from settlement.services import statements

router = APIRouter(prefix="/v1/statements", tags=["proofs"], route_class=StrictRoute)

_EXAMPLE: Example = {
    "type": "statement/1",
    "party": EXAMPLE_CONSUMER,
    "party_kind": "consumer",
    "window": 1,
    "opened_at": EXAMPLE_TIME,
    "closed_at": "2026-11-23T00:00:00Z",
    "records": [],
    "pairs": [],
}
_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "statement/1, or its records as CSV.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE},
            "text/csv": {"schema": {"type": "string"}, "example": "record,at,provider,consumer\r\n"},
        },
    }
}


@router.get(
    "/{window}",
    operation_id="getStatement",
    summary="My statement of a window",
    response_class=Response,
    responses=_ANSWERED,
)
async def mine(
    context: ContextDep,
    reader: Reader,
    window: Annotated[str, Path(max_length=20, examples=["win_1"])],
    form: Annotated[
        Literal["json", "csv"], Query(alias="format", description="`csv` gives the records alone")
    ] = "json",
) -> Response:
    """Records with their exact charges, what each counterparty owes and carries, balances, position and payouts.

    With the rate tables that it names; `settlement.client.statements` recomputes every figure of it.
    """
    found = await statements.statement(context, reader.party.id, window_number(window))
    if form == "csv":
        return Response(statements.as_csv(found), media_type="text/csv; charset=utf-8")
    return Response(msgspec.json.encode(found), media_type="application/json")
