"""Taking money out: a consumer's payout address, the text that proves it, and withdrawals."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ConsumerReader, ContextDep, Reader, SignedDep, StrictRoute, needs
from settlement.api.funding import IdempotencyKey, claim_of
from settlement.api.providers import PayoutAddressOut, SetPayoutAddress, set_address
from settlement.api.shapes import (
    EXAMPLE_KID,
    EXAMPLE_TIME,
    Amount,
    Cu,
    Cursor,
    Example,
    In,
    Limit,
    Out,
    PayoutOut,
    amount_in,
    chain_amount,
    cursor_text,
    cursor_value,
    payout_out,
)
from settlement.core import addresses, times
from settlement.core.errors import NotFound
from settlement.core.units import cu_text
from settlement.services import idempotency, participants, withdrawals
from settlement.services.authentication import Principal
from settlement.services.context import Context
from settlement.storage.idempotency import Reply
from settlement.storage.pages import PayoutRow
from settlement.storage.payouts import Payout

router = APIRouter(prefix="/v1", tags=["consumers"], route_class=StrictRoute)

Withdrawer = Annotated[Principal, Depends(needs("withdrawals", "consumer"))]
_WITHDRAWAL: Example = {
    "id": "pay_01kamk5q0r8w0y2a4c6e8g0j2m",
    "state": "settled",
    "chain": "simulated",
    "asset": "USD:sim1issuer",
    "amount": "8.99",
    "cu": "1997.777778",
    "fee": "2.222222",
    "address": "sim1consumer",
    "reference": 77,
    "transaction": "9f86d081",
    "ledger": 4711,
    "created_at": EXAMPLE_TIME,
}
_ADDRESS: Example = {
    "chain": "simulated",
    "asset": "USD:sim1issuer",
    "address": "sim1consumer",
    "reference": 77,
    "proven": True,
    "valid_from": EXAMPLE_TIME,
}


class ProofText(Out):
    """What the address's key has to sign, by `method`, until `valid_until`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "text": "compute-settlement address proof\nnetwork: simulated:demo\naddress: sim1consumer\n"
                f"key: {EXAMPLE_KID}\nat: {EXAMPLE_TIME}",
                "at": EXAMPLE_TIME,
                "method": "simulated",
                "valid_until": "2026-11-22T01:00:00Z",
            }
        }
    )

    text: str
    at: str
    method: str
    valid_until: str


class AddressesOut(Out):
    """The payout address in force, and the one that waits for its time."""

    model_config = ConfigDict(json_schema_extra={"example": {"payout": _ADDRESS, "payout_next": None}})

    payout: PayoutOut | None
    payout_next: PayoutOut | None


class CreateWithdrawal(In):
    """`amount` is what the balance loses at most, the fee included; left out, it is all that is available."""

    model_config = ConfigDict(json_schema_extra={"example": {"amount": "2000"}})

    amount: Cu | None = Field(None, max_length=40)


class WithdrawalOut(Out):
    """`cu` of the balance leave as `amount` of the asset; `fee`, in CU, is taken beside them."""

    model_config = ConfigDict(json_schema_extra={"example": _WITHDRAWAL})

    id: str
    state: str
    chain: str
    asset: str
    amount: Amount
    cu: Cu
    fee: Cu
    address: str
    reference: int | None
    transaction: str | None
    ledger: int | None
    created_at: str


class WithdrawalPage(Out):
    """Withdrawals from the newest down."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [_WITHDRAWAL],
                "has_more": True,
                "next_cursor": "d2RyXzAxa2FtazVxMHI4dzB5MmE0YzZlOGcwajJt",
            }
        }
    )

    data: list[WithdrawalOut]
    has_more: bool
    next_cursor: str | None


@router.get("/address-proof", operation_id="addressProof", summary="What to sign to prove an address")
async def proof_text(
    context: ContextDep,
    reader: Reader,
    chain: Annotated[str, Query(max_length=32)],
    address: Annotated[str, Query(min_length=1, max_length=128)],
    kid: Annotated[str, Query(max_length=64, description="the key of yours that will sign the request")],
) -> ProofText:
    """The text that the address's key signs, dated now. Anybody may make it without asking (address-proof.md)."""
    adapter = context.chains.get(chain)
    if adapter is None:
        raise NotFound("unknown_chain", "this service does not settle on that chain")
    if kid not in {key.kid for key in await participants.keys_of(context, reader.party)}:
        raise NotFound("unknown_key", "this participant has no such key")
    now = context.sources.clock()
    return ProofText(
        text=addresses.statement(network=adapter.facts.network, address=address, kid=kid, at=now),
        at=times.text(now),
        method=adapter.facts.address_proof,
        valid_until=times.text(now + addresses.FRESH),
    )


@router.put(
    "/accounts/me/payout-address",
    operation_id="setAccountPayoutAddress",
    summary="Where my withdrawals go",
    tags=["consumers"],
)
async def set_payout_address(context: ContextDep, signed: SignedDep, document: SetPayoutAddress) -> PayoutAddressOut:
    """In force after the policy's cool-down, the first one too. It must be proven.

    Asking for the one that is in force calls off a change that waits.
    """
    return await set_address(context, signed, document, "consumer")


@router.get("/accounts/me/payout-address", operation_id="getAccountPayoutAddress", summary="Where my withdrawals go")
async def payout_address(context: ContextDep, reader: ConsumerReader) -> AddressesOut:
    """The address in force, and the one that waits."""
    in_force, waiting = await participants.payout_addresses(context, reader.party)
    return AddressesOut(payout=payout_out(in_force), payout_next=payout_out(waiting))


@router.post(
    "/withdrawals",
    status_code=201,
    operation_id="createWithdrawal",
    summary="Take money out",
    response_model=WithdrawalOut,
    responses={201: {"headers": {"Idempotency-Replayed": {"schema": {"const": "true"}}}}},
)
async def create_withdrawal(
    context: ContextDep,
    request: Request,
    withdrawer: Withdrawer,
    document: CreateWithdrawal,
    idempotency_key: IdempotencyKey = "",
) -> Response:
    """Sends CU of the balance, as whole units of the asset, to the proven address in force.

    The same Idempotency-Key and body give the stored answer again, and never a second withdrawal.
    """
    claim = await claim_of(request, withdrawer, idempotency_key)
    amount = None if document.amount is None else amount_in(document.amount, 6, "/amount")
    named = sha256(b"\0".join((claim.principal.encode(), claim.key.encode(), claim.fingerprint))).digest()

    async def act() -> Reply:
        made = await withdrawals.withdraw(context, withdrawer.party, amount=amount, request=named)
        return Reply(201, _shown(context, made).model_dump_json().encode())

    reply, replayed = await idempotency.once(context, claim, act)
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    return Response(reply.body, reply.status, headers, media_type=JSONResponse.media_type)


@router.get("/withdrawals", operation_id="listWithdrawals", summary="My withdrawals, newest first")
async def listed(
    context: ContextDep, reader: ConsumerReader, limit: Limit = 50, cursor: Cursor = None
) -> WithdrawalPage:
    """Every withdrawal with its fee, its state, and the transaction that carried it."""
    before = cursor_value("wdr", cursor)
    found = await withdrawals.page(
        context, reader.party, before=None if before is None else f"pay_{before}", limit=limit + 1
    )
    shown, more = found[:limit], len(found) > limit
    return WithdrawalPage(
        data=[_shown(context, each) for each in shown],
        has_more=more,
        next_cursor=cursor_text("wdr", shown[-1].id.removeprefix("pay_")) if more else None,
    )


def _shown(context: Context, found: Payout | PayoutRow) -> WithdrawalOut:
    landed = (found.transaction, found.ledger) if isinstance(found, PayoutRow) else (None, None)
    return WithdrawalOut(
        id=found.id,
        state=found.state,
        chain=found.chain,
        asset=found.asset,
        amount=chain_amount(context, found.chain, found.asset, found.amount),
        cu=cu_text(found.micro),
        fee=cu_text(found.fee),
        address=found.address,
        reference=found.reference,
        transaction=landed[0],
        ledger=landed[1],
        created_at=times.text(found.created_at),
    )
