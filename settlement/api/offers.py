"""Offers: what a provider asks for its models, signed by it, and public."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, SignedDep, StrictRoute
from settlement.api.shapes import EXAMPLE_DIGEST, EXAMPLE_KID, EXAMPLE_PROVIDER, EXAMPLE_TIME, Example, Out
from settlement.core import times
from settlement.services import offers
from settlement.storage.offers import StoredOffer

router = APIRouter(prefix="/v1/providers", tags=["providers"], route_class=StrictRoute)

_DOCUMENT: Example = {
    "type": "offer/1",
    "provider": EXAMPLE_PROVIDER,
    "version": 1,
    "parent": None,
    "effective_from": "2026-11-22T01:00:00Z",
    "usual": "1",
    "asks": [{"model": "gpt-5", "multiplier": "0.95"}, {"model": "gpt-5", "tier": "batch", "multiplier": "0.5"}],
}
_EXAMPLE: Example = {
    "version": 1,
    "digest": EXAMPLE_DIGEST,
    "effective_from": "2026-11-22T01:00:00Z",
    "received_at": EXAMPLE_TIME,
    "kid": EXAMPLE_KID,
    "signature": "eyJhbGciOiJFZDI1NTE5In0..c2lnbmF0dXJl",
    "document": '{"type":"offer/1"}',
}


class OfferOut(Out):
    """An offer as it came: `document` is the text of the signed bytes."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    version: int
    digest: str
    effective_from: str
    received_at: str
    kid: str
    signature: str
    document: str


class OffersOut(Out):
    """Every offer of a provider, oldest first. Before the first one it asks par."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_EXAMPLE]}})

    data: list[OfferOut]


@router.put(
    "/me/offers",
    operation_id="setOffer",
    summary="What I ask for my models",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": _DOCUMENT}},
        }
    },
)
async def publish(context: ContextDep, signed: SignedDep) -> OfferOut:
    """Takes in the next version of my offer (`offer/1`), signed over the exact bytes. Sending them again is no error.

    It holds from its `effective_from`, after the policy's notice, for records made from then on.
    """
    stored, _ = await offers.publish(context, signed.body, signed.signature)
    return _out(stored)


@router.get("/{provider}/offers", operation_id="listOffers", summary="What a provider asks")
async def listed(context: ContextDep, provider: str) -> OffersOut:
    """All versions of a provider's offer, with the signatures by which they can be checked."""
    return OffersOut(data=[_out(stored) for stored in await offers.of_provider(context, provider)])


def _out(stored: StoredOffer) -> OfferOut:
    return OfferOut(
        version=stored.version,
        digest=f"sha256:{stored.digest.hex()}",
        effective_from=times.text(stored.effective_from),
        received_at=times.text(stored.received_at),
        kid=stored.kid,
        signature=stored.signature,
        document=stored.body.decode(),
    )
