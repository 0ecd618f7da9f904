"""What an impact preview costs: 1,000,000 past records, rated again by the table in force and by a proposed one.

    python -m bench.impact [--records 1000000] [--report 1000]

Takes the records in as the service does, in a database of its own on an embedded server; the preview runs in a fresh
process, so that its peak memory (VmHWM) is its own. Prints JSON: seconds, records a second, peak RSS before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.close import peak_kib
from bench.installation import Installation
from governance.service import impact
from settlement import bootstrap
from settlement.config import Settings
from settlement.core import canonical, rates
from settlement.services import metering
from settlement.storage import governance

CONSUMERS = 60
BALANCE = 10**15


def _settings(folder: Path) -> Settings:
    return Settings.from_environment({**os.environ, "SETTLEMENT_DATA_DIR": str(folder)})


async def _seed(folder: Path, installation: Installation, options: argparse.Namespace) -> None:
    streams = await asyncio.to_thread(installation.participants, providers=4, consumers=CONSUMERS, balance=BALANCE)
    async with bootstrap.open_installation(_settings(folder)) as opened:
        for turn in range(options.records // options.report):
            body, signature = streams[turn % len(streams)].report(options.report)
            await metering.submit(opened.context, body=body, signature=signature)


async def _preview(folder: Path) -> dict[str, Any]:
    async with bootstrap.open_installation(_settings(folder)) as opened:
        context = opened.context
        now = context.sources.clock()
        async with context.database.read() as connection:
            document = json.loads((await governance.rates_at(connection, now)).document)
        for model in document["models"].values():
            for tier in model["tiers"].values():
                for band in tier["bands"]:
                    band["rates"] = {meter: rate + rate // 10 for meter, rate in band["rates"].items()}
        proposed = rates.parse(canonical.encode(document))
        before, began = peak_kib(), time.perf_counter()
        found = await impact.replayed(context, proposed, now)
        seconds = time.perf_counter() - began
    total = found.impact.total
    if not total.before < total.after <= total.before * 11 // 10:
        raise SystemExit("rates a tenth higher must cost up to a tenth more; the run is void")
    return {
        "records": total.records,
        "complete": found.complete,
        "seconds": round(seconds, 2),
        "records_a_second": round(total.records / seconds),
        "peak_kib": [before, peak_kib()],
    }


def main() -> None:
    """Seed, then measure in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--report", type=int, default=1_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(asyncio.run(_preview(options.measure))))
        return
    with tempfile.TemporaryDirectory(prefix="settlement-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with Installation(folder) as installation:
            asyncio.run(_seed(folder, installation, options))
            command = [sys.executable, "-m", "bench.impact", "--measure", str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(json.dumps(json.loads(done.stdout), indent=2))


if __name__ == "__main__":
    main()
