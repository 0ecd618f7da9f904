"""The demonstration's report: a few lines for people, or one JSON document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from settlement.client.verifier import Report as Verdict
from settlement.core.units import cu_text, decimal_text
from settlement.demo.figures import Figures
from settlement.demo.traffic import GENERATED_RATE, Request

if TYPE_CHECKING:
    from settlement.demo.play import Options

FEE_PLACES = 6
"""Decimal places of the simulated network's own coin."""


def traffic_line(requests: Sequence[Request], options: Options) -> str:
    """What is played: a real trace by its name, or made-up traffic, said as such."""
    minutes = requests[-1].offset // 60_000_000
    if options.trace:
        return f"  {len(requests):,} requests of the trace {options.trace.name}, {minutes:,} minutes of real traffic"
    source = "the published quantiles of a production chat trace"
    return f"  {len(requests):,} requests, generated from {source} at {GENERATED_RATE}/s: not real traffic"


def show(
    console: Console, figures: Figures, verdict: Verdict, seconds: float, options: Options, fee_asset: str
) -> None:
    """Print the report; with `as_json` one document on standard output."""
    document = as_document(figures, verdict, seconds, options, fee_asset)
    if options.as_json:
        print(json.dumps(document))
        return
    table = Table(show_header=False, box=None, padding=(0, 2))
    for label, value in (
        (
            "usage records charged",
            f"{figures.records:,} in {figures.reports:,} signed reports, {figures.refused} refused",
        ),
        ("gross, owed between parties", f"{document['gross_cu']} CU"),
        ("net, paid out or still owed", f"{document['net_cu']} CU"),
        ("value netting", f"{document['netting_percent']} % (only parties on both sides can be netted)"),
        ("paid out on chain", f"{document['paid_cu']} CU in {figures.payouts} payouts"),
        ("carried, below the minimum payout", f"{document['carried_cu']} CU"),
        ("windows closed and anchored", f"{figures.windows}, {figures.transactions['anchor']} anchors"),
        (
            "chain transactions used",
            f"{document['chain_transactions']} ({figures.records:,} if each request paid by itself)",
        ),
        ("fees", f"{document['fees']} {fee_asset}"),
        ("fee per settled request", f"{document['fee_per_request']} {fee_asset}"),
        ("deposits", f"{figures.deposits}, of which {figures.suspense} in suspense"),
        ("time taken", f"{document['seconds']} s"),
        ("verified offline", document["verified"]),
    ):
        table.add_row(label, str(value))
    console.print(table)
    console.print(
        "Where to look: [bold]settlement verify[/bold], [bold]settlement audit export[/bold], docs/tutorial.md"
    )


def as_document(
    figures: Figures, verdict: Verdict, seconds: float, options: Options, fee_asset: str
) -> dict[str, object]:
    """The same figures for programs."""
    per_request = figures.fee * 10**6 // figures.records if figures.records else 0
    return {
        "traffic": options.trace.name if options.trace else "generated",
        "seed": options.seed,
        "records": figures.records,
        "refused": figures.refused,
        "reports": figures.reports,
        "gross_cu": cu_text(figures.gross),
        "net_cu": cu_text(figures.gross - figures.netted),
        "netting_percent": decimal_text(figures.ratio, 2),
        "paid_cu": cu_text(figures.paid),
        "carried_cu": cu_text(figures.unpaid),
        "payouts": figures.payouts,
        "windows": figures.windows,
        "chain_transactions": sum(figures.transactions.values()),
        "fees": decimal_text(figures.fee, FEE_PLACES),
        "fee_asset": fee_asset,
        "fee_per_request": decimal_text(per_request, FEE_PLACES + 6),
        "deposits": figures.deposits,
        "suspense": figures.suspense,
        "seconds": round(seconds, 1),
        "verified": "everything adds up" if verdict.fault is None else f"BROKEN: {verdict.fault}",
    }
