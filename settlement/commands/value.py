"""`settlement value`: how the value of a CU would have moved, and the report against the published targets."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import Json, answer, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from governance.stability import Design, Target

app = typer.Typer(help="The value of a CU: backtest of the index.")


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

    closes = read_closes(prices)
    first, last = date.fromisoformat(since), date.fromisoformat(until)
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


def _row(design: Design) -> list[object]:
    found = design.figures
    numbers = [*found.volatility, *found.moves, *found.gap, found.below_half_of_bitcoin or 0.0, found.in_range]
    return [design.name, *(f"{number:.1f}" for number in numbers)]


def _targets(met: Sequence[Target]) -> list[str]:
    rows = [[each.name, each.wanted, each.found, "met" if each.met else "missed"] for each in met]
    return table(["target", "wanted", "found", ""], rows)
