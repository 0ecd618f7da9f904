"""Checkpoints: the signed document of a window, whose digest is anchored on chain."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response

from settlement.api.dependencies import ContextDep, StrictRoute
from settlement.api.published import EXACT, FOREVER, exact
from settlement.api.shapes import EXAMPLE_DIGEST, EXAMPLE_TIME, number
from settlement.services import proofs, reading

router = APIRouter(prefix="/v1/checkpoints", tags=["windows"], route_class=StrictRoute)

_EXAMPLE = {
    "type": "checkpoint/1",
    "window": 2,
    "opened_at": EXAMPLE_TIME,
    "closed_at": "2026-11-22T01:00:00Z",
    "previous": EXAMPLE_DIGEST,
    "policy": EXAMPLE_DIGEST,
}


@router.get(
    "/{n}",
    operation_id="getCheckpoint",
    summary="A checkpoint",
    response_class=JSONResponse,
    responses={
        **EXACT,
        200: {**EXACT[200], "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}}},
    },
)
async def by_number(
    context: ContextDep, request: Request, n: Annotated[str, Path(max_length=20, examples=["2"])]
) -> Response:
    """checkpoint/1 of window n. It never changes; the SHA-256 of its bytes is what the chain carries."""
    found = await reading.checkpoint(context, number(n, "unknown_checkpoint", "checkpoint"))
    return exact(request, found, FOREVER)


@router.get(
    "/{n}/consistency/{later}",
    operation_id="getConsistencyProof",
    summary="The proof that records were only added",
    responses={
        200: {
            "description": "consistency/1, which `settlement proof check` verifies offline.",
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {"type": "consistency/1", "first": {"window": 1}, "later": {"window": 2}, "path": []},
                }
            },
        }
    },
)
async def consistency(
    context: ContextDep,
    n: Annotated[str, Path(max_length=20, examples=["1"])],
    later: Annotated[str, Path(max_length=20, examples=["2"])],
) -> dict[str, Any]:
    """That every record under checkpoint n is, unchanged and in its place, under the later checkpoint."""
    first = number(n, "unknown_checkpoint", "checkpoint")
    return await proofs.consistency_proof(context, first, number(later, "unknown_checkpoint", "checkpoint"))
