"""Disputes over HTTP: consumers open them, providers answer by signature, both read their own."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ContextDep, Reader, SignedDep, StrictRoute, needs
from settlement.api.shapes import (
    EXAMPLE_CONSUMER,
    EXAMPLE_DIGEST,
    EXAMPLE_PROVIDER,
    EXAMPLE_TIME,
    Cu,
    Cursor,
    Example,
    In,
    Limit,
    Out,
    amount_in,
    cursor_number,
    cursor_text,
    window_number,
)
from settlement.core.disputes import MOST_DIGESTS, Cause, Ground, State
from settlement.services import disputes
from settlement.services.authentication import Principal
from settlement.services.disputes import Claim, SignedOffer
from settlement.storage.disputes import Dispute

router = APIRouter(prefix="/v1/disputes", tags=["disputes"], route_class=StrictRoute)

Disputant = Annotated[Principal, Depends(needs("disputes", "consumer"))]
EXAMPLE_DISPUTE = "dsp_01kamk5q0r7v3c9x2m4n6p8q0s"
_RECORD = "019aaa00-0000-7000-8000-000000000000"
_OFFER: Example = {"body": '{"type":"offer/1"}', "signature": "eyJhbGciOiJFZDI1NTE5In0..c2lnbmF0dXJl"}
_DISPUTE: Example = {
    "id": EXAMPLE_DISPUTE,
    "consumer": EXAMPLE_CONSUMER,
    "provider": EXAMPLE_PROVIDER,
    "window": "win_1",
    "record": _RECORD,
    "ground": "count",
    "charged": "0.789722",
    "claimed": "0.468888",
    "evidence": [EXAMPLE_DIGEST],
    "counts": {"input_tokens": 1155, "output_tokens": 0},
    "flags": ["estimated"],
    "state": "open",
    "cause": None,
    "opened_at": EXAMPLE_TIME,
    "answer_by": "2026-11-25T00:00:00Z",
    "answered_at": None,
    "answer": None,
    "rule_by": None,
    "ended_at": None,
    "award": "0",
    "penalty": "0",
    "owed": "0",
}
_ANSWER: Example = {"type": "answer/1", "dispute": EXAMPLE_DISPUTE, "answer": "contest", "evidence": [EXAMPLE_DIGEST]}

DisputeId = Annotated[str, Path(max_length=64, examples=[EXAMPLE_DISPUTE])]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Units = Annotated[int, Field(ge=0, le=10**12)]
Meter = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class SignedOfferIn(In):
    """An offer/1 as its provider gave it to you: the text of the signed bytes, and the detached JWS."""

    body: str = Field(min_length=1, max_length=32_768)
    signature: str = Field(min_length=1, max_length=1024)


class OpenDispute(In):
    """`record` is a usage record's id, `window` a window of which all is meant; one of them. Digests, never texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "provider": EXAMPLE_PROVIDER,
                "record": _RECORD,
                "ground": "count",
                "evidence": [EXAMPLE_DIGEST],
                "counts": {"input_tokens": 1155, "output_tokens": 0},
            }
        }
    )

    provider: str = Field(max_length=64)
    ground: Ground
    record: str | None = Field(None, pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    window: str | None = Field(None, max_length=20)
    amount: Cu | None = Field(None, max_length=40, description="what you want back; left out, all that can be")
    evidence: list[Digest] = Field([], max_length=MOST_DIGESTS)
    counts: dict[Meter, Units] | None = Field(None, max_length=64)
    offer: SignedOfferIn | None = Field(None, json_schema_extra={"examples": [_OFFER]})


class DisputeOut(Out):
    """A dispute as it stands. `owed` is what the provider still has to give of `award` and `penalty`."""

    model_config = ConfigDict(json_schema_extra={"example": _DISPUTE})

    id: str
    consumer: str
    provider: str
    window: str
    record: str | None
    ground: Ground
    charged: Cu
    claimed: Cu
    evidence: list[str]
    counts: dict[str, int] | None
    flags: list[str]
    state: State
    cause: Cause | None
    opened_at: str
    answer_by: str
    answered_at: str | None
    answer: str | None = Field(description="the text of the provider's signed bytes")
    rule_by: str | None
    ended_at: str | None
    award: Cu
    penalty: Cu
    owed: Cu


class DisputePage(Out):
    """Disputes from the newest down."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"data": [_DISPUTE], "has_more": False, "next_cursor": None}}
    )

    data: list[DisputeOut]
    has_more: bool
    next_cursor: str | None


@router.post("", status_code=201, operation_id="openDispute", summary="Dispute a charge")
async def open_dispute(context: ContextDep, disputant: Disputant, document: OpenDispute) -> DisputeOut:
    """About a usage record that charged me, or all that a provider charged me in a window, once.

    It may be decided in the answer already: by the provider's own record, or by an offer that it signed.
    """
    claim = Claim(
        provider=document.provider,
        ground=document.ground,
        record=None if document.record is None else UUID(document.record),
        window=None if document.window is None else window_number(document.window),
        amount=None if document.amount is None else amount_in(document.amount, 6, "/amount"),
        evidence=document.evidence,
        counts=document.counts,
        offer=None if document.offer is None else SignedOffer(document.offer.body.encode(), document.offer.signature),
    )
    return _shown(await disputes.open_dispute(context, disputant.party, claim))


@router.get("", operation_id="listDisputes", summary="My disputes, newest first")
async def listed(context: ContextDep, reader: Reader, limit: Limit = 50, cursor: Cursor = None) -> DisputePage:
    """Those that I have opened, or, for a provider, those about its charges."""
    before = cursor_number("dsp", cursor)
    found = await disputes.page(context, reader.party, before=before, limit=limit + 1)
    shown, more = found[:limit], len(found) > limit
    return DisputePage(
        data=[_shown(each) for each in shown],
        has_more=more,
        next_cursor=cursor_text("dsp", shown[-1].no) if more else None,
    )


@router.get("/{dispute}", operation_id="getDispute", summary="A dispute of mine")
async def one(context: ContextDep, reader: Reader, dispute: DisputeId) -> DisputeOut:
    """Its two sides see it, nobody else; what was decided is in the journal, for everybody who audits."""
    return _shown(await disputes.find(context, reader.party, dispute))


@router.delete("/{dispute}", operation_id="withdrawDispute", summary="Take a dispute back")
async def withdraw(context: ContextDep, disputant: Disputant, dispute: DisputeId) -> DisputeOut:
    """While it has not ended. The charge may be disputed again, in time."""
    return _shown(await disputes.withdraw(context, disputant.party, dispute))


@router.post(
    "/{dispute}/answers",
    operation_id="answerDispute",
    summary="Answer a dispute",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": _ANSWER}},
        }
    },
)
async def answer(context: ContextDep, signed: SignedDep, dispute: DisputeId) -> DisputeOut:
    """`answer/1`, signed by a key of the provider over the exact bytes, `typ` `answer+jws`: accept or contest."""
    return _shown(await disputes.answer(context, signed.body, signed.signature, about=dispute))


def _shown(found: Dispute) -> DisputeOut:
    return DisputeOut.model_validate(disputes.document(found))
