"""Quotes: what a call is expected to cost, before it is made."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Security
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import ConfigDict, Field

from settlement.api.dependencies import BEARER, ContextDep, StrictRoute, count
from settlement.api.shapes import Cu, Example, In, Out
from settlement.core import multipliers
from settlement.core.errors import Malformed, Problem, Unauthenticated
from settlement.core.hold_rules import LARGEST_SLICE
from settlement.core.holds import MOST_TOKENS, Ask
from settlement.core.quotes import INPUT_METER, Priced
from settlement.core.units import cu_text
from settlement.services import authentication, quotes
from settlement.services.quotes import Asked

router = APIRouter(prefix="/v1/quotes", tags=["holds"], route_class=StrictRoute)

_REQUEST: Example = {
    "model": "gpt-5",
    "tier": "standard",
    "meters": {"input_tokens": 1155},
    "max_output_tokens": 4096,
}
_QUOTE: Example = {
    "model": "gpt-5",
    "tier": "standard",
    "rates": "1",
    "demand": "1",
    "expected": {"output_tokens": 211, "amount": "0.789723"},
    "ceiling": {"output_tokens": 4096, "amount": "9.423056"},
    "first_hold": {"output_tokens": 256, "amount": "0.889723"},
    "slices": [{"grant": 1, "output_tokens": 256, "amount": "0.889723"}],
    "grants": 7,
}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@+-]{1,128}$")]
Units = Annotated[int, Field(ge=0, le=10**12)]
Output = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class QuoteRequest(In):
    """A call that may be made: its meters, or its size in bytes. No text."""

    model_config = ConfigDict(json_schema_extra={"example": _REQUEST})

    model: Name
    tier: Name
    meters: dict[Name, Units] = Field(default={})
    input_bytes: Annotated[int, Field(ge=0, le=10**9)] | None = None
    max_output_tokens: Output | None = None
    expected_output_tokens: Output | None = None
    output_tokens: Annotated[int, Field(ge=0, le=LARGEST_SLICE)] | None = None
    provider: str | None = Field(default=None, max_length=64, description="whose ask counts; without it, par")


class PricedOut(Out):
    """So much output, and what is charged or reserved for all of the call."""

    output_tokens: int
    amount: Cu


class SliceOut(PricedOut):
    """A grant: output and amount in total."""

    grant: int


class QuoteOut(Out):
    """What is expected, the most, and how it would be reserved."""

    model_config = ConfigDict(json_schema_extra={"example": _QUOTE})

    model: str
    tier: str
    rates: str
    demand: str
    expected: PricedOut
    ceiling: PricedOut | None
    first_hold: PricedOut
    slices: list[SliceOut]
    grants: int | None


@router.post("", operation_id="quote", summary="What a call would cost")
async def quote(
    request: Request,
    context: ContextDep,
    document: QuoteRequest,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
) -> QuoteOut:
    """With any API key, a spending key too. Nothing is reserved."""
    if bearer is None:
        raise Unauthenticated("api_key_missing", "send one header Authorization: Bearer cu_...")
    count(request, (await authentication.by_api_key(context, bearer.credentials)).key_id)
    if document.input_bytes is not None and INPUT_METER in document.meters:
        detail = f"it stands for {INPUT_METER}: send one of them"
        raise Malformed("document_malformed", detail, (Problem("/input_bytes", "invalid", detail),))
    ask = Ask(max_output_tokens=document.max_output_tokens, output_tokens=document.output_tokens)
    found = await quotes.quote(
        context,
        Asked(
            document.model,
            document.tier,
            document.meters,
            document.input_bytes,
            document.expected_output_tokens,
            ask,
            document.provider,
        ),
    )
    made = found.quote
    return QuoteOut(
        model=found.model,
        tier=found.tier,
        rates=str(found.rates),
        demand=multipliers.to_text(found.demand),
        expected=PricedOut(**_priced(made.expected)),
        ceiling=None if made.ceiling is None else PricedOut(**_priced(made.ceiling)),
        first_hold=PricedOut(**_priced(made.slices[0])),
        slices=[SliceOut(grant=each.grant, **_priced(each)) for each in made.slices],
        grants=made.grants,
    )


def _priced(priced: Priced) -> dict[str, Any]:
    return {"output_tokens": priced.output_tokens, "amount": cu_text(priced.amount)}
