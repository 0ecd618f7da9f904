"""Rating many records at once against one call of a pricing library for each, and its share of reading a report; and
what of that is looking the rates up.

    .venv/bin/python -m bench.rating [--passes 9] [--records 1000] [--reports 20] [--json FILE]

Four tables are rated: the first one from posted prices, and the same with hours of the day, with a minimum and with an
ask of the provider, so that what a modifier costs is seen beside what plain rates cost. The library is genai-prices,
called once a record as an application would, for records of one model; both must agree on every price before anything
is timed. Ratios are the result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from genai_prices import Usage, calc_price

from governance.ratebook.catalogue import read_prices
from governance.ratebook.document import build
from settlement.core import assessment, canonical, columns, offers, rates, usage
from settlement.core.assessment import RateBook
from settlement.core.ids import public_id, uuid7, uuid_text
from settlement.core.offers import Offers
from settlement.core.times import text

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PROVIDER = public_id("prv", bytes(16))
MODELS = ("gpt-5", "gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro")


def main() -> None:
    """Run the passes and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--records", type=int, default=1000, help="records a report")
    parser.add_argument("--reports", type=int, default=20, help="reports a pass")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = _measure(options)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    document, _ = build(read_prices(), version=1, parent=None, effective_from=NOW - timedelta(days=36), as_of=NOW)
    models = [name for name in MODELS if rates.parse(document).resolve(name) is not None]
    body = _report(options.records, models)
    report = usage.decode(body)
    plain = RateBook([rates.parse(document)])
    night = {"from": "00:00", "until": "12:00", "multiplier": "0.5"}
    hours = [night, {"from": "12:00", "until": "00:00", "multiplier": "1.5"}]
    variants: dict[str, tuple[RateBook, Offers]] = {
        "plain": (plain, Offers()),
        "hours": (RateBook([_with(document, models, hours=hours)]), Offers()),
        "minimum": (RateBook([_with(document, models, minimum=10**9)]), Offers()),
        "ask": (plain, Offers([_offer()])),
    }
    timed: dict[str, list[float]] = {name: [] for name in ("decode", "lookup", "library", *variants)}
    _agree(report, plain)
    for _ in range(options.passes):
        timed["decode"].append(_timed(lambda: usage.decode(body), options.reports) / options.records)
        timed["lookup"].append(_timed(lambda: _looked_up(report, plain), options.reports) / options.records)
        timed["library"].append(_timed(lambda: _library(report), 1) / options.records)
        for name, (book, asked) in variants.items():

            def rated(book: RateBook = book, asked: Offers = asked) -> object:
                return _rated(report, book, asked)

            timed[name].append(_timed(rated, options.reports) / options.records)
    seconds = {name: statistics.median(values) for name, values in timed.items()}
    return {
        "records": options.records,
        "models": models,
        "nanoseconds_a_record": {name: round(value * 1e9) for name, value in seconds.items()},
        "library_over_plain": _ratio(timed["library"], timed["plain"]),
        "variant_over_plain": {name: _ratio(timed[name], timed["plain"]) for name in variants},
        "rating_over_decoding": _ratio(timed["plain"], timed["decode"]),
        "lookup_over_decoding": _ratio(timed["lookup"], timed["decode"]),
    }


def _rated(report: usage.UsageReport, book: RateBook, asked: Offers) -> object:
    """Rates looked up and charges computed: the part of `assess` that this is about."""
    at = np.full(len(report.ids), int(NOW.timestamp()) * 10**6, np.int64)
    tables = np.searchsorted(book.starts, at, side="right") - 1
    return assessment._rate({}, report, at, tables, columns.coded(report.models), book, asked)


def _looked_up(report: usage.UsageReport, book: RateBook) -> object:
    """The rates of every record found, and nothing charged: table by time, form by model, tier and meters."""
    at = np.full(len(report.ids), int(NOW.timestamp()) * 10**6, np.int64)
    tables = np.searchsorted(book.starts, at, side="right") - 1
    return [book.form(*key) for key, _ in assessment._alike(report, tables, columns.coded(report.models))]


def _library(report: usage.UsageReport) -> list[Decimal]:
    """One call a record."""
    return [
        calc_price(
            Usage(input_tokens=meters["input_tokens"], output_tokens=meters["output_tokens"]), model_ref=model
        ).total_price
        for model, meters in zip(report.models, report.meters, strict=True)
    ]


def _agree(report: usage.UsageReport, book: RateBook) -> None:
    """Both must say the same of every record, or there is nothing to compare."""
    charges = _rated(report, book, Offers())
    assert isinstance(charges, np.ndarray)
    for charge, usd in zip(charges.tolist(), _library(report), strict=True):
        cu = Decimal(charge) / 10**12
        if abs(cu * Decimal("0.0045") - usd) > usd * Decimal("0.00001"):
            raise SystemExit(f"the library says {usd} USD and we say {cu} CU")


def _report(records: int, models: list[str]) -> bytes:
    random = np.random.default_rng(7)
    rows = [
        {
            "id": uuid_text(uuid7(NOW, lambda size: line.to_bytes(size, "big"))),  # noqa: B023 - used at once
            "at": text(NOW),
            "consumer": f"acc_{line % 60}",
            "model": models[line % len(models)],
            "operation": "chat",
            "tier": "standard",
            "outcome": "completed",
            "meters": {
                "input_tokens": int(random.integers(100, 4_000)),
                "output_tokens": int(random.integers(20, 600)),
            },
        }
        for line in range(records)
    ]
    return json.dumps({"v": 1, "provider": PROVIDER, "report": "r", "seq": 1, "prev": None, "records": rows}).encode()


def _with(document: bytes, models: list[str], **terms: Any) -> rates.RateTable:
    found = json.loads(document)
    for name in models:
        model = found["models"][found["aliases"].get(name, name)]
        model["tiers"]["standard"] |= terms
    return rates.parse(canonical.encode(found))


def _offer() -> offers.Offer:
    body = {
        "type": offers.TYPE,
        "provider": PROVIDER,
        "version": 1,
        "parent": None,
        "effective_from": text(NOW - timedelta(days=1)),
        "usual": "0.95",
        "asks": [],
    }
    return offers.parse(json.dumps(body).encode())


def _timed(call: Callable[[], object], times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begin) / times


def _ratio(one: list[float], other: list[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    named = {"low": ratios[0], "median": statistics.median(ratios), "high": ratios[-1]}
    return {name: round(value, 3) for name, value in named.items()}


if __name__ == "__main__":
    main()
