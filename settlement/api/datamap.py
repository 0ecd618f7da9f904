"""What is kept about whom, as this release says it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from settlement.api.dependencies import StrictRoute
from settlement.api.published import ASK_AGAIN, EXACT, exact
from settlement.core import canonical, datamap
from settlement.storage.pages import Published

router = APIRouter(prefix="/v1", tags=["rates"], route_class=StrictRoute)

_EXAMPLE = {"type": "data-map/1", "entries": []}
_DESCRIBED: dict[int | str, dict[str, Any]] = {
    **EXACT,
    200: {**EXACT[200], "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}}},
}


@router.get(
    "/data-map",
    operation_id="getDataMap",
    summary="What is kept, about whom, why, and how long",
    response_class=JSONResponse,
    responses=_DESCRIBED,
)
async def data_map(request: Request) -> Response:
    """data-map/1. The policy's section `retention` names the digest that was agreed on; it carries no signature."""
    found = Published(canonical.digest_raw(datamap.digest()), datamap.document(), ())
    return exact(request, found, ASK_AGAIN)
