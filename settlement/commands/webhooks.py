"""`settlement webhooks`: whose endpoints fail, what became of their deliveries, and sending one again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import Json, answer, table, with_installation

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.storage.webhooks import Delivery, Listening

app = typer.Typer(help="Webhooks of participants: list, deliveries, deliver-again.")

Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id, whk_...")]


@app.command("list")
def list_webhooks(
    party: Annotated[str, typer.Option("--party", metavar="ID", help="Only this participant's.")] = "",
    troubled: Annotated[bool, typer.Option("--troubled", help="Only those that fail or are disabled.")] = False,
    as_json: Json = False,
) -> None:
    """List everybody's endpoints, and what waits for each."""

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.services import webhooks

        found = await webhooks.of_everybody(installation.context, party_id=party or None, troubled=troubled)
        return [_listening(each) for each in found]

    rows = with_installation(use)
    titles = ["webhook", "party", "state", "failing_since", "pending", "failed", "waiting_since", "url"]
    shown = [["-" if each[title] is None else each[title] for title in titles] for each in rows]
    answer(rows, table(titles, shown) if rows else ["no webhooks"], as_json=as_json)


@app.command()
def deliveries(
    webhook: Webhook,
    state: Annotated[str, typer.Option("--state", metavar="STATE", help="pending, delivered or failed.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """List an endpoint's deliveries from the newest down."""
    if state not in ("", "pending", "delivered", "failed"):
        raise typer.BadParameter("pending, delivered or failed", param_hint="--state")

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.services import webhooks

        owner = await webhooks.owner(installation.context, webhook)
        found = await webhooks.deliveries(
            installation.context, owner, webhook, before=None, limit=limit, state=state or None
        )
        return [_delivery(each) for each in found]

    rows = with_installation(use)
    titles = ["event", "kind", "state", "attempts", "next_at", "status", "error"]
    shown = [["-" if each[title] is None else each[title] for title in titles] for each in rows]
    answer(rows, table(titles, shown) if rows else ["no deliveries"], as_json=as_json)


@app.command("deliver-again")
def deliver_again(
    webhook: Webhook,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Its id, evt_...")],
    as_json: Json = False,
) -> None:
    """Make a delivery due now, whatever became of it, with its three days before it."""

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.services import webhooks

        owner = await webhooks.owner(installation.context, webhook)
        return _delivery(await webhooks.deliver_again(installation.context, owner, webhook, event))

    found = with_installation(use)
    answer(found, [f"{event} is due now at {webhook}"], as_json=as_json)


def _listening(found: Listening) -> dict[str, Any]:
    from settlement.core import times

    endpoint = found.endpoint
    failing, waiting = (None if at is None else times.text(at) for at in (endpoint.failing_since, found.waiting_since))
    return {
        "webhook": endpoint.id,
        "party": found.party,
        "url": endpoint.url,
        "events": None if endpoint.kinds is None else list(endpoint.kinds),
        "state": endpoint.state,
        "reason": endpoint.reason,
        "failing_since": failing,
        "pending": found.pending,
        "failed": found.failed,
        "waiting_since": waiting,
    }


def _delivery(found: Delivery) -> dict[str, Any]:
    from settlement.core import times

    return {
        "event": found.event_id,
        "kind": found.kind,
        "state": found.state,
        "attempts": found.attempts,
        "next_at": times.text(found.next_at) if found.state == "pending" else None,
        "last_at": None if found.last_at is None else times.text(found.last_at),
        "status": found.status,
        "error": found.error,
    }
