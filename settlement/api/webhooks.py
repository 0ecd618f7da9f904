"""Webhooks: where a participant wants to be told, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import ConfigDict, Field

from settlement.api.dependencies import ContextDep, Reader, StateDep, StrictRoute, needs
from settlement.api.shapes import (
    EXAMPLE_TIME,
    Cursor,
    Example,
    In,
    Limit,
    Out,
    cursor_number,
    cursor_text,
)
from settlement.core import times
from settlement.services import webhooks
from settlement.services.authentication import Principal
from settlement.storage.webhooks import Delivery, Endpoint

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=StrictRoute)

_ID = "whk_01kamk5q0r2c4e6g8j0m2p4r6t"
_EVENT = "evt_01kamk5q0r9x1z3b5d7f9h0k2m"
_URL = "https://hooks.example/settlement"
_WEBHOOK: Example = {
    "id": _ID,
    "url": _URL,
    "events": ["deposit.credited"],
    "state": "disabled",
    "reason": "failing",
    "failing_since": EXAMPLE_TIME,
    "created_at": EXAMPLE_TIME,
}
_DELIVERY: Example = {
    "event": _EVENT,
    "type": "deposit.credited",
    "timestamp": EXAMPLE_TIME,
    "state": "pending",
    "attempts": 3,
    "next_attempt_at": EXAMPLE_TIME,
    "last_attempt_at": EXAMPLE_TIME,
    "status": 500,
    "error": "refused",
}

_needs_api_keys = needs("api-keys")
Owner = Annotated[Principal, Depends(_needs_api_keys)]
WebhookId = Annotated[str, Path(max_length=64, examples=[_ID])]
EventId = Annotated[str, Path(max_length=64, examples=[_EVENT])]


class WebhookIn(In):
    """Where to post, and the kinds of events to post there; all when `events` is left out."""

    model_config = ConfigDict(json_schema_extra={"example": {"url": _URL, "events": ["deposit.credited"]}})

    url: str = Field(min_length=1, max_length=2_048)
    events: list[Annotated[str, Field(max_length=64)]] | None = Field(default=None, min_length=1, max_length=32)


class WebhookOut(Out):
    """An endpoint. `reason` says why it is disabled: `failing` or `gone`."""

    model_config = ConfigDict(json_schema_extra={"example": _WEBHOOK})

    id: str
    url: str
    events: list[str] | None
    state: Literal["active", "disabled", "removed"]
    reason: str | None
    failing_since: str | None
    created_at: str


class WebhookCreated(WebhookOut):
    """An endpoint with the secret that signs for it, shown this once."""

    model_config = ConfigDict(json_schema_extra={"example": {**_WEBHOOK, "secret": "whsec_" + "A" * 43 + "="}})

    secret: str


class WebhooksOut(Out):
    """All endpoints of a participant, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [_WEBHOOK], "has_more": False}})

    data: list[WebhookOut]
    has_more: bool = False
    next_cursor: None = None


class DeliveryOut(Out):
    """How far the delivery of an event has come; `event` is its `webhook-id`, `status` and `error` are of the last
    attempt."""

    model_config = ConfigDict(json_schema_extra={"example": _DELIVERY})

    event: str
    type: str
    timestamp: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: str | None
    last_attempt_at: str | None
    status: int | None
    error: str | None


class DeliveryPage(Out):
    """Deliveries from the newest down."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"data": [_DELIVERY], "has_more": True, "next_cursor": "d2hrXzQ3MTE"}}
    )

    data: list[DeliveryOut]
    has_more: bool
    next_cursor: str | None


@router.post("", status_code=201, operation_id="createWebhook", summary="Be told of what happens")
async def create(context: ContextDep, state: StateDep, owner: Owner, document: WebhookIn) -> WebhookCreated:
    """Events from now on are posted to `url`, signed as Standard Webhooks says. The secret is shown this once."""
    made = await webhooks.create(
        context, owner.party, document.url, document.events, anywhere=state.settings.webhook_targets == "any"
    )
    return WebhookCreated(**_out(made.endpoint).model_dump(), secret=made.secret)


@router.get("", operation_id="listWebhooks", summary="My webhooks")
async def listed(context: ContextDep, reader: Reader) -> WebhooksOut:
    """Every endpoint that was not removed, without its secret."""
    return WebhooksOut(data=[_out(each) for each in await webhooks.listed(context, reader.party)])


@router.put("/{webhook_id}", operation_id="changeWebhook", summary="Change or enable a webhook")
async def change(
    context: ContextDep, state: StateDep, owner: Owner, webhook_id: WebhookId, document: WebhookIn
) -> WebhookOut:
    """Replaces `url` and `events`. One that was disabled is active again, and what still waits for it goes out."""
    anywhere = state.settings.webhook_targets == "any"
    return _out(
        await webhooks.change(context, owner.party, webhook_id, document.url, document.events, anywhere=anywhere)
    )


@router.delete("/{webhook_id}", status_code=204, operation_id="removeWebhook", summary="Remove a webhook")
async def remove(context: ContextDep, owner: Owner, webhook_id: WebhookId) -> None:
    """Nothing more is sent to it; an attempt that runs now may still arrive."""
    await webhooks.remove(context, owner.party, webhook_id)


@router.post("/{webhook_id}/secret", operation_id="rotateWebhookSecret", summary="Take a new secret")
async def rotate(context: ContextDep, owner: Owner, webhook_id: WebhookId) -> WebhookCreated:
    """For 24 hours every delivery carries a signature by the new secret and one by the old."""
    made = await webhooks.rotate(context, owner.party, webhook_id)
    return WebhookCreated(**_out(made.endpoint).model_dump(), secret=made.secret)


@router.post("/{webhook_id}/test", status_code=204, operation_id="testWebhook", summary="Send a test event")
async def test(context: ContextDep, owner: Owner, webhook_id: WebhookId) -> None:
    """An event `webhook.test` to this endpoint alone, delivered as any other; its kinds must not leave it out."""
    await webhooks.test(context, owner.party, webhook_id)


@router.get("/{webhook_id}/deliveries", operation_id="listDeliveries", summary="What became of the deliveries")
async def deliveries(
    context: ContextDep,
    reader: Reader,
    webhook_id: WebhookId,
    state: Annotated[Literal["pending", "delivered", "failed"] | None, Query(description="only those")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DeliveryPage:
    """From the newest event down, for 30 days."""
    before = cursor_number("whk", cursor)
    found = await webhooks.deliveries(context, reader.party, webhook_id, before=before, limit=limit + 1, state=state)
    shown, more = found[:limit], len(found) > limit
    return DeliveryPage(
        data=[_delivery(each) for each in shown],
        has_more=more,
        next_cursor=cursor_text("whk", shown[-1].no) if more else None,
    )


@router.post(
    "/{webhook_id}/deliveries/{event_id}/redelivery",
    operation_id="redeliver",
    summary="Deliver an event again",
)
async def redeliver(context: ContextDep, owner: Owner, webhook_id: WebhookId, event_id: EventId) -> DeliveryOut:
    """At once, whatever became of it before, with the same `webhook-id` and body."""
    return _delivery(await webhooks.deliver_again(context, owner.party, webhook_id, event_id))


def _out(found: Endpoint) -> WebhookOut:
    return WebhookOut.model_validate(
        {
            "id": found.id,
            "url": found.url,
            "events": None if found.kinds is None else list(found.kinds),
            "state": found.state,
            "reason": found.reason,
            "failing_since": None if found.failing_since is None else times.text(found.failing_since),
            "created_at": times.text(found.created_at),
        }
    )


def _delivery(found: Delivery) -> DeliveryOut:
    return DeliveryOut.model_validate(
        {
            "event": found.event_id,
            "type": found.kind,
            "timestamp": times.text(found.at),
            "state": found.state,
            "attempts": found.attempts,
            "next_attempt_at": times.text(found.next_at) if found.state == "pending" else None,
            "last_attempt_at": None if found.last_at is None else times.text(found.last_at),
            "status": found.status,
            "error": found.error,
        }
    )
