"""API keys: list, make with a part of one's scopes, revoke."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Security
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import ConfigDict, Field

from settlement.api.dependencies import BEARER, ContextDep, Reader, SignedDep, StrictRoute, needs
from settlement.api.shapes import EXAMPLE_KEY_ID, EXAMPLE_TIME, In, Out, Time
from settlement.core import times
from settlement.core.errors import Malformed, Problem
from settlement.services import participants
from settlement.services.authentication import Principal
from settlement.services.participants import SignedRequest

router = APIRouter(prefix="/v1/api-keys", tags=["keys"], route_class=StrictRoute)

_TOKEN = "cu_01kamk5q0r2c4e6g8j0m2p4r6t_" + "00112233445566778899aabbccddeeff" * 2
_needs_api_keys = needs("api-keys")
ApiKeyOwner = Annotated[Principal, Depends(_needs_api_keys)]


class CreateApiKey(In):
    """With an API key that has the scope `api-keys`; or signed, and then with `purpose` and `at`.

    A consumer's spending key has the scope `spend` and no other.
    """

    model_config = ConfigDict(json_schema_extra={"example": {"scopes": ["read"]}})

    scopes: list[Literal["api-keys", "funding", "holds", "read", "spend"]] = Field(min_length=1, max_length=8)
    name: str = Field(default="", max_length=128)
    budget: str | None = Field(default=None, max_length=64, description="of a spending key: an id of `/v1/budgets`")
    purpose: Literal["add-api-key"] | None = None
    at: Time | None = None


class ApiKeyCreated(Out):
    """A new API key, shown this once."""

    model_config = ConfigDict(json_schema_extra={"example": {"api_key": _TOKEN, "scopes": ["read"]}})

    api_key: str
    scopes: list[str]


class ApiKeyOut(Out):
    """An API key without its secret."""

    id: str
    name: str
    scopes: list[str]
    budget: str | None
    created_at: str
    revoked_at: str | None


class ApiKeysOut(Out):
    """All API keys of a participant, oldest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [
                    {
                        "id": EXAMPLE_KEY_ID,
                        "name": "chat",
                        "scopes": ["spend"],
                        "budget": "bud_01kamk5q0r2c4e6g8j0m2p4r6t",
                        "created_at": EXAMPLE_TIME,
                        "revoked_at": "2027-11-22T00:00:00Z",
                    }
                ],
                "has_more": False,
            }
        }
    )

    data: list[ApiKeyOut]
    has_more: bool = False
    next_cursor: None = None


@router.get("", operation_id="listApiKeys", summary="My API keys")
async def listed(context: ContextDep, reader: Reader) -> ApiKeysOut:
    """Every API key, revoked ones too, without its secret."""
    found = await participants.api_keys_of(context, reader.party)
    return ApiKeysOut(
        data=[
            ApiKeyOut(
                id=key.id,
                name=key.name,
                scopes=list(key.scopes),
                budget=key.budget,
                created_at=times.text(key.created_at),
                revoked_at=None if key.revoked_at is None else times.text(key.revoked_at),
            )
            for key in found
        ]
    )


@router.post("", status_code=201, operation_id="createApiKey", summary="Make an API key")
async def create(
    context: ContextDep,
    request: Request,
    signed: SignedDep,
    document: CreateApiKey,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
) -> ApiKeyCreated:
    """By an API key with the scope `api-keys`, or signed by a registered key, for whoever has lost every API key."""
    scopes: list[str] = sorted(set(document.scopes))
    if signed.signature:
        if document.purpose is None or document.at is None:
            detail = "a signed request has purpose and at"
            raise Malformed("document_malformed", detail, (Problem("", "missing", detail),))
        signed_request = SignedRequest(signed.body, signed.signature, document.at)
        token = await participants.recover_api_key(
            context, signed_request, scopes, name=document.name, budget=document.budget
        )
    else:
        principal = await _needs_api_keys(request, bearer)
        token = await participants.create_api_key(
            context, principal, scopes, name=document.name, budget=document.budget
        )
    return ApiKeyCreated(api_key=token, scopes=scopes)


@router.delete("/{key_id}", status_code=204, operation_id="revokeApiKey", summary="Revoke an API key")
async def revoke(
    context: ContextDep, owner: ApiKeyOwner, key_id: Annotated[str, Path(max_length=64, examples=[EXAMPLE_KEY_ID])]
) -> None:
    """It is not taken any more, at once. The one that asks may revoke itself."""
    await participants.revoke_api_key(context, owner.party, key_id)
