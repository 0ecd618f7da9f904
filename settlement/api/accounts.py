"""Consumers: registration, and what is on their account."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ConsumerReader, ContextDep, Signed, SignedDep, StrictRoute
from settlement.api.shapes import (
    EXAMPLE_CONSUMER,
    EXAMPLE_JWK,
    EXAMPLE_KEY_ID,
    EXAMPLE_KID,
    EXAMPLE_TIME,
    Cu,
    Cursor,
    Example,
    In,
    Limit,
    Out,
    PublicJwk,
    Time,
    cursor_text,
    cursor_value,
)
from settlement.core import times
from settlement.core.units import cu_text
from settlement.services import participants, reading
from settlement.services.authentication import SCOPES
from settlement.services.participants import SignedRequest

router = APIRouter(prefix="/v1/accounts", tags=["consumers"], route_class=StrictRoute)

Name = Annotated[str, Field(max_length=256, description="shown to the operator only; at most 128 printable characters")]


_OPEN_HOLD: Example = {
    "id": "hld_01kamk5q0r7v3c9x2m4n6p8q0s",
    "provider": "prv_01kamk5q0r5t7v9x1z3b5d7f9h",
    "key": EXAMPLE_KEY_ID,
    "model": "gpt-5",
    "tier": "standard",
    "requests": 1,
    "uses": 0,
    "held": "0.889723",
    "created_at": EXAMPLE_TIME,
    "expires_at": "2026-11-22T00:05:00Z",
}


class RegisterConsumer(In):
    """Signed by the key that it registers."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "purpose": "register-consumer",
                "at": EXAMPLE_TIME,
                "name": "Example Ltd",
                "key": EXAMPLE_JWK,
            }
        }
    )

    purpose: Literal["register-consumer"]
    at: Time
    name: Name = ""
    key: PublicJwk


class RegisteredConsumer(Out):
    """A new consumer. The API key is shown this once."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EXAMPLE_CONSUMER,
                "kid": EXAMPLE_KID,
                "status": "active",
                "api_key": "cu_01kamk5q0r2c4e6g8j0m2p4r6t_" + "00112233445566778899aabbccddeeff" * 2,
                "scopes": ["api-keys", "funding", "read"],
            }
        }
    )

    id: str
    kid: str
    status: str
    api_key: str
    scopes: list[str]


class AccountOut(Out):
    """An account's balance: available is settled minus held."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EXAMPLE_CONSUMER,
                "name": "Example Ltd",
                "status": "active",
                "settled": "1000.789722",
                "held": "0",
                "available": "1000.789722",
            }
        }
    )

    id: str
    name: str
    status: str
    settled: Cu
    held: Cu
    available: Cu


class OpenHoldOut(Out):
    """What an open hold keeps of the account, for which provider, and the spending key that it came with."""

    id: str
    provider: str
    key: str
    model: str
    tier: str
    requests: int
    uses: int
    held: Cu
    created_at: str
    expires_at: str


class OpenHoldPage(Out):
    """Open holds, the newest first."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"data": [_OPEN_HOLD], "has_more": False, "next_cursor": None}}
    )

    data: list[OpenHoldOut]
    has_more: bool
    next_cursor: str | None


def request_of(signed: Signed, document: RegisterConsumer) -> SignedRequest:
    """The signed request behind a parsed document."""
    return SignedRequest(signed.body, signed.signature, document.at)


@router.post("", status_code=201, operation_id="registerConsumer", summary="Register as a consumer")
async def register(context: ContextDep, signed: SignedDep, document: RegisterConsumer) -> RegisteredConsumer:
    """Registers a public key and gives the first API key. The body is signed by that key (proof of possession)."""
    made = await participants.register_consumer(
        context, request_of(signed, document), key=document.key, name=document.name
    )
    return RegisteredConsumer(
        id=made.party.id,
        kid=made.kid,
        status=made.party.status,
        api_key=made.api_key,
        scopes=list(SCOPES["consumer"]),
    )


@router.get("/me", operation_id="getAccount", summary="My account's balance")
async def mine(context: ContextDep, reader: ConsumerReader) -> AccountOut:
    """What is settled, held and available, in CU."""
    found = await reading.account(context, reader.party)
    return AccountOut(
        id=found.id,
        name=reader.party.name,
        status=reader.party.status,
        settled=cu_text(found.settled),
        held=cu_text(found.held),
        available=cu_text(found.available),
    )


@router.get("/me/holds", operation_id="listOpenHolds", summary="What is held of my account, hold by hold")
async def held(context: ContextDep, reader: ConsumerReader, limit: Limit = 50, cursor: Cursor = None) -> OpenHoldPage:
    """Open holds, the newest first: what they keep adds up to `held` of the account."""
    before = cursor_value("hld", cursor)
    found = await reading.open_holds(
        context, reader.party, before=None if before is None else f"hld_{before}", limit=limit + 1
    )
    shown, more = found[:limit], len(found) > limit
    return OpenHoldPage(
        data=[
            OpenHoldOut(
                id=each.id,
                provider=each.provider,
                key=each.key,
                model=each.model,
                tier=each.tier,
                requests=each.requests,
                uses=each.uses,
                held=cu_text(each.held),
                created_at=times.text(each.created_at),
                expires_at=times.text(each.expires_at),
            )
            for each in shown
        ],
        has_more=more,
        next_cursor=cursor_text("hld", shown[-1].id.removeprefix("hld_")) if more else None,
    )
