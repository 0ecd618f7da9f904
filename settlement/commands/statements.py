"""`settlement statement` and `settlement reconcile`: a participant's window, and its own log beside it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from settlement.commands.evidence import TrustedKey, stop_at, trusted_jwk
from settlement.commands.running import BROKEN, Json, Out, answer, cu, read, window_number, with_installation, writing

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.services.forms import Name

app = typer.Typer(help="What a party needs to recompute its window.")


class Format(StrEnum):
    """How a statement is written."""

    JSON = "json"
    CSV = "csv"
    FOCUS_12 = "focus-1.2"
    FOCUS_13 = "focus-1.3"
    HTML = "html"


@app.command("get")
def get(
    party: Annotated[str, typer.Option("--party", metavar="ID", help="The participant's id, acc_... or prv_...")],
    window: Annotated[
        int, typer.Option("--window", metavar="N", parser=window_number, help="The window: its number, or win_N.")
    ],
    form: Annotated[Format, typer.Option("--format", help="json is all of it, html a page to print.")] = Format.JSON,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write all that a participant needs to recompute its window alone."""
    name: Name = form.value
    with writing(out) as write:
        records, closing = with_installation(lambda found: _write(found, party, window, name, write))
    if out is not None and str(out) != "-":
        document = {"file": str(out), "records": records, "closing": closing}
        answer(document, [f"{records} records, closing balance {cu(int(closing))}: {out}"], as_json=as_json)


async def _write(
    installation: Installation, party: str, window: int, form: Name, write: Callable[[bytes], object]
) -> tuple[int, str]:
    """Write a statement as it is read; returns how many records it has, and its closing balance."""
    from settlement.services import statements
    from settlement.services.forms import FORMS

    async with statements.opened(installation.context, party, window) as found:
        async for piece in FORMS[form].pieces(found):
            write(piece)
        return sum(pair["records"] for pair in found.head["pairs"]), found.head["closing"]


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A statement/1 document; - is standard input.")],
    key: TrustedKey = None,
    as_json: Json = False,
) -> None:
    """Recompute a statement offline, to the last microCU, from the file alone."""
    from settlement.client.statements import recompute_statement

    document = read(file, "statement")
    result = recompute_statement(document, trusted_key=trusted_jwk(key, document))
    stop_at(result.fault, as_json=as_json)
    found = {"good": True, "records": result.records, "posted": str(result.posted), "closing": str(result.closing)}
    lines = [f"good: {result.records} records rated again, {cu(result.posted)} posted, closing {cu(result.closing)}"]
    answer({**found, "trusted": key is not None}, lines, as_json=as_json)


def reconcile(
    log: Annotated[Path, typer.Argument(metavar="MYLOG", help="Your own log: CSV with a header, or JSON lines.")],
    statement: Annotated[Path, typer.Argument(metavar="STATEMENT", help="The statement/1 of the same time.")],
    as_json: Json = False,
) -> None:
    """Compare your own log of calls with a statement, offline: differences by kind. Exit 2 when there are any."""
    from settlement.client import reconcile

    found = reconcile.compare(read(log, "log"), read(statement, "statement"))
    document = {
        "good": found.good,
        "matched": found.matched,
        "logged": found.logged,
        "billed": found.billed,
        "differences": [
            {"kind": each.kind, "id": each.id, "detail": each.detail, "charge_pico": str(each.pico)}
            for each in found.differences
        ],
    }
    lines = [f"{found.matched} of {found.logged} logged and {found.billed} billed requests are the same"]
    for kind, of_kind in found.by_kind().items():
        lines.append(f"{kind}: {len(of_kind)}, charged {cu(sum(each.pico for each in of_kind) // 10**6)}")
        lines += [f"  {each.id}  {each.detail}" for each in of_kind[:20]]
        lines += [f"  and {len(of_kind) - 20} more: --json has all of them"] if len(of_kind) > 20 else []
    answer(document, lines if found.differences else [*lines, "no differences"], as_json=as_json)
    if not found.good:
        raise typer.Exit(BROKEN)
