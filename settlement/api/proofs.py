"""Proofs that a record, a position or a balance is under a checkpoint; and whether what is owed is covered."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, Reader, StrictRoute
from settlement.api.published import EXACT, FOREVER, exact
from settlement.api.shapes import EXAMPLE_DIGEST, EXAMPLE_PROVIDER, EXAMPLE_TIME, Cu, Example, Out, window_number
from settlement.core import times
from settlement.core.units import cu_text
from settlement.services import proofs, solvency

router = APIRouter(prefix="/v1", tags=["proofs"], route_class=StrictRoute)

_PROOF: Example = {
    "type": "proof/1",
    "tree": "records",
    "leaf": '{"charge_pico":"789722222432"}',
    "index": 0,
    "size": 1,
    "path": [],
    "checkpoint": {"window": 1, "document": '{"type":"checkpoint/1"}', "signatures": []},
    "anchors": [],
}
_PROVEN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "proof/1, which `settlement proof check` verifies offline.",
        "content": {"application/json": {"schema": {"type": "object"}, "example": _PROOF}},
    }
}

_PUBLISHED = 24
"""How many measurements are listed."""

_MEASURED: Example = {
    "window": "win_2",
    "at": EXAMPLE_TIME,
    "journal_seq": 41,
    "owed": "1000",
    "held": "1000.000001",
    "covered": True,
    "digest": EXAMPLE_DIGEST,
}
_MEASUREMENT: Example = {"type": "solvency/1", "window": 2, "owed": "1000000000", "held": "1000000001", "covered": True}

Window = Annotated[str, Path(max_length=20, examples=["win_1"])]


class MeasuredOut(Out):
    """What was owed and held at the measurement of a window; `digest` is that of its signed document."""

    model_config = ConfigDict(json_schema_extra={"example": _MEASURED})

    window: str
    at: str
    journal_seq: int
    owed: Cu
    held: Cu
    covered: bool
    digest: str


class SolvencyOut(Out):
    """What is owed and what is held by the books, in CU at today's value; `covered`: all could be paid now.

    `published` are the newest measurements of windows, newest first: what the chains themselves showed.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "owed": "1000",
                "held": "1000.000001",
                "covered": True,
                "short": None,
                "published": [_MEASURED],
            }
        }
    )

    owed: Cu
    held: Cu
    covered: bool
    short: str | None
    published: list[MeasuredOut]


@router.get(
    "/usage-records/{provider}/{record}/proof",
    operation_id="getRecordProof",
    summary="The proof of one usage record",
    responses=_PROVEN,
)
async def of_record(
    context: ContextDep,
    provider: Annotated[str, Path(max_length=64, examples=[EXAMPLE_PROVIDER])],
    record: Annotated[str, Path(max_length=64, examples=["019aaa00-0000-7000-8000-000000000000"])],
) -> dict[str, Any]:
    """Leaf, path, checkpoint and anchors of a charged record, once its window has a checkpoint.

    Public: whoever knows a record's id, which can't be guessed, may have its proof.
    """
    return await proofs.record_proof(context, provider, record)


@router.get(
    "/windows/{window}/position/proof",
    operation_id="getPositionProof",
    summary="The proof of my position in a window",
    responses=_PROVEN,
)
async def of_position(context: ContextDep, reader: Reader, window: Window) -> dict[str, Any]:
    """What I spent, earned and am paid for that window, under its checkpoint."""
    return await proofs.position_proof(context, window_number(window), reader.party.id)


@router.get(
    "/windows/{window}/liability/proof",
    operation_id="getLiabilityProof",
    summary="The proof that my balance is counted",
    responses=_PROVEN,
)
async def of_liability(context: ContextDep, reader: Reader, window: Window) -> dict[str, Any]:
    """My balance at the checkpoint, as a leaf of the tree whose sum is everything that the service owes."""
    return await proofs.liability_proof(context, window_number(window), reader.party.id)


@router.get("/solvency", operation_id="getSolvency", summary="Whether what is owed is covered")
async def coverage(context: ContextDep) -> SolvencyOut:
    """By the books, which the worker compares with the chains' own ledgers and halts on a difference."""
    found, measured = await solvency.overview(context, _PUBLISHED)
    return SolvencyOut(
        owed=cu_text(found.owed),
        held=cu_text(found.held),
        covered=found.covered,
        short=found.short,
        published=[
            MeasuredOut(
                window=f"win_{each.window_no}",
                at=times.text(each.at),
                journal_seq=each.journal_seq,
                owed=cu_text(each.owed),
                held=cu_text(each.held),
                covered=each.covered,
                digest=f"sha256:{each.digest.hex()}",
            )
            for each in measured
        ],
    )


@router.get(
    "/solvency/{window}",
    operation_id="getMeasuredSolvency",
    summary="What was owed and held after a window",
    response_class=JSONResponse,
    responses={
        **EXACT,
        200: {**EXACT[200], "content": {"application/json": {"schema": {"type": "object"}, "example": _MEASUREMENT}}},
    },
)
async def measured(context: ContextDep, request: Request, window: Window) -> Response:
    """solvency/1: holdings read from the chains at stated ledgers against every balance. It never changes."""
    return exact(request, await solvency.published(context, window_number(window)), FOREVER)
