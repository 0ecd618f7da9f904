"""`settlement value`: observations, fixings and the stability report of the index, and how it would have moved."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import FAILED, Json, answer, read, table, with_installation
from settlement.commands.usage import TIMEOUT_SECONDS, document_of, own_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from governance.stability import Design, Target
    from settlement.bootstrap import Installation
    from settlement.core.value import Fixing

app = typer.Typer(help="The index of a CU's value: observe, fix, report, backtest.")


@app.command()
def backtest(
    prices: Annotated[Path, typer.Option("--prices", metavar="FILE", help="CSV: date, asset, close_usd; or .gz.")],
    since: Annotated[str, typer.Option("--since", metavar="DATE", help="First day.")] = "2018-01-01",
    until: Annotated[str, typer.Option("--until", metavar="DATE", help="Last day.")] = "2025-09-30",
    seed: Annotated[int, typer.Option("--seed", help="Of the simulated series.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Draw it as .svg or .png.")] = None,
    as_json: Json = False,
) -> None:
    """Run the index over real closes of BTC, XRP and XLM and simulated posted prices and GPU-hours.

    Volatility is that of 30 daily returns, a year's, in percent. The values come from the code that would fix them.
    """
    from governance.stability import backtest as run
    from governance.stability import days_of, read_closes, targets, volatility

    first, last = _day(since), _day(until)
    closes = read_closes(prices)
    designs = run(closes, since=first, until=last, seed=seed)
    chosen = next(each for each in designs if each.name.startswith("+ drift"))
    met = targets(chosen.figures)
    days = days_of(closes, first, last)
    titles = [
        "design", "vol p5", "vol p50", "vol p95", "vol max", "move p50", "move p95", "move max", "gap p95", "gap max",
        "below BTC/2", "in 3-20 %",
    ]  # fmt: skip
    rows = [_row(each) for each in designs]
    lines = [f"{len(days)} days from {days[0]} to {days[-1]}, seed {seed}", "", *table(titles, rows), ""]
    lines += [f"targets for {chosen.name}", *_targets(met)]
    if out is not None:
        from settlement.commands.charts import lines as drawn
        from settlement.commands.charts import save, stacked

        usd = [
            {"date": day.isoformat(), "series": each.name, "value": value / 10**12}
            for each in designs
            for day, value in zip(days, each.values.tolist(), strict=True)
        ]
        sigma = [
            {"date": day.isoformat(), "series": each.name, "value": value}
            for each in designs
            for day, value in zip(days[30:], volatility(each.values).tolist(), strict=True)
        ]
        worth = drawn(usd, y="USD per 1,000 CU", title="Value of 1,000 CU")
        save(stacked(worth, drawn(sigma, y="% a year", title="Volatility over 30 days")), out)
        lines.append(f"wrote {out}")
    document: dict[str, Any] = {
        "days": len(days),
        "designs": [dict(zip(titles, row, strict=True)) for row in rows],
        "targets": [{"name": each.name, "wanted": each.wanted, "found": each.found, "met": each.met} for each in met],
    }
    answer(document, lines, as_json=as_json)


def _day(text: str) -> date:
    from settlement.core.errors import Malformed

    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Malformed("time_malformed", f"{text} is no day such as 2018-01-01") from None


@app.command()
def observe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An observation/1 document; - is standard input.")],
    key: Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="The source's private JWK.")],
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="The service; default: where SETTLEMENT_LISTEN says.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Sign the exact bytes of FILE as a source that the policy names, and send them. Sending them again is safe."""
    import httpx2

    from settlement.core.errors import Unavailable
    from settlement.core.observations import SIGNATURE_TYPE
    from settlement.core.signatures import sign_detached
    from settlement.keystore import read_key

    body = read(file, "observation")
    headers = {
        "content-type": "application/json",
        "x-jws-signature": sign_detached(read_key(key), body, SIGNATURE_TYPE),
    }
    base = (url or own_url()).rstrip("/")
    try:
        response = httpx2.post(f"{base}/v1/observations", content=body, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable("service_unreachable", f"{base} gives no answer ({type(error).__name__})") from None
    document = document_of(response)
    answer(document, [f"kept what {document.get('source')} saw at {document.get('at')}"], as_json=as_json)


@app.command()
def feed(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Prices as CSV or JSON; - is standard input.")],
    source: Annotated[str, typer.Option("--source", metavar="NAME", help="The source whose prices they are.")],
    key: Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="The source's private JWK.")],
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Only prices of that time or later.")] = "",
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="The service; default: where SETTLEMENT_LISTEN says.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make an observation of each time in a file of prices, sign them as a source, and send them, oldest first.

    Sending a file again is safe. What the service refuses is listed, and the exit code is 1.
    """
    import httpx2

    from settlement.core import canonical, feeds, times
    from settlement.core.errors import Unavailable
    from settlement.core.observations import SIGNATURE_TYPE
    from settlement.core.signatures import sign_detached
    from settlement.keystore import read_key

    document = read(file, "prices")
    bodies = feeds.read(document, source, times.parse(since) if since else None)
    signer, base = read_key(key), (url or own_url()).rstrip("/")
    kept, refused = 0, []
    try:
        with httpx2.Client(timeout=TIMEOUT_SECONDS) as client:
            for body in bodies:
                headers = {
                    "content-type": "application/json",
                    "x-jws-signature": sign_detached(signer, body, SIGNATURE_TYPE),
                }
                response = client.post(f"{base}/v1/observations", content=body, headers=headers)
                said = response.json()
                kept += response.is_success
                refused += [] if response.is_success else [f"{said.get('code')}: {said.get('detail')}"]
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise Unavailable("service_unreachable", f"{base} gives no answer ({type(error).__name__})") from None
    found = {"source": source, "feed": canonical.digest(document), "kept": kept, "refused": refused}
    answer(found, [f"{kept} of {len(bodies)} observations kept, of {found['feed']}", *refused], as_json=as_json)
    if refused:
        raise typer.Exit(FAILED)


@app.command()
def fix(
    reset: Annotated[
        bool, typer.Option("--reset", help="Buy the basket anew at the value that stands; ends a gap.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make today's fixing from the observations on file, as the worker does when it is due."""

    async def use(installation: Installation) -> Fixing:
        from settlement.services import fixings

        return await fixings.fix(installation.context, reset=reset)

    from settlement.core import times
    from settlement.core.units import decimal_text

    made = with_installation(use)
    usd = decimal_text(made.value, 15)
    document = {"number": made.number, "at": times.text(made.at), "usd_per_cu": usd, "frozen": made.frozen}
    state = f"frozen: {made.frozen}" if made.frozen else "good"
    answer(document, [f"fixing {made.number} of {document['at']}: 1 CU is {usd} USD ({state})"], as_json=as_json)


@app.command()
def report(
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="FILE", help="Daily closes of BTC and USDC to compare with.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Draw it as .svg or .png.")] = None,
    as_json: Json = False,
) -> None:
    """Hold the fixings on file to the published targets. All but the gap need 31 of them, one a day."""

    async def use(installation: Installation) -> list[Fixing]:
        from settlement.core.observations import read_fixing
        from settlement.services import fixings

        return [read_fixing(each.document) for each in await fixings.every(installation.context)]

    from governance.stability import of_fixings, read_closes, targets

    made = with_installation(use)
    found = of_fixings(made, None if prices is None else read_closes(prices))
    met = targets(found)
    frozen = [f"{each.number}: {each.frozen}" for each in made if each.frozen]
    lines = [f"{len(made)} fixings, {len(frozen)} of them frozen", *frozen, "", *_targets(met)]
    if out is not None:
        from settlement.commands.charts import lines as drawn
        from settlement.commands.charts import save

        rows = [
            {"date": each.at.date().isoformat(), "series": name, "value": count / 10**12}
            for each in made
            for name, count in (("value", each.value), ("basket", each.basket))
        ]
        save(drawn(rows, y="USD per 1,000 CU", title="Value of 1,000 CU"), out)
        lines.append(f"wrote {out}")
    document = {
        "fixings": len(made),
        "frozen": frozen,
        "targets": [{"name": each.name, "wanted": each.wanted, "found": each.found, "met": each.met} for each in met],
    }
    answer(document, lines, as_json=as_json)


def _row(design: Design) -> list[object]:
    found = design.figures
    numbers = [*found.volatility, *found.moves, *found.gap, found.below_half_of_bitcoin or 0.0, found.in_range]
    return [design.name, *(f"{number:.1f}" for number in numbers)]


def _targets(met: Sequence[Target]) -> list[str]:
    words = {True: "met", False: "missed", None: "too few days"}
    rows = [[each.name, each.wanted, each.found, words[each.met]] for each in met]
    return table(["target", "wanted", "found", ""], rows)
