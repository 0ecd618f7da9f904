"""`settlement window` and `settlement chain`: settling by hand what the worker settles by the clock."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import FAILED, HALTED, Json, answer, progress, table, with_installation

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.services.chains import Progress

window_app = typer.Typer(help="Settlement windows.")
chain_app = typer.Typer(help="Payouts and anchors on the chains.")

PAUSE_SECONDS = 0.5
PASSES = 1200


@window_app.command("close")
def close_window(
    now: Annotated[
        bool, typer.Option("--now", help="Close the open window even if it isn't due (SETTLEMENT_WINDOW_SECONDS).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Close the open window if it is due, net it, make its checkpoint, and plan payouts and anchors."""

    async def use(installation: Installation) -> tuple[dict[str, Any], list[str], bool]:
        from settlement.jobs import plan_payouts
        from settlement.services import halts, windows

        context = installation.context
        closed = await windows.close(context) if now else await windows.close_due(context, installation.settings.window)
        with progress("settling windows") as advance:
            steps = await windows.advance(context, plan=plan_payouts)
            advance(len(steps))
        halted = await halts.open_halts(context)
        document = {
            "closed": None if closed is None else closed.id,
            "steps": [{"window": f"win_{step.window}", "step": step.name} for step in steps],
            "halts": [halt.code for halt in halted],
        }
        lines = ["no window is due" if closed is None else f"closed {closed.id}"]
        lines += [f"win_{step.window}: {step.name}" for step in steps]
        lines += [f"halted: {halt.code}: {halt.detail}" for halt in halted]
        return document, lines, bool(halted)

    document, lines, halted = with_installation(use)
    answer(document, lines, as_json=as_json)
    if halted:
        raise typer.Exit(HALTED)


@window_app.command("list")
def list_windows(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, from the newest down.")] = 20,
    as_json: Json = False,
) -> None:
    """List windows from the newest down, with how far each has come."""

    async def use(installation: Installation) -> list[dict[str, Any]]:
        from settlement.core import times
        from settlement.services import reading

        found = await reading.window_page(installation.context, before=None, limit=limit)
        return [
            {
                "id": view.window.id,
                "state": view.window.state,
                "opened_at": times.text(view.window.opened_at),
                "closed_at": view.window.closed_at and times.text(view.window.closed_at),
                "anchored_at": view.window.anchored_at and times.text(view.window.anchored_at),
                "checkpoint": view.checkpoint and f"sha256:{view.checkpoint.hex()}",
            }
            for view in found
        ]

    rows = with_installation(use)
    titles = ["window", "state", "opened at", "closed at", "anchored at", "checkpoint"]
    answer(rows, table(titles, [[cell or "-" for cell in row.values()] for row in rows]), as_json=as_json)


@chain_app.command("run")
def run_chains(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Go on until every order has ended, for at most ten minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read deposits, send planned payouts and anchors, and find out what became of those that are out."""

    async def use(installation: Installation) -> dict[str, dict[str, Any]]:
        from settlement.services import funding

        found = {}
        for name in installation.context.chains:
            deposits = await funding.read_deposits(installation.context, name)
            done = await _passes(installation, name, PASSES if until_idle else 1)
            found[name] = {"deposits": deposits, **asdict(done), "idle": done.idle}
        return found

    found = with_installation(use)
    titles = ["chain", *(title.replace("_", " ") for title in next(iter(found.values())))]
    rows = [[name, *done.values()] for name, done in found.items()]
    answer(found, table(titles, rows), as_json=as_json)
    if any(done["halted"] for done in found.values()):
        raise typer.Exit(HALTED)
    if until_idle and not all(done["idle"] for done in found.values()):
        typer.echo("settlement: chain_not_idle: some orders have not ended yet; run this again", err=True)
        raise typer.Exit(FAILED)


async def _passes(installation: Installation, name: str, passes: int) -> Progress:
    from settlement.services import chains

    with progress(f"settling on {name}") as advance:

        async def pause() -> None:
            advance(1)
            await asyncio.sleep(PAUSE_SECONDS)

        return await chains.run_until_idle(installation.context, name, max_passes=passes, pause=pause)
