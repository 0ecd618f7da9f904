"""Webhooks: endpoints as their owners manage them, and delivering what is in the outbox.

An event is in the outbox in the commit of what it tells of. A delivery is claimed in one commit, posted outside any
transaction, and its end recorded in another; a process that dies in between leaves a claim that lapses, and the same
event is posted again under the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from settlement.core import webhooks
from settlement.core.errors import Conflict, Malformed, Problem
from settlement.core.webhooks import RETRIED_FOR, SECRET_SIZE
from settlement.services import events
from settlement.services.context import Context
from settlement.services.targets import Answer, Poster
from settlement.storage import parties
from settlement.storage import webhooks as storage
from settlement.storage.database import Connection
from settlement.storage.parties import Party
from settlement.storage.webhooks import Claimed, Delivery, Endpoint, Listening

MOST_ENDPOINTS = 10
"""How many endpoints a participant may have."""
BOTH_SIGN = timedelta(days=1)
"""How long a secret signs beside the one that has taken its place."""
LOST_AFTER = timedelta(seconds=60)
"""An attempt takes less; a claim that is older belongs to a process that died."""
AT_ONCE = 32
"""Attempts that run at the same time in one process, at most one to an endpoint."""
MOST_A_TURN = 1_000
"""Attempts after which a turn ends, so that a worker can be stopped while there is always something due."""
KEPT = timedelta(days=30)
"""How long events and their deliveries can be seen and asked for again."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """An endpoint with the secret that signs from now on; it is shown this once."""

    endpoint: Endpoint
    secret: str = field(repr=False)


async def create(
    context: Context, owner: Party, url: str, kinds: Sequence[str] | None, *, anywhere: bool = False
) -> NewSecret:
    """A new endpoint for these kinds of events, None for all. Raises Malformed ``webhook_url``, Conflict
    ``too_many_webhooks``."""
    webhooks.target(url, anywhere=anywhere)
    _check_kinds(owner, kinds)
    secret = context.sources.entropy(SECRET_SIZE)

    async def use_case(connection: Connection) -> Endpoint:
        await parties.lock(connection, owner.no)
        if len(await storage.listed(connection, owner.no)) >= MOST_ENDPOINTS:
            raise Conflict("too_many_webhooks", f"a participant has at most {MOST_ENDPOINTS} webhooks; remove one")
        now = context.sources.clock()
        return await storage.add(
            connection,
            endpoint_id=context.sources.id_at("whk", now),
            party_no=owner.no,
            url=url,
            kinds=kinds,
            secret=secret,
            now=now,
        )

    return NewSecret(await context.database.run(use_case), webhooks.secret_text(secret))


async def change(
    context: Context, owner: Party, endpoint_id: str, url: str, kinds: Sequence[str] | None, *, anywhere: bool = False
) -> Endpoint:
    """Replace where an endpoint is and what it is told, and enable it if it was disabled: what still waits goes out.

    Raises Malformed ``webhook_url``, NotFound ``unknown_webhook``.
    """
    webhooks.target(url, anywhere=anywhere)
    _check_kinds(owner, kinds)
    values = {"url": url, "kinds": None if kinds is None else list(kinds)}
    values |= {"state": "active", "reason": None, "failing_since": None}

    async def use_case(connection: Connection) -> Endpoint:
        return await storage.change(connection, owner.no, endpoint_id, **values)

    return await context.database.run(use_case)


async def remove(context: Context, owner: Party, endpoint_id: str) -> None:
    """Send nothing more to it. Raises NotFound ``unknown_webhook``."""

    async def use_case(connection: Connection) -> None:
        await storage.change(connection, owner.no, endpoint_id, state="removed", reason=None)

    await context.database.run(use_case)


async def rotate(context: Context, owner: Party, endpoint_id: str) -> NewSecret:
    """A new secret; the one before signs beside it for `BOTH_SIGN`. Raises NotFound ``unknown_webhook``."""
    secret = context.sources.entropy(SECRET_SIZE)

    async def use_case(connection: Connection) -> Endpoint:
        until = context.sources.clock() + BOTH_SIGN
        return await storage.rotate(connection, owner.no, endpoint_id, secret, until)

    return NewSecret(await context.database.run(use_case), webhooks.secret_text(secret))


async def listed(context: Context, owner: Party) -> list[Endpoint]:
    """A participant's endpoints, oldest first."""
    async with context.database.read() as connection:
        return await storage.listed(connection, owner.no)


async def of_everybody(context: Context, *, party_id: str | None = None, troubled: bool = False) -> list[Listening]:
    """For the operator: everybody's endpoints, or one participant's; `troubled`: those that fail or are disabled."""
    async with context.database.read() as connection:
        return await storage.of_everybody(connection, party_id=party_id, troubled=troubled)


async def owner(context: Context, endpoint_id: str) -> Party:
    """For the operator: whose endpoint that is. Raises NotFound ``unknown_webhook``."""
    async with context.database.read() as connection:
        return await parties.by_number(connection, await storage.owner_no(connection, endpoint_id))


async def test(context: Context, owner: Party, endpoint_id: str) -> None:
    """Tell one endpoint that it is being tested. Raises NotFound ``unknown_webhook``, Conflict ``webhook_disabled``."""

    async def use_case(connection: Connection) -> None:
        endpoint = await _active(connection, owner, endpoint_id)
        subject = context.sources.new_id("tst")
        data = {"webhook": endpoint_id}
        await events.tell(context, connection, owner.no, "webhook.test", subject, data, only=endpoint.no)

    await context.database.run(use_case)


async def deliveries(
    context: Context, owner: Party, endpoint_id: str, *, before: int | None, limit: int, state: str | None = None
) -> list[Delivery]:
    """An endpoint's deliveries from the newest down. Raises NotFound ``unknown_webhook``."""
    async with context.database.read() as connection:
        endpoint = await storage.get(connection, owner.no, endpoint_id)
        return await storage.deliveries(connection, endpoint.no, before=before, limit=limit, state=state)


async def deliver_again(context: Context, owner: Party, endpoint_id: str, event_id: str) -> Delivery:
    """Make a delivery due now, and give it its whole time again.

    Raises NotFound ``unknown_webhook`` or ``unknown_delivery``, Conflict ``webhook_disabled``.
    """

    async def use_case(connection: Connection) -> Delivery:
        endpoint = await _active(connection, owner, endpoint_id)
        now = context.sources.clock()
        return await storage.again(connection, endpoint.no, event_id, now, now + RETRIED_FOR)

    return await context.database.run(use_case)


async def deliver(context: Context, poster: Poster) -> int:
    """Try every delivery that is due, until none is or `MOST_A_TURN` were tried; returns how many were.

    One endpoint that hangs takes one of the `AT_ONCE` places and holds up nobody else's deliveries.
    """
    running: dict[asyncio.Task[None], int] = {}
    tried = 0
    try:
        while True:
            free = min(AT_ONCE - len(running), MOST_A_TURN - tried)
            claimed = await _claim(context, list(running.values()), free) if free else []
            for each in claimed:
                running[asyncio.create_task(_attempt(context, poster, each))] = each.endpoint_no
            tried += len(claimed)
            if not running:
                return tried
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def tidy(context: Context) -> tuple[int, int]:
    """End deliveries whose time has run out, and delete events that are older than `KEPT`; how many of each."""

    async def use_case(connection: Connection) -> tuple[int, int]:
        now = context.sources.clock()
        return await storage.give_up(connection, now), await storage.forget(connection, now - KEPT)

    return await context.database.run(use_case)


async def _claim(context: Context, busy: Sequence[int], limit: int) -> list[Claimed]:
    async def use_case(connection: Connection) -> list[Claimed]:
        now = context.sources.clock()
        return await storage.claim(connection, now, now + LOST_AFTER, busy, limit)

    return await context.database.run(use_case)


async def _attempt(context: Context, poster: Poster, claimed: Claimed) -> None:
    sent_at = context.sources.clock()
    headers = webhooks.headers(claimed.event_id, sent_at, claimed.body, claimed.secrets, context.key)
    answer = await poster.post(claimed.url, headers, claimed.body)

    async def use_case(connection: Connection) -> None:
        await _record(context, connection, claimed, answer)

    await context.database.run(use_case)


async def _record(context: Context, connection: Connection, claimed: Claimed, answer: Answer) -> None:
    now = context.sources.clock()
    if answer.error is None:
        assert answer.status is not None, "what was answered has a status"
        await storage.delivered(connection, claimed, answer.status, now)
        return
    next_at = now + webhooks.wait(claimed.failures + 1, context.sources.entropy(2))
    since = await storage.failed(connection, claimed, answer.status, answer.error, now, next_at)
    if answer.error == "gone":
        await storage.disable(connection, claimed.endpoint_no, "gone")
    elif now - since >= RETRIED_FOR:
        await storage.disable(connection, claimed.endpoint_no, "failing")


async def _active(connection: Connection, owner: Party, endpoint_id: str) -> Endpoint:
    endpoint = await storage.get(connection, owner.no, endpoint_id)
    if endpoint.state != "active":
        raise Conflict("webhook_disabled", "this webhook is disabled; change it to enable it")
    return endpoint


def _check_kinds(owner: Party, kinds: Sequence[str] | None) -> None:
    for number, kind in enumerate(kinds or ()):
        if owner.kind not in webhooks.KINDS.get(kind, frozenset()):
            detail = f"there is no such event for a {owner.kind}"
            problem = Problem(f"/events/{number}", "webhook_event", detail)
            raise Malformed("webhook_event", detail, (problem,))
