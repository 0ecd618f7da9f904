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


@app.command()
def proxy(
    upstream: Annotated[str, typer.Option("--upstream", metavar="URL", help="The model server.")],
    service: Annotated[str, typer.Option("--service", metavar="URL", help="The settlement service.")],
    provider: Annotated[str, typer.Option("--provider", metavar="ID", help="Your provider id, prv_...")],
    key: Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="Your private JWK: it signs reports.")],
    spool: Annotated[Path, typer.Option("--spool", metavar="DIR", help="Where usage is kept until it is answered.")],
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where consumers call.")] = (
        "127.0.0.1:8090"
    ),
    final: Annotated[
        str, typer.Option("--final", metavar="ACTION", help="When a balance ends: stop, redirect, or absorb:LIMIT.")
    ] = "stop",
    first_slice: Annotated[
        int, typer.Option("--slice", metavar="TOKENS", help="The first slice, 10 to 4096; 0 lets the service choose.")
    ] = 0,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=MODEL", help="A name that clients use, and the rate table's."),
    ] = None,
) -> None:
    """Meter a model server: hold, stream through, count, report. Runs until it is stopped.

    SETTLEMENT_METER_API_KEY is the provider's API key with the scope holds, SETTLEMENT_METER_UPSTREAM_KEY the model
    server's own key, if it wants one.
    """
    import asyncio

    from settlement.commands.metering import Chosen, model_names, run_proxy
    from settlement.commands.siblings import listening_on
    from settlement.config import parse_listen
    from settlement.keystore import read_key

    host, port = parse_listen(listen, "--listen")
    chosen = Chosen(
        upstream=upstream,
        service=service,
        provider=provider,
        key=read_key(key),
        spool=spool,
        host=host,
        port=port,
        final=final,
        slice_tokens=first_slice or None,
        models=model_names(model or ()),
    )
    with listening_on(host, port) as (bound,):
        asyncio.run(run_proxy(chosen, bound))


@app.command()
def status(
    spool: Annotated[Path, typer.Option("--spool", metavar="DIR", help="The spool's folder.")], as_json: Json = False
) -> None:
    """Say what is in a spool: records that wait, reports without an answer, records that were refused and why."""
    from settlement.meter.spool import status as read_status

    found = read_status(spool)
    refused = ", ".join(f"{code} {count}" for code, count in found["refused"].items()) or "none"
    text = [
        f"waiting     {found['waiting']} records",
        f"reports     {found['reports']}, {found['unanswered']} without an answer",
        f"refused     {refused}",
    ]
    answer(found, text, as_json=as_json)


@app.command()
def begin(
    spool: Annotated[Path, typer.Option("--spool", metavar="DIR", help="An empty spool's folder.")],
    seq: Annotated[int, typer.Option("--seq", metavar="N", help="Number of the last report that was sent.")],
    digest: Annotated[str, typer.Option("--digest", metavar="DIGEST", help="Its body's digest, sha256:...")],
) -> None:
    """Let a new spool go on behind reports that were made elsewhere: their chain does not begin again."""
    from settlement.meter.reports import begin_at

    begin_at(spool, seq, digest)
    answer({"seq": seq + 1, "prev": digest}, [f"the next report is number {seq + 1}"], as_json=False)
