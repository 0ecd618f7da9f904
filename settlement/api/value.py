"""The index of a CU's value: observations come in signed, fixings are public."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, SignedDep, StrictRoute
from settlement.api.shapes import EXAMPLE_DIGEST, EXAMPLE_TIME, Example, Out
from settlement.core import times
from settlement.services import fixings

router = APIRouter(prefix="/v1", tags=["value"], route_class=StrictRoute)

_OBSERVATION: Example = {"type": "observation/1", "source": "venue-a", "at": EXAMPLE_TIME, "usd": {"XRP": "2.88"}}
_FIXING: Example = {
    "number": 1,
    "at": EXAMPLE_TIME,
    "digest": EXAMPLE_DIGEST,
    "document": '{"type":"fixing/1"}',
    "signatures": [{"protected": "eyJhbGciOiJFZDI1NTE5In0", "signature": "c2lnbmF0dXJl"}],
}


class ObservationOut(Out):
    """An observation that was kept."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"source": "venue-a", "at": EXAMPLE_TIME, "digest": EXAMPLE_DIGEST}}
    )

    source: str
    at: str
    digest: str


class FixingOut(Out):
    """A fixing: `document` is its canonical text."""

    model_config = ConfigDict(json_schema_extra={"example": _FIXING})

    number: int
    at: str
    digest: str
    document: str
    signatures: list[dict[str, str]]


class FixingsOut(Out):
    """All fixings, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_FIXING]}})

    data: list[FixingOut]


@router.post(
    "/observations",
    status_code=201,
    operation_id="observePrices",
    summary="What things cost, by a source that policy names",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": _OBSERVATION}},
        }
    },
)
async def observe(context: ContextDep, signed: SignedDep) -> ObservationOut:
    """Keeps an `observation/1`, signed over the exact bytes by the key that the policy names for its source."""
    kept = await fixings.observe(context, signed.body, signed.signature)
    return ObservationOut(source=kept.source, at=times.text(kept.at), digest=f"sha256:{kept.digest.hex()}")


@router.get("/fixings", operation_id="listFixings", summary="How the index was fixed")
async def listed(context: ContextDep) -> FixingsOut:
    """Every fixing with its signatures. In mode `index` the newest one converts; else it runs beside the books."""
    return FixingsOut(
        data=[
            FixingOut(
                number=each.number,
                at=times.text(each.at),
                digest=f"sha256:{each.digest.hex()}",
                document=each.document.decode(),
                signatures=list(each.signatures),
            )
            for each in await fixings.every(context)
        ]
    )
