"""Usage reports: the hot route. The body is never parsed by the framework; the use case reads the signed bytes."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response

from settlement.api.dependencies import ContextDep, ProviderReader, SignedDep, StrictRoute
from settlement.api.hot import Arriving, HotRoute, Reply, as_described
from settlement.api.shapes import EXAMPLE_CONSUMER, EXAMPLE_DIGEST, EXAMPLE_PROVIDER, EXAMPLE_TIME, Example
from settlement.core.errors import Unauthenticated
from settlement.core.usage import MAX_FLAGS, MAX_RECORDS
from settlement.services import metering

router = APIRouter(tags=["providers"], route_class=StrictRoute)

_RECORD: Example = {
    "id": "019aaa00-0000-7000-8000-000000000000",
    "at": EXAMPLE_TIME,
    "consumer": EXAMPLE_CONSUMER,
    "model": "gpt-5",
    "operation": "chat",
    "tier": "standard",
    "outcome": "completed",
    "meters": {"input_tokens": 1155, "output_tokens": 211},
}
_REPORT: Example = {
    "v": 1,
    "provider": EXAMPLE_PROVIDER,
    "report": "2026-11-22-000001",
    "seq": 1,
    "prev": None,
    "records": [_RECORD],
}
_ANSWER: Example = {
    "id": "rep_01kamk5q0r7v3c9x2m4n6p8q0s",
    "report": "2026-11-22-000001",
    "seq": 1,
    "digest": EXAMPLE_DIGEST,
    "window": "win_1",
    "received_at": EXAMPLE_TIME,
    "accepted": 1,
    "refused": [],
    "total": "0.789722",
    "receipt": "eyJhbGciOiJFZDI1NTE5In0.e30.c2lnbmF0dXJl",
}
_NAMED = {"type": "string", "pattern": "^[A-Za-z0-9._:/@+-]{1,128}$"}
_DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_RECORD_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": list(_RECORD),
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "at": {"type": "string", "format": "date-time"},
        "consumer": _NAMED,
        "model": _NAMED,
        "operation": _NAMED,
        "tier": _NAMED,
        "outcome": {"enum": ["completed", "truncated", "cancelled", "errored"]},
        "meters": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 10**12}},
        "hold": _NAMED,
        "upstream_id": _NAMED,
        "rates": _NAMED,
        "evidence": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"request": _DIGEST, "response": _DIGEST},
        },
        "flags": {"type": "array", "minItems": 1, "maxItems": MAX_FLAGS, "uniqueItems": True, "items": _NAMED},
    },
}
_REPORT_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": list(_REPORT),
    "properties": {
        "v": {"const": 1},
        "provider": {"type": "string", "pattern": "^prv_[0-7][0-9a-hjkmnp-tv-z]{25}$"},
        "report": _NAMED,
        "seq": {"type": "integer", "minimum": 1, "maximum": 2**53 - 1},
        "prev": {"anyOf": [_DIGEST, {"type": "null"}]},
        "records": {"type": "array", "minItems": 1, "maxItems": MAX_RECORDS, "items": _RECORD_SCHEMA},
    },
}
_REFUSED_SCHEMA = {
    "type": "object",
    "properties": {
        "line": {"type": "integer"},
        "pointer": {"type": "string"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
}
_ANSWER_SCHEMA = {
    "type": "object",
    "required": list(_ANSWER),
    "properties": {
        **{
            name: {"type": "string"} for name in ("id", "report", "digest", "window", "received_at", "total", "receipt")
        },
        "seq": {"type": "integer"},
        "accepted": {"type": "integer"},
        "refused": {"type": "array", "items": _REFUSED_SCHEMA},
    },
}
_ANSWERED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "Charged, journalled and receipted; a replay has the header Idempotency-Replayed: true.",
        "content": {"application/json": {"schema": _ANSWER_SCHEMA, "example": _ANSWER}},
    }
}


@router.post(
    "/v1/usage-reports",
    status_code=201,
    operation_id="submitUsageReport",
    summary="Submit a signed usage report",
    response_class=Response,
    responses=_ANSWERED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _REPORT_SCHEMA, "example": _REPORT}},
        }
    },
)
async def submit(context: ContextDep, request: Request, _: SignedDep) -> Response:
    """Charges 1 to 10,000 records (`usage/1`), signed by the provider over the exact body bytes.

    The answer is given after the commit. Sending the same bytes again gives the same answer. A record that can't be
    charged is listed in `refused` and the rest of the report stands.
    """
    return await as_described(context, request, receive)


async def receive(arriving: Arriving) -> Reply:
    """The signed bytes of a report, and its receipt after the commit."""
    signatures = arriving.values(b"x-jws-signature")
    if len(signatures) > 1:
        raise Unauthenticated("signature_malformed", "send the header x-jws-signature once")
    body = await arriving.body()
    answer = await metering.submit(arriving.context, body=body, signature="".join(signatures))
    return Reply(msgspec.json.encode(answer.document), 201, answer.replayed)


hot = HotRoute(re.compile("/v1/usage-reports"), receive)
"""The route above is what the OpenAPI document describes."""


@router.get(
    "/v1/receipts/{report:path}",
    operation_id="getReceipt",
    summary="The answer to an earlier report",
    response_class=Response,
    responses={200: {"description": "As it was given.", "content": _ANSWERED[201]["content"]}},
)
async def receipt(
    context: ContextDep,
    reader: ProviderReader,
    report: Annotated[str, Path(pattern=r"^[A-Za-z0-9._:/@+-]{1,128}$", description="the provider's own report id")],
) -> Response:
    """The stored answer to a report of mine, with its signed receipt."""
    document = await metering.receipt(context, reader.party, report)
    return Response(msgspec.json.encode(document), media_type="application/json")
