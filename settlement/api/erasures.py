"""Being forgotten: a consumer's own wish, or the operator's hand for one that wrote a letter."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ContextDep, SignedDep, StrictRoute
from settlement.api.shapes import EXAMPLE_CONSUMER, EXAMPLE_TIME, In, Out, Time
from settlement.core import times
from settlement.services import participants
from settlement.services.participants import SignedRequest

router = APIRouter(prefix="/v1", tags=["consumers"], route_class=StrictRoute)

Reason = Annotated[
    str,
    Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$", description="what was asked; kept for good"),
]


class AskErasure(In):
    """Signed by a key of the account, or by the service's own key; a `typ` is erasure+jws."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "purpose": "erase-account",
                "at": EXAMPLE_TIME,
                "account": EXAMPLE_CONSUMER,
                "reason": "Article 17, asked by the account's owner",
            }
        }
    )

    purpose: Literal["erase-account"]
    at: Time
    account: str = Field(max_length=64)
    reason: Reason


class ErasureOut(Out):
    """When it was first asked. The name is gone now, each salt as soon as the policy's time for its window is over."""

    model_config = ConfigDict(json_schema_extra={"example": {"account": EXAMPLE_CONSUMER, "asked_at": EXAMPLE_TIME}})

    account: str
    asked_at: str


@router.post("/erasures", status_code=201, operation_id="askErasure", summary="Be forgotten")
async def ask(context: ContextDep, signed: SignedDep, document: AskErasure) -> ErasureOut:
    """Replaces the account's name at once, and deletes the salts of its records as the policy says. For good.

    Bills, balances and signatures stay: they are evidence of money. Asking again changes nothing.
    """
    request = SignedRequest(signed.body, signed.signature, document.at)
    at = await participants.ask_erasure(context, request, account=document.account, reason=document.reason)
    return ErasureOut(account=document.account, asked_at=times.text(at))
