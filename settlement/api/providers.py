"""Providers: registration, what is on record of them, and where they are paid."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header
from pydantic import ConfigDict, Field

from settlement.api.accounts import Name
from settlement.api.dependencies import ContextDep, ProviderReader, Signed, SignedDep, StateDep, StrictRoute
from settlement.api.shapes import (
    EXAMPLE_CONSUMER,
    EXAMPLE_JWK,
    EXAMPLE_KID,
    EXAMPLE_PROVIDER,
    EXAMPLE_TIME,
    Cu,
    Example,
    In,
    Out,
    PayoutIn,
    PayoutOut,
    PublicJwk,
    Time,
    payout_out,
)
from settlement.core.units import cu_text
from settlement.services import participants, reading
from settlement.services.authentication import SCOPES
from settlement.services.context import Context
from settlement.services.participants import AddressProof, Destination, SignedRequest

router = APIRouter(prefix="/v1/providers", tags=["providers"], route_class=StrictRoute)

_PAYOUT: Example = {"chain": "simulated", "asset": "USD:sim1issuer", "address": "sim1provider", "reference": 77}
_SHOWN: Example = {**_PAYOUT, "proven": False, "valid_from": EXAMPLE_TIME}

AccountSignature = Annotated[
    str,
    Header(
        alias="x-jws-signature-account",
        max_length=1024,
        description="detached JWS over the same body by a key of `account`; needed when `account` is given",
    ),
]


class RegisterProvider(In):
    """Signed by the key that it registers, and by a key of `account` when that is given."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "purpose": "register-provider",
                "at": EXAMPLE_TIME,
                "name": "Example Inference",
                "key": EXAMPLE_JWK,
                "account": EXAMPLE_CONSUMER,
                "payout": _PAYOUT,
            }
        }
    )

    purpose: Literal["register-provider"]
    at: Time
    name: Name = ""
    key: PublicJwk
    account: str | None = Field(None, max_length=64, description="the consumer account of the same company")
    payout: PayoutIn | None = None


class RegisteredProvider(Out):
    """A new provider. The API key is shown this once. While `status` is pending its reports are refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EXAMPLE_PROVIDER,
                "kid": EXAMPLE_KID,
                "status": "pending",
                "api_key": "cu_01kamk5q0r2c4e6g8j0m2p4r6t_" + "00112233445566778899aabbccddeeff" * 2,
                "scopes": ["api-keys", "read"],
                "account": EXAMPLE_CONSUMER,
                "payout": _SHOWN,
            }
        }
    )

    id: str
    kid: str
    status: str
    api_key: str
    scopes: list[str]
    account: str | None
    payout: PayoutOut | None


class ProviderOut(Out):
    """A provider as it is on record; `payout_next` waits for its time, `fallback` is the one asked for last."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EXAMPLE_PROVIDER,
                "name": "Example Inference",
                "status": "active",
                "account": EXAMPLE_CONSUMER,
                "settled": "5.25",
                "payout": _SHOWN,
                "payout_next": {**_PAYOUT, "proven": False, "valid_from": "2026-11-25T00:00:00Z"},
                "fallback": None,
            }
        }
    )

    id: str
    name: str
    status: str
    account: str | None
    settled: Cu
    payout: PayoutOut | None
    payout_next: PayoutOut | None
    fallback: PayoutOut | None


class SetPayoutAddress(In):
    """Signed by a key of the participant."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"purpose": "set-payout-address", "at": EXAMPLE_TIME, "payout": _PAYOUT}}
    )

    purpose: Literal["set-payout-address"]
    at: Time
    payout: PayoutIn


class SetFallbackAddress(In):
    """Signed by a key of the provider."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"purpose": "set-fallback-address", "at": EXAMPLE_TIME, "payout": _PAYOUT}}
    )

    purpose: Literal["set-fallback-address"]
    at: Time
    payout: PayoutIn


class PayoutAddressOut(Out):
    """The payout address that was asked for, and from when on it is paid to."""

    model_config = ConfigDict(json_schema_extra={"example": {"payout": _SHOWN}})

    payout: PayoutOut


@router.post("", status_code=201, operation_id="registerProvider", summary="Register as a provider")
async def register(
    state: StateDep, signed: SignedDep, document: RegisterProvider, account_signature: AccountSignature = ""
) -> RegisteredProvider:
    """Registers a public key and gives the first API key. The body is signed by that key (proof of possession)."""
    made = await participants.register_provider(
        state.context,
        SignedRequest(signed.body, signed.signature, document.at),
        key=document.key,
        name=document.name,
        status="active" if state.settings.admit_providers == "open" else "pending",
        account=document.account,
        account_signature=account_signature,
        payout=None if document.payout is None else _destination(document.payout),
    )
    return RegisteredProvider(
        id=made.party.id,
        kid=made.kid,
        status=made.party.status,
        api_key=made.api_key,
        scopes=list(SCOPES["provider"]),
        account=made.party.account_id,
        payout=payout_out(made.payout),
    )


@router.get("/me", operation_id="getProvider", summary="My provider record")
async def mine(context: ContextDep, reader: ProviderReader) -> ProviderOut:
    """Status, balance and payout addresses."""
    party = reader.party
    account = await reading.account(context, party)
    in_force, waiting = await participants.payout_addresses(context, party)
    return ProviderOut(
        id=party.id,
        name=party.name,
        status=party.status,
        account=party.account_id,
        settled=cu_text(account.settled),
        payout=payout_out(in_force),
        payout_next=payout_out(waiting),
        fallback=payout_out(await participants.fallback_address(context, party)),
    )


@router.put("/me/payout-address", operation_id="setPayoutAddress", summary="Where I want to be paid")
async def set_payout_address(context: ContextDep, signed: SignedDep, document: SetPayoutAddress) -> PayoutAddressOut:
    """The first address is in force at once, another one after the policy's cool-down; until then the old one is paid.

    Asking for the one that is in force calls off a change that waits.
    """
    return await set_address(context, signed, document, "provider")


async def set_address(
    context: Context, signed: Signed, document: SetPayoutAddress, kind: Literal["consumer", "provider"]
) -> PayoutAddressOut:
    """What providers' and consumers' calls have in common."""
    request = SignedRequest(signed.body, signed.signature, document.at)
    payout = _destination(document.payout)
    address = payout_out(await participants.set_payout_address(context, request, payout, kind=kind))
    assert address is not None, "there is an address by now"
    return PayoutAddressOut(payout=address)


@router.put("/me/fallback-address", operation_id="setFallbackAddress", summary="Where I may be paid instead")
async def set_fallback_address(
    context: ContextDep, signed: SignedDep, document: SetFallbackAddress
) -> PayoutAddressOut:
    """An address on another chain, for windows in which the first one can't be used. In force after the policy's
    cool-down, the first one too."""
    request = SignedRequest(signed.body, signed.signature, document.at)
    address = payout_out(await participants.set_fallback_address(context, request, _destination(document.payout)))
    assert address is not None, "there is an address by now"
    return PayoutAddressOut(payout=address)


def _destination(payout: PayoutIn) -> Destination:
    proof = None
    if payout.proof is not None:
        proof = AddressProof(payout.proof.at, payout.proof.signature, payout.proof.public_key)
    return Destination(payout.chain, payout.asset, payout.address, payout.reference, proof)
