"""`settlement retention`: what leaves the database and when, and whose salts are deleted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import Json, Out, answer, table, with_installation, writing

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.services.retention import Standing

app = typer.Typer(help="What leaves the database, and what is deleted.")


@app.command("show")
def show(as_json: Json = False) -> None:
    """Show the rules in force, which windows have left as segments, which may, and who asked for an erasure."""

    async def use(installation: Installation) -> Standing:
        from settlement.services import retention

        return await retention.standing(installation.context)

    from settlement.core import datamap, sections, times

    found = with_installation(use)
    document: dict[str, Any] = {
        "rules": sections.members(found.rules),
        "data_map": datamap.digest(),
        "agreed": found.rules.data_map == datamap.digest(),
        "left": [
            {
                "window": f"win_{each.window_no}",
                "at": times.text(each.at),
                "records": each.records,
                "reports": each.reports,
                "records_digest": f"sha256:{each.records_digest.hex()}",
                "reports_digest": f"sha256:{each.reports_digest.hex()}",
            }
            for each in found.left
        ],
        "due": [f"win_{number}" for number in found.due],
        "erasures": [{"party": party, "at": times.text(at), "reason": why} for party, at, why in found.erasures],
        "salts_due": found.salts_due,
    }
    cells = [[each["window"], each["at"], each["records"], each["reports"]] for each in document["left"]]
    lines = [
        f"rows stay      {found.rules.keep_rows.days} days after a window's close",
        f"salts stay     {found.rules.keep_salts.days} days at least",
        f"evidence stays {found.rules.keep_evidence.days} days at least",
        f"data map       {datamap.digest()}" + ("" if document["agreed"] else " (the policy names another, or none)"),
        f"may leave      {', '.join(document['due']) or 'nothing'}",
        f"erasures       {len(found.erasures)} asked for, {found.salts_due} salts due",
        *(table(["left", "at", "records", "reports"], cells) if cells else []),
    ]
    answer(document, lines, as_json=as_json)


@app.command("run")
def run(as_json: Json = False) -> None:
    """Erase the salts that are due and let every window leave that may, as the worker does each day."""

    async def use(installation: Installation) -> tuple[list[str], int]:
        from settlement.services import retention

        left, erased = await retention.run(installation.context)
        return [f"win_{each.window_no}" for each in left], erased

    left, erased = with_installation(use)
    answer({"left": left, "erased": erased}, [f"left: {', '.join(left) or 'none'}; salts erased: {erased}"],
           as_json=as_json)  # fmt: skip


@app.command("erase")
def erase(
    party: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The consumer who asked, acc_...")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What was asked, by whom, where it is kept.")],
    as_json: Json = False,
) -> None:
    """Forget a consumer: its name now, its salts as the policy's time for each window ends. For good."""

    async def use(installation: Installation) -> tuple[bool, int]:
        from settlement.services import retention

        new = await retention.erase(installation.context, party, reason)
        return new, await retention.erase_due(installation.context)

    new, erased = with_installation(use)
    said = "on record" if new else "on record since it was first asked"
    answer({"party": party, "new": new, "erased": erased}, [f"{said}; {erased} salts erased"], as_json=as_json)


@app.command("map")
def data_map(out: Out = None) -> None:
    """Write this release's data map (data-map/1), whose digest a policy names."""
    from settlement.core import datamap

    chosen: Path | None = out
    with writing(chosen) as write:
        write(datamap.document() + b"\n")
