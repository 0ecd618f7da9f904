"""Windows: what is settled as one, and how far it has come."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, StrictRoute
from settlement.api.shapes import (
    EXAMPLE_DIGEST,
    EXAMPLE_TIME,
    Cursor,
    Example,
    Limit,
    Out,
    cursor_number,
    cursor_text,
    window_number,
)
from settlement.core import times
from settlement.services import reading
from settlement.services.reading import WindowView

router = APIRouter(prefix="/v1/windows", tags=["windows"], route_class=StrictRoute)

_WINDOW: Example = {
    "id": "win_1",
    "number": 1,
    "state": "planned",
    "opened_at": EXAMPLE_TIME,
    "closed_at": "2026-11-22T01:00:00Z",
    "anchored_at": "2026-11-22T01:00:09Z",
    "first_seq": 1,
    "last_seq": 812,
    "checkpoint": EXAMPLE_DIGEST,
}


class WindowOut(Out):
    """A window: the journal entries first_seq .. last_seq of the span opened_at <= t < closed_at."""

    id: str
    number: int
    state: str
    opened_at: str
    closed_at: str | None
    anchored_at: str | None
    first_seq: int
    last_seq: int | None
    checkpoint: str | None


class AnchorOut(Out):
    """An order to anchor the window on a chain, and the transaction that did."""

    chain: str
    state: str
    transaction: str | None
    ledger: int | None


class WindowDetail(WindowOut):
    """A window with its anchors."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_WINDOW,
                "anchors": [{"chain": "simulated", "state": "settled", "transaction": "9f86d081", "ledger": 4711}],
            }
        }
    )

    anchors: list[AnchorOut]


class WindowPage(Out):
    """Windows from the newest down."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"data": [_WINDOW], "has_more": True, "next_cursor": "d2luXzE"}}
    )

    data: list[WindowOut]
    has_more: bool
    next_cursor: str | None


@router.get("", operation_id="listWindows", summary="Windows, newest first")
async def listed(context: ContextDep, limit: Limit = 50, cursor: Cursor = None) -> WindowPage:
    """The open window and all that were closed."""
    found = await reading.window_page(context, before=cursor_number("win", cursor), limit=limit + 1)
    shown, more = found[:limit], len(found) > limit
    return WindowPage(
        data=[_out(each) for each in shown],
        has_more=more,
        next_cursor=cursor_text("win", shown[-1].window.no) if more else None,
    )


@router.get("/{window_id}", operation_id="getWindow", summary="A window")
async def by_id(
    context: ContextDep, window_id: Annotated[str, Path(max_length=20, examples=["win_1"])]
) -> WindowDetail:
    """How far a window has come, and where it is anchored."""
    view = await reading.window(context, window_number(window_id))
    anchors = [
        AnchorOut(chain=each.chain, state=each.state, transaction=each.transaction, ledger=each.ledger)
        for each in view.anchors
    ]
    return WindowDetail(**_out(view).model_dump(), anchors=anchors)


def _out(view: WindowView) -> WindowOut:
    window = view.window
    return WindowOut(
        id=window.id,
        number=window.no,
        state=window.state,
        opened_at=times.text(window.opened_at),
        closed_at=None if window.closed_at is None else times.text(window.closed_at),
        anchored_at=None if window.anchored_at is None else times.text(window.anchored_at),
        first_seq=window.first_seq,
        last_seq=window.last_seq,
        checkpoint=None if view.checkpoint is None else f"sha256:{view.checkpoint.hex()}",
    )
