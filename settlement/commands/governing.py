"""`settlement rates` and `halts`: what the operator decides."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import FAILED, Json, answer, read, table, with_installation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from settlement.bootstrap import Installation
    from settlement.core.rates import RateTable
    from settlement.storage.governance import Signed
    from settlement.storage.halts import Halt

    Publish = Callable[[Any, bytes, list[dict[str, str]]], Awaitable[Signed]]

rates_app = typer.Typer(help="Rate tables: build, publish, show.")
halts_app = typer.Typer(help="What stands in the way of payouts and anchors.")


@rates_app.command("publish")
def publish_rates(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `rates build` wrote; - is standard input.")],
    as_json: Json = False,
) -> None:
    """Sign a rate table with the operator's key and publish it. It is refused if it would hold for the past."""
    from governance.service import publish_rates as publish

    published("rate table", file, publish, as_json=as_json)


def published(what: str, file: Path, publish: Publish, *, as_json: bool) -> None:
    """Sign a governed document of a file with the operator's key, publish it, and say what it is now."""
    document = read(file, what)

    async def use(installation: Installation) -> dict[str, Any]:
        from settlement.core import times
        from settlement.core.signatures import sign_document

        context = installation.context
        signed = await publish(context, document, [sign_document(context.key, document)])
        return {
            "version": signed.version,
            "digest": f"sha256:{signed.digest.hex()}",
            "effective_from": times.text(signed.effective_from),
        }

    found = with_installation(use)
    line = f"{what} {found['version']} is published and holds from {found['effective_from']}  {found['digest']}"
    answer(found, [line], as_json=as_json)


@rates_app.command("show")
def show_rates(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A model or alias; default: all models.")] = "",
    as_json: Json = False,
) -> None:
    """Show the rates in force, in microCU per 1,000,000 units of a meter."""

    async def use(installation: Installation) -> RateTable:
        from settlement.core import rates
        from settlement.services import reading

        return rates.parse((await reading.rates(installation.context, None)).document)

    from settlement.core import times
    from settlement.core.errors import NotFound

    found = with_installation(use)
    name = found.resolve(model)
    if model and name is None:
        raise NotFound("model_unknown", f"rate table {found.version} has no model {model}")
    rows = [
        (each, tier, band.above_input_tokens, meter, rate)
        for each in sorted([name] if name else found.models)
        for tier, terms in sorted(found.models[each].tiers.items())
        for band in terms.bands
        for meter, rate in sorted(band.rates.items())
    ]
    titles = ("model", "tier", "above_input_tokens", "meter", "rate")
    since = times.text(found.effective_from)
    document = {
        "version": found.version,
        "digest": found.digest,
        "effective_from": since,
        "rates": [dict(zip(titles, row, strict=True)) for row in rows],
    }
    head = f"rate table {found.version}, in force since {since}, {found.digest}"
    answer(document, [head, *table([title.replace("_", " ") for title in titles], rows)], as_json=as_json)


@halts_app.command("list")
def list_halts(as_json: Json = False) -> None:
    """List the open halts, oldest first."""

    async def use(installation: Installation) -> list[Halt]:
        from settlement.services import halts

        return await halts.open_halts(installation.context)

    from settlement.core import times

    rows = [
        {"no": halt.no, "at": times.text(halt.at), "code": halt.code, "detail": halt.detail}
        for halt in with_installation(use)
    ]
    lines = table(["no", "at", "code", "detail"], [list(row.values()) for row in rows]) if rows else ["nothing halts"]
    answer(rows, lines, as_json=as_json)


@halts_app.command("clear")
def clear_halt(
    no: Annotated[int, typer.Argument(metavar="NO", help="The halt's number, as `halts list` shows it.")],
    reason: Annotated[str, typer.Option("--reason", help="What you found, for the record.")],
    as_json: Json = False,
) -> None:
    """End a halt after you have looked into it. Payouts and anchors go on when no other is open."""
    if not reason.strip():
        typer.echo("settlement: reason_missing: say in --reason what you found", err=True)
        raise typer.Exit(FAILED)

    async def use(installation: Installation) -> tuple[Halt, int]:
        from settlement.services import halts

        cleared = await halts.clear(installation.context, no, f"{getpass.getuser()}: {reason.strip()}")
        return cleared, len(await halts.open_halts(installation.context))

    cleared, left = with_installation(use)
    document = {"no": cleared.no, "code": cleared.code, "cleared_by": cleared.cleared_by, "open": left}
    answer(document, [f"cleared halt {cleared.no} ({cleared.code}); {left} still open"], as_json=as_json)
