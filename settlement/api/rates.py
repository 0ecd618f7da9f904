"""Rate tables and the meters they know."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response

from settlement.api.dependencies import ContextDep, StrictRoute
from settlement.api.published import ASK_AGAIN, EXACT, FOREVER, exact, has_it
from settlement.api.shapes import EXAMPLE_DIGEST, EXAMPLE_TIME, number
from settlement.services import reading

router = APIRouter(prefix="/v1", tags=["rates"], route_class=StrictRoute)

_METERS = {"rates": 2, "meters": {"cache_read_tokens": {"parent": "input_tokens", "unit": "token"}}}
_RATES = {
    "type": "rates/1",
    "version": 2,
    "parent": EXAMPLE_DIGEST,
    "effective_from": EXAMPLE_TIME,
    "base": {"usd_per_cu": "0.0045"},
    "sources": [],
    "meters": _METERS["meters"],
    "models": {},
    "aliases": {},
}


def _described(example: object) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {**EXACT, 200: {**EXACT[200], "content": content}}


@router.get(
    "/meters",
    operation_id="listMeters",
    summary="What can be counted",
    response_class=JSONResponse,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}, "example": _METERS}}}},
)
async def meters(context: ContextDep, request: Request) -> Response:
    """The meters of the rate table in force: each with its unit, and the meter whose total includes it."""
    found = await reading.rates(context, None)
    headers = {"ETag": f'"meters:{found.digest.hex()}"', "Cache-Control": ASK_AGAIN}
    if has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    document = json.loads(found.document)
    return JSONResponse({"rates": document["version"], "meters": document["meters"]}, headers=headers)


@router.get(
    "/rate-tables/current",
    operation_id="getCurrentRates",
    summary="The rate table in force",
    response_class=JSONResponse,
    responses=_described(_RATES),
)
async def current(context: ContextDep, request: Request) -> Response:
    """rates/1: microCU per million units, by model and meter."""
    return exact(request, await reading.rates(context, None), ASK_AGAIN)


@router.get(
    "/rate-tables/{version}",
    operation_id="getRates",
    summary="A rate table by version",
    response_class=JSONResponse,
    responses=_described(_RATES),
)
async def by_version(
    context: ContextDep, request: Request, version: Annotated[str, Path(max_length=20, examples=["2"])]
) -> Response:
    """rates/1. A version never changes."""
    wanted = number(version, "unknown_rate_table", "rate table")
    return exact(request, await reading.rates(context, wanted), FOREVER)
