"""`settlement meter`: what a provider runs beside its model server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from settlement.commands.running import Json, answer, read

app = typer.Typer(help="Meter a model server: normalise usage, authorise calls, report what was used.")


@app.command()
def normalise(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Recorded exchanges (a JSON object a line, also as .gz; or one array), one answer, or the text of a "
            "stream; - is standard input.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Turn recorded exchanges into exact meters or named refusals, and print the table of outcomes by vendor."""
    from settlement.meter.exchanges import read_exchanges
    from settlement.meter.outcomes import lines, tabulate

    rows = tabulate(read_exchanges(read(file, "file of exchanges")))
    unread = rows["all"].unread
    text = lines(rows)
    if unread:
        text += ["", "counts that no dialect reads:", *(f"  {path} {count}" for path, count in sorted(unread.items()))]
    answer({vendor: row.document() for vendor, row in rows.items()}, text, as_json=as_json)
