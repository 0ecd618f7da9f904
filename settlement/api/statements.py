"""Statements: everything that a party needs to recompute its own window alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse

from settlement.api.dependencies import ContextDep, Reader, StrictRoute
from settlement.api.shapes import EXAMPLE_CONSUMER, EXAMPLE_TIME, Example, window_number
from settlement.services import statements
from settlement.services.forms import FORMS, Name

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
        "description": "statement/1, its records as CSV or FOCUS, or a page to print.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE},
            "text/html": {"schema": {"type": "string"}, "example": "<!doctype html>"},
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
        Name,
        Query(alias="format", description="`csv` has the records alone, FOCUS is CSV as well, `html` is fit to print"),
    ] = "json",
) -> Response:
    """Records with their exact charges, what each counterparty owes and carries, balances, position and payouts.

    With the rate tables that it names; `settlement.client.statements` recomputes every figure of it.
    """
    number = window_number(window)

    async def written() -> AsyncIterator[bytes]:
        async with statements.opened(context, reader.party.id, number) as found:
            async for piece in FORMS[form].pieces(found):
                yield piece

    pieces = written()
    first = await anext(pieces)  # what is refused is refused before a byte of the answer leaves

    async def sent() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(sent(), media_type=FORMS[form].media)
