"""Public keys of a participant: list, rotate, revoke."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ContextDep, Reader, SignedDep, StrictRoute
from settlement.api.shapes import (
    EXAMPLE_CONSUMER,
    EXAMPLE_JWK,
    EXAMPLE_KID,
    EXAMPLE_TIME,
    Example,
    In,
    Out,
    PublicJwk,
    Time,
)
from settlement.core import times
from settlement.core.errors import Malformed, Problem
from settlement.core.signatures import PublicKey
from settlement.services import participants
from settlement.services.participants import SignedRequest
from settlement.storage.parties import Key

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)

_KEY: Example = {
    "kid": EXAMPLE_KID,
    "key": EXAMPLE_JWK,
    "valid_from": EXAMPLE_TIME,
    "revoked_at": "2027-11-22T00:00:00Z",
}
Possession = Annotated[
    str,
    Header(
        alias="x-jws-signature-key",
        max_length=1024,
        description="detached JWS over the same body by the new key itself",
    ),
]


class KeyOut(Out):
    """A public key; signatures that arrive in valid_from <= t < revoked_at count."""

    model_config = ConfigDict(json_schema_extra={"example": _KEY})

    kid: str
    key: dict[str, str]
    valid_from: str
    revoked_at: str | None


class KeysOut(Out):
    """All keys of a participant, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_KEY], "has_more": False}})

    data: list[KeyOut]
    has_more: bool = False
    next_cursor: None = None


class AddKey(In):
    """Signed by a valid key of the party, and by the new key in `x-jws-signature-key`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "purpose": "add-key",
                "at": EXAMPLE_TIME,
                "party": EXAMPLE_CONSUMER,
                "key": EXAMPLE_JWK,
                "valid_from": EXAMPLE_TIME,
            }
        }
    )

    purpose: Literal["add-key"]
    at: Time
    party: str = Field(max_length=64, description="whose key it becomes: the signer's id")
    key: PublicJwk
    valid_from: Time | None = Field(None, description="now or later; default now")


class RevokeKey(In):
    """Signed by any valid key of the party, the one that is revoked included."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"purpose": "revoke-key", "at": EXAMPLE_TIME, "kid": EXAMPLE_KID, "revoked_at": EXAMPLE_TIME}
        }
    )

    purpose: Literal["revoke-key"]
    at: Time
    kid: str = Field(max_length=64)
    revoked_at: Time | None = Field(None, description="now or later; default now")


@router.get("", operation_id="listKeys", summary="My public keys")
async def listed(context: ContextDep, reader: Reader) -> KeysOut:
    """Every public key with its times."""
    return KeysOut(data=[_out(key) for key in await participants.keys_of(context, reader.party)])


@router.post("", status_code=201, operation_id="addKey", summary="Register one more public key")
async def add(context: ContextDep, signed: SignedDep, document: AddKey, possession: Possession = "") -> KeyOut:
    """Rotation: register the new key, let both be valid for a while, then revoke the old one."""
    added = await participants.add_key(
        context,
        SignedRequest(signed.body, signed.signature, document.at),
        party_id=document.party,
        key=document.key,
        possession=possession,
        valid_from=document.valid_from,
    )
    return _out(added)


@router.post("/{kid}/revocation", operation_id="revokeKey", summary="Revoke a public key")
async def revoke(
    context: ContextDep,
    signed: SignedDep,
    document: RevokeKey,
    kid: Annotated[str, Path(max_length=64, examples=[EXAMPLE_KID])],
) -> KeyOut:
    """Nothing that this key signs is taken from `revoked_at` on. An earlier revocation stands; none is taken back."""
    if document.kid != kid:
        detail = "kid in the body must be the one in the address"
        raise Malformed("document_malformed", detail, (Problem("/kid", "kid_mismatch", detail),))
    request = SignedRequest(signed.body, signed.signature, document.at)
    return _out(await participants.revoke_key(context, request, kid=kid, revoked_at=document.revoked_at))


def _out(key: Key) -> KeyOut:
    return KeyOut(
        kid=key.kid,
        key=PublicKey(key.public).jwk(),
        valid_from=times.text(key.valid_from),
        revoked_at=None if key.revoked_at is None else times.text(key.revoked_at),
    )
