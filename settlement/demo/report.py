"""The demonstration's report: a few lines for people, or one JSON document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from settlement.client.verifier import Report as Verdict
from settlement.core.units import cu_text, decimal_text
from settlement.demo.figures import Figures
from settlement.demo.traffic import Request

if TYPE_CHECKING:
    from settlement.demo.play import Options

FEE_PLACES = 6
"""Decimal places of the simulated network's own coin."""


def traffic_line(requests: Sequence[Request], options: Options) -> str:
    """What is played: a real trace by its name, or made-up traffic, said as such."""
    minutes = requests[-1].offset // 60_000_000
    if options.trace:
        return f"  {len(requests):,} requests, {minutes:,} minutes of real traffic: {escape(options.trace.name)}"
    return f"  {len(requests):,} requests, made up from published quantiles: not real traffic"


def show(
    console: Console,
    figures: Figures,
    verdict: Verdict,
    seconds: float,
    options: Options,
    fee_asset: str,
    kept: Path | None,
) -> None:
    """Print the report, for 80 columns; with `as_json` one document on standard output.

    `kept` is the data directory that can be looked into afterwards, if there is one.
    """
    document = as_document(figures, verdict, seconds, options, fee_asset)
    if options.as_json:
        print(json.dumps(document))
        return
    table = Table(show_header=False, box=None, padding=(0, 2))
    for label, value in (
        ("records charged", f"{figures.records:,} in {figures.reports:,} signed reports, {figures.refused} refused"),
        ("gross", f"{document['gross_cu']} CU owed between parties"),
        ("net", f"{document['net_cu']} CU after netting"),
        ("netting ratio", f"{document['netting_percent']} % (who both buys and sells is netted)"),
        ("paid on chain", f"{document['paid_cu']} CU in {figures.payouts} payouts"),
        ("carried", f"{document['carried_cu']} CU below the minimum payout"),
        ("windows", f"{figures.windows} closed, {figures.transactions['anchor']} anchored"),
        ("transactions", f"{document['chain_transactions']} on chain, for {figures.records:,} settled requests"),
        ("fees", f"{document['fees']} {fee_asset}"),
        ("fee per request", f"{document['fee_per_request']} {fee_asset}"),
        ("deposits", f"{figures.deposits}, of which {figures.suspense} in suspense"),
        ("time taken", f"{document['seconds']} s"),
        ("verified offline", document["verified"]),
    ):
        table.add_row(label, escape(str(value)))
    console.print(table)
    if kept:
        console.print(f"Look closer: SETTLEMENT_DATA_DIR={escape(str(kept))} settlement verify", soft_wrap=True)
    else:
        console.print("Look closer: --data-dir DIR keeps the books, docs/tutorial.md does it by hand")


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
