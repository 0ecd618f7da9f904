"""What a provider earns and is paid."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, ProviderReader, StrictRoute
from settlement.api.shapes import (
    EXAMPLE_TIME,
    Amount,
    Cu,
    Cursor,
    Example,
    Limit,
    Out,
    chain_amount,
    cursor_number,
    cursor_text,
    cursor_value,
)
from settlement.core import times
from settlement.core.units import cu_text
from settlement.services import reading

router = APIRouter(prefix="/v1", tags=["providers"], route_class=StrictRoute)

_PAYOUT: Example = {
    "id": "pay_01kamk5q0r8w0y2a4c6e8g0j2m",
    "window": "win_1",
    "state": "settled",
    "chain": "simulated",
    "asset": "USD:sim1issuer",
    "amount": "12.5",
    "cu": "2777.777778",
    "address": "sim1provider",
    "reference": 77,
    "transaction": "9f86d081",
    "ledger": 4711,
    "created_at": EXAMPLE_TIME,
}
_POSITION: Example = {"window": "win_1", "spent": "0", "earned": "5.25", "net": "5.25", "netted": "0", "payout": "5.25"}


class PayoutRecord(Out):
    """Money sent or to be sent: `amount` of the asset for `cu` of the balance."""

    id: str
    window: str
    state: str
    chain: str
    asset: str
    amount: Amount
    cu: Cu
    address: str
    reference: int | None
    transaction: str | None
    ledger: int | None
    created_at: str


class PayoutPage(Out):
    """Payouts from the newest down."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"data": [_PAYOUT], "has_more": True, "next_cursor": "cGF5XzAxa2FtazVxMHI4dzB5MmE0YzZlOGcwajJt"}
        }
    )

    data: list[PayoutRecord]
    has_more: bool
    next_cursor: str | None


class PositionOut(Out):
    """The result of a window. `netted` was given back to the company's own consumer account."""

    window: str
    spent: Cu
    earned: Cu
    net: Cu
    netted: Cu
    payout: Cu


class EarningsPage(Out):
    """`settled` is owed now, `open_window` the part of it that was earned since the last close."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "settled": "7.5",
                "open_window": "2.25",
                "data": [_POSITION],
                "has_more": True,
                "next_cursor": "ZXJuXzE",
            }
        }
    )

    settled: Cu
    open_window: Cu
    data: list[PositionOut]
    has_more: bool
    next_cursor: str | None


@router.get("/payouts", operation_id="listPayouts", summary="My payouts, newest first")
async def payouts(context: ContextDep, reader: ProviderReader, limit: Limit = 50, cursor: Cursor = None) -> PayoutPage:
    """Every payout with its state, and the transaction that carried it."""
    before = cursor_value("pay", cursor)
    found = await reading.payouts(
        context, reader.party, before=None if before is None else f"pay_{before}", limit=limit + 1
    )
    shown, more = found[:limit], len(found) > limit
    return PayoutPage(
        data=[
            PayoutRecord(
                id=each.id,
                window=f"win_{each.window_no}",
                state=each.state,
                chain=each.chain,
                asset=each.asset,
                amount=chain_amount(context, each.chain, each.asset, each.amount),
                cu=cu_text(each.micro),
                address=each.address,
                reference=each.reference,
                transaction=each.transaction,
                ledger=each.ledger,
                created_at=times.text(each.created_at),
            )
            for each in shown
        ],
        has_more=more,
        next_cursor=cursor_text("pay", shown[-1].id.removeprefix("pay_")) if more else None,
    )


@router.get("/earnings", operation_id="listEarnings", summary="My earnings by window, newest first")
async def earnings(
    context: ContextDep, reader: ProviderReader, limit: Limit = 50, cursor: Cursor = None
) -> EarningsPage:
    """What is owed now, and the position of every window."""
    found = await reading.earnings(context, reader.party, before=cursor_number("ern", cursor), limit=limit + 1)
    shown, more = found.positions[:limit], len(found.positions) > limit
    return EarningsPage(
        settled=cu_text(found.account.settled),
        open_window=cu_text(found.open_window),
        data=[
            PositionOut(
                window=f"win_{each.window_no}",
                spent=cu_text(each.spent),
                earned=cu_text(each.earned),
                net=cu_text(each.net),
                netted=cu_text(each.netted),
                payout=cu_text(each.payout),
            )
            for each in shown
        ],
        has_more=more,
        next_cursor=cursor_text("ern", shown[-1].window_no) if more else None,
    )
