"""What proving costs: verifying a whole journal, and serving and checking the proof of one record.

    python -m bench.proof [--reports 20000] [--records 50] [--consumers 50] [--proofs 500]

Reports are signed and taken in by the service itself, one window is settled, and then: every SQL invariant; the audit
export, written to a file; the outside verifier on that file in a fresh process, with its peak memory (VmHWM); proofs of
records chosen at random, made by the service one after another; and each checked offline. Prints JSON, and on standard
error how far it is. Ctrl-C ends it, and takes server and files away. The ratio of the Merkle root to bare hashing is
bench.close's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import psycopg

from adapters.simulated import USD, SimulatedAdapter
from bench.installation import Installation, Stream
from settlement import bootstrap
from settlement.client.proofs import check_proof
from settlement.client.verifier import ExportVerifier
from settlement.config import Settings
from settlement.core.signatures import SigningKey
from settlement.services import audit, funding, metering, payouts, proofs, windows
from settlement.services.context import Context
from settlement.storage import invariants, parties
from settlement.storage.database import Connection
from settlement.storage.parties import Key

LANES = 8
CHAIN = "simulated"
FUNDS = 10**12
"""Millionths of a USD that each consumer pays in: enough for any run."""
SETTLED_SECONDS = 6
"""How long the simulated chain may take to close the ledger of the deposits."""


class Progress:
    """Says on standard error how far something is, a line for each twentieth of it."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._said = what, total, 0, -1
        self._began = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        twentieths = 20 * self._done // max(self._total, 1)
        if twentieths > self._said:
            self._said = twentieths
            seconds = time.monotonic() - self._began
            print(f"{self._what}: {5 * twentieths} % after {seconds:.0f} s", file=sys.stderr, flush=True)


async def participants(context: Context, consumers: int) -> list[Stream]:
    """Providers with keys, and consumers that are funded by ordinary payments on the simulated chain."""
    now = context.sources.clock()
    chain = cast(SimulatedAdapter, context.chains[CHAIN])

    async def register(connection: Connection) -> tuple[list[str], list[Stream]]:
        ids = [context.sources.new_id("acc") for _ in range(consumers)]
        for name in ids:
            await parties.add(
                connection, party_id=name, kind="consumer", name="", status="active", account_id=None, now=now
            )
        streams = []
        for _ in range(LANES):
            key, provider = SigningKey(os.urandom(32)), context.sources.new_id("prv")
            party = await parties.add(
                connection, party_id=provider, kind="provider", name="", status="active", account_id=None, now=now
            )
            await parties.add_key(connection, Key(key.public.kid, party.no, key.public.raw, now, None), now)
            streams.append(Stream(provider, key, ids))
        return ids, streams

    ids, streams = await context.database.run(register)
    for name in ids:
        intent = await funding.create_intent(context, party=name, chain=CHAIN, asset=USD.text, amount=None)
        chain.wallet(os.urandom(32), usd=FUNDS).pay_uri(intent.payment_uri, FUNDS)
    await asyncio.sleep(SETTLED_SECONDS)
    booked = await funding.read_deposits(context, CHAIN)
    if booked != consumers:
        raise SystemExit(f"{booked} of {consumers} deposits arrived, the run is void")
    return streams


async def ingest(context: Context, streams: Sequence[Stream], reports: int, records: int) -> float:
    """Take in so many signed reports, each provider's one after another."""
    began = time.monotonic()
    progress = Progress("ingest", reports // len(streams) * len(streams))

    async def send(stream: Stream, count: int) -> None:
        for _ in range(count):
            body, signature = stream.report(records)
            await metering.submit(context, body=body, signature=signature)
            progress.advance()

    await asyncio.gather(*(send(stream, reports // len(streams)) for stream in streams))
    return time.monotonic() - began


async def settle(context: Context) -> float:
    began = time.monotonic()
    print("settling the window", file=sys.stderr, flush=True)
    await windows.close(context)
    await windows.advance(context, payouts.plan)
    return time.monotonic() - began


async def hold_invariants(context: Context) -> dict[str, float]:
    """How long the quick and the deep invariants take, in seconds."""
    found = {}
    for name, deep in (("quick", False), ("all", True)):
        print(f"invariants, {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        async with context.database.read() as connection:
            violation = await invariants.first_violation(connection, deep=deep)
        if violation is not None:
            raise SystemExit(f"the books do not hold, the run is void: {violation}")
        found[name] = time.monotonic() - began
    return found


async def write_export(context: Context, file: Path) -> float:
    began = time.monotonic()
    print("writing the export", file=sys.stderr, flush=True)
    with file.open("wb") as out:
        async for line in audit.export(context):
            out.write(line)
    return time.monotonic() - began


def verify(file: Path) -> None:
    """In a process of its own: verify an export, and say how long it took and how much memory."""
    verifier = ExportVerifier()
    progress = Progress("verifying", file.stat().st_size)
    began = time.monotonic()
    with file.open("rb") as lines:
        for line in lines:
            verifier.feed(line)
            progress.advance(len(line))
    report = verifier.finish()
    seconds = time.monotonic() - began
    if report.fault is not None:
        raise SystemExit(f"the export does not hold, the run is void: {report.fault}")
    status = Path("/proc/self/status").read_text("ascii")
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    print(
        json.dumps({"seconds": seconds, "peak_mib": peak // 1024, "records": report.records, "counts": report.counts})
    )


async def prove(context: Context, chosen: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Milliseconds of making each proof as the API does, and of checking it offline."""
    key = context.key.public.jwk()
    made, checked, sizes = [], [], []
    progress = Progress("proofs", len(chosen))
    for provider, record in chosen:
        began = time.perf_counter()
        text = json.dumps(await proofs.record_proof(context, provider, record)).encode()
        made.append((time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        result = check_proof(text, trusted_key=key)
        checked.append((time.perf_counter() - began) * 1e3)
        sizes.append(len(text))
        progress.advance()
        if result.fault is not None:
            raise SystemExit(f"a proof does not hold, the run is void: {result.fault}")
    return {"served_ms": spread(made), "checked_ms": spread(checked), "bytes": statistics.median(sizes)}


def spread(values: list[float]) -> dict[str, float]:
    values = sorted(values)
    return {"median": statistics.median(values), "p99": values[min(len(values) - 1, len(values) * 99 // 100)]}


def choose(url: str, count: int) -> list[tuple[str, str]]:
    """Records at random: (provider, record id)."""
    query = """
        SELECT p.id, u.id::text FROM usage_record u JOIN party p ON p.no = u.provider_no
        ORDER BY md5(u.id::text) LIMIT %s"""
    with psycopg.connect(url) as connection:
        found = [(str(row[0]), str(row[1])) for row in connection.execute(query, (count,)).fetchall()]
    random.Random(7).shuffle(found)
    return found


async def measure(options: argparse.Namespace, installed: Installation, folder: Path) -> dict[str, Any]:
    settings = Settings.from_environment({**os.environ, "SETTLEMENT_DATA_DIR": str(folder)})
    async with bootstrap.open_installation(settings) as opened:
        context = opened.context
        streams = await participants(context, options.consumers)
        taken = await ingest(context, streams, options.reports, options.records)
        settled = await settle(context)
        held = await hold_invariants(context)
        file = folder / "export.ndjson"
        written = await write_export(context, file)
        done = subprocess.run(
            [sys.executable, "-m", "bench.proof", "--verify", str(file)], stdout=subprocess.PIPE, text=True, check=True
        )
        verified = json.loads(done.stdout)
        found = await prove(context, choose(installed.plain_url, options.proofs))
    with psycopg.connect(installed.plain_url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM journal_entry), (SELECT count(*) FROM posting)"
        ).fetchone()
    assert row is not None
    return {
        "journal": {"entries": row[0], "postings": row[1], "records": verified["records"]},
        "ingest_seconds": taken,
        "settle_seconds": settled,
        "invariants_seconds": held,
        "export": {"seconds": written, "mib": file.stat().st_size / 2**20},
        "verify": verified,
        "proof": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=20_000)
    parser.add_argument("--records", type=int, default=50)
    parser.add_argument("--consumers", type=int, default=50)
    parser.add_argument("--proofs", type=int, default=500)
    parser.add_argument("--verify", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.verify is not None:
            verify(options.verify)
        else:
            run(options)
    except KeyboardInterrupt:
        print("interrupted: nothing was measured", file=sys.stderr)
        raise SystemExit(130) from None


def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="settlement-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with Installation(folder) as installed:
            print(json.dumps(asyncio.run(measure(options, installed, folder)), indent=2))


if __name__ == "__main__":
    main()
