"""`settlement providers` and `consumers`: who takes part, and who may not for now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from settlement.commands.running import Json, answer, table, with_installation

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.storage.parties import Party

providers_app = typer.Typer(help="Providers: list, admit, suspend.")
consumers_app = typer.Typer(help="Consumers: list, admit, suspend.")

Provider = Annotated[str, typer.Argument(metavar="ID", help="The provider's id, prv_...")]
Consumer = Annotated[str, typer.Argument(metavar="ID", help="The consumer's id, acc_...")]
Kind = Literal["consumer", "provider"]
Status = Literal["active", "suspended"]


@providers_app.command("list")
def list_providers(as_json: Json = False) -> None:
    """List all providers in order of registration."""
    _list("provider", as_json)


@providers_app.command("admit")
def admit_provider(provider: Provider, as_json: Json = False) -> None:
    """Let a provider's usage reports be taken, be it pending or suspended."""
    _set_status(provider, "active", "provider", as_json)


@providers_app.command("suspend")
def suspend_provider(provider: Provider, as_json: Json = False) -> None:
    """Take no more usage reports of a provider. What was taken stands and is paid."""
    _set_status(provider, "suspended", "provider", as_json)


@consumers_app.command("list")
def list_consumers(as_json: Json = False) -> None:
    """List all consumers in order of registration."""
    _list("consumer", as_json)


@consumers_app.command("admit")
def admit_consumer(consumer: Consumer, as_json: Json = False) -> None:
    """Let a suspended consumer's account be charged again."""
    _set_status(consumer, "active", "consumer", as_json)


@consumers_app.command("suspend")
def suspend_consumer(consumer: Consumer, as_json: Json = False) -> None:
    """Charge nothing more to a consumer: its usage records are refused one by one. Its balance stays its own."""
    _set_status(consumer, "suspended", "consumer", as_json)


def _list(kind: Kind, as_json: bool) -> None:
    async def use(installation: Installation) -> list[Party]:
        from settlement.services import participants

        return await participants.listed(installation.context, kind)

    from settlement.core import times

    rows: list[dict[str, Any]] = []
    for party in with_installation(use):
        account = {"account": party.account_id} if kind == "provider" else {}
        since = times.text(party.created_at)
        rows.append({"id": party.id, "name": party.name, "status": party.status, **account, "registered_at": since})
    titles = [kind, "name", "status", *(["account"] if kind == "provider" else []), "registered at"]
    answer(rows, table(titles, [[cell or "-" for cell in row.values()] for row in rows]), as_json=as_json)


def _set_status(party: str, status: Status, kind: Kind, as_json: bool) -> None:
    async def use(installation: Installation) -> str:
        from settlement.services import participants

        return await participants.set_status(installation.context, party, status, kind=kind)

    before = with_installation(use)
    document = {"id": party, "status": status, "before": before}
    answer(document, [f"{party} is {status}, was {before}"], as_json=as_json)
