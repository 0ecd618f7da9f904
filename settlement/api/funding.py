"""Funding an account: intents to pay by, and the deposits that came."""

from __future__ import annotations

import io
import re
from hashlib import sha256
from typing import Annotated, Literal

import segno
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ConsumerReader, ContextDep, StrictRoute, needs
from settlement.api.shapes import (
    EXAMPLE_TIME,
    Amount,
    Cu,
    Cursor,
    Example,
    In,
    Limit,
    Out,
    amount_in,
    chain_amount,
    cursor_text,
    cursor_value,
)
from settlement.chain import Asset
from settlement.core import times
from settlement.core.errors import Malformed, NotFound
from settlement.core.units import cu_text, decimal_text
from settlement.services import funding, idempotency
from settlement.services.authentication import Principal
from settlement.services.context import Context
from settlement.services.funding import FundingIntent
from settlement.storage.idempotency import Claim, Reply

router = APIRouter(prefix="/v1", tags=["consumers"], route_class=StrictRoute)

Funder = Annotated[Principal, Depends(needs("funding", "consumer"))]
IdempotencyKey = Annotated[
    str, Header(alias="Idempotency-Key", description="1 to 128 printable ASCII characters of your own; required")
]
_KEY = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_INTENT: Example = {
    "id": "fnd_01kamk5q0r1b3d5f7h9k1n3q5s",
    "chain": "simulated",
    "asset": "USD:sim1issuer",
    "amount": "25",
    "address": "sim1treasury",
    "reference": "2871830913",
    "payment_uri": "simulated:sim1treasury?asset=USD:sim1issuer&reference=2871830913&amount=25",
    "combined_address": None,
    "qr": "data:image/svg+xml;charset=utf-8,%3Csvg%3E%3C/svg%3E",
}
_DEPOSIT: Example = {
    "id": "dep_01kamk5q0r3d5f7h9k1n3q5s7v",
    "chain": "simulated",
    "asset": "USD:sim1issuer",
    "amount": "25",
    "state": "credited",
    "credited": "5555.555555",
    "micro_per_unit": "2000/9",
    "fixing": None,
    "sender": "sim1consumer",
    "reference": "2871830913",
    "transaction": "9f86d081",
    "index": 0,
    "ledger": 4711,
    "closed_at": EXAMPLE_TIME,
}


class CreateIntent(In):
    """`amount` is left out when the payer chooses it."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"chain": "simulated", "asset": "USD:sim1issuer", "amount": "25"}}
    )

    chain: str = Field(max_length=32)
    asset: str = Field(max_length=128, description="`CODE` or `CODE:issuer`")
    amount: Amount | None = Field(None, max_length=40)


class IntentOut(Out):
    """Pay to `address` with `reference` (destination tag or memo id); without it the money can't be attributed."""

    model_config = ConfigDict(json_schema_extra={"example": _INTENT})

    id: str
    chain: str
    asset: str
    amount: Amount | None
    address: str
    reference: str
    payment_uri: str
    combined_address: Annotated[
        str | None, Field(description="address and reference in one (X-address, muxed account), where the chain has it")
    ]
    qr: Annotated[str, Field(description="the payment URI as a QR code: an SVG picture in a data URI")]


class DepositOut(Out):
    """A payment that arrived in a final ledger: `credited` CU at `micro_per_unit` microCU per smallest unit.

    One that is `waiting` came while nothing was converted; it is credited at the next good `fixing` of the index.
    """

    id: str
    chain: str
    asset: str
    amount: Amount
    state: Literal["credited", "waiting"]
    credited: Cu
    micro_per_unit: str | None
    fixing: int | None
    sender: str
    reference: str | None
    transaction: str
    index: int
    ledger: int
    closed_at: str


class DepositPage(Out):
    """Deposits from the newest down."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"data": [_DEPOSIT], "has_more": True, "next_cursor": "ZGVwXzAxa2FtazVxMHIzZDVmN2g5azFuM3E1czd2"}
        }
    )

    data: list[DepositOut]
    has_more: bool
    next_cursor: str | None


@router.post(
    "/funding-intents",
    status_code=201,
    operation_id="createFundingIntent",
    summary="How to pay in",
    response_model=IntentOut,
    responses={201: {"headers": {"Idempotency-Replayed": {"schema": {"const": "true"}}}}},
)
async def create_intent(
    context: ContextDep, request: Request, funder: Funder, document: CreateIntent, idempotency_key: IdempotencyKey = ""
) -> Response:
    """A fresh reference for one chain and asset. The same Idempotency-Key and body give the stored answer again."""
    claim = await claim_of(request, funder, idempotency_key)
    amount = None if document.amount is None else units_of(context, document)

    async def act() -> Reply:
        made = await funding.create_intent(
            context, party=funder.party.id, chain=document.chain, asset=document.asset, amount=amount
        )
        return Reply(201, _shown(made).model_dump_json().encode())

    reply, replayed = await idempotency.once(context, claim, act)
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    return Response(reply.body, reply.status, headers, media_type=JSONResponse.media_type)


@router.get("/funding-intents/{intent}", operation_id="getFundingIntent", summary="How to pay in, again")
async def intent(context: ContextDep, reader: ConsumerReader, intent: str) -> IntentOut:
    """One of my funding intents."""
    return _shown(await funding.intent_of(context, reader.party, intent))


@router.get(
    "/funding-intents/{intent}/qr.{form}",
    operation_id="fundingIntentPicture",
    summary="The payment URI as a picture",
    response_class=Response,
    responses={
        200: {
            "content": {
                "image/svg+xml": {"schema": {"type": "string"}, "example": "<svg/>"},
                "image/png": {"schema": {"type": "string", "format": "binary"}, "example": "\x89PNG"},
            }
        }
    },
)
async def picture(context: ContextDep, reader: ConsumerReader, intent: str, form: Literal["svg", "png"]) -> Response:
    """A QR code of the payment URI, as SVG or PNG. It never changes while the chain's address stays."""
    made = await funding.intent_of(context, reader.party, intent)
    out = io.BytesIO()
    segno.make(made.payment_uri, micro=False).save(out, kind=form, scale=4, border=4)
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(out.getvalue(), media_type={"svg": "image/svg+xml", "png": "image/png"}[form], headers=headers)


@router.get("/deposits", operation_id="listDeposits", summary="My deposits, newest first")
async def deposits(
    context: ContextDep, reader: ConsumerReader, limit: Limit = 50, cursor: Cursor = None
) -> DepositPage:
    """Every payment that was credited to my account, and those that wait to be converted."""
    before = cursor_value("dep", cursor)
    found = await funding.deposits_of(
        context, reader.party.id, cursor=None if before is None else f"dep_{before}", limit=limit + 1
    )
    shown, more = found[:limit], len(found) > limit
    return DepositPage(
        data=[
            DepositOut(
                id=each.id,
                chain=each.chain,
                asset=each.asset,
                amount=chain_amount(context, each.chain, each.asset, each.amount),
                state="waiting" if each.party_no is None else "credited",
                credited=cu_text(each.credited),
                micro_per_unit=each.micro_per_unit,
                fixing=each.fixing,
                sender=each.sender,
                reference=None if each.reference is None else str(each.reference),
                transaction=each.tx,
                index=each.tx_index,
                ledger=each.ledger,
                closed_at=times.text(each.closed_at),
            )
            for each in shown
        ],
        has_more=more,
        next_cursor=cursor_text("dep", shown[-1].id.removeprefix("dep_")) if more else None,
    )


def _shown(made: FundingIntent) -> IntentOut:
    return IntentOut(
        id=made.id,
        chain=made.chain,
        asset=made.asset,
        amount=None if made.amount is None else decimal_text(made.amount, made.decimals),
        address=made.address,
        reference=str(made.reference),
        payment_uri=made.payment_uri,
        combined_address=made.combined_address or None,
        qr=segno.make(made.payment_uri, micro=False).svg_data_uri(scale=4),
    )


async def claim_of(request: Request, principal: Principal, key: str) -> Claim:
    """What an Idempotency-Key stands for: this caller, this call, these bytes.

    Raises Malformed ``idempotency_key_missing`` (400) or ``idempotency_key_malformed``.
    """
    if not key:
        raise Malformed("idempotency_key_missing", "send the header Idempotency-Key", status=400)
    if not _KEY.fullmatch(key) or len(request.headers.getlist("idempotency-key")) != 1:
        raise Malformed("idempotency_key_malformed", "one Idempotency-Key of 1 to 128 printable ASCII characters")
    route = f"{request.method} {request.url.path}"
    fingerprint = sha256(route.encode() + b"\0" + await request.body()).digest()
    return Claim(principal.party.id, route, key, fingerprint)


def units_of(context: Context, document: CreateIntent, pointer: str = "/amount") -> int:
    """The amount in the asset's smallest unit. Raises NotFound for a chain or asset that isn't ours, Malformed, which
    points at the amount."""
    assert document.amount is not None
    adapter = context.chains.get(document.chain)
    if adapter is None:
        raise NotFound("unknown_chain", "this service does not settle on that chain")
    decimals = adapter.facts.assets.get(Asset.parse(document.asset))
    if decimals is None:
        raise NotFound("unknown_asset", f"{document.chain} does not accept that asset; code and issuer must both match")
    return amount_in(document.amount, decimals, pointer, above_zero="an amount to pay is above zero")
