"""What the metering proxy adds: to the first byte, to each chunk, and how often it has to ask the service.

    python -m bench.meter [--calls N] [--tokens N] [--trace FILE]

The same calls go to the model server directly and through the proxy, one after the other in turn, on loopback with the
real service behind; figures are ratios and differences of medians of one run. With --trace (the public trace of a chat
service, CSV, plain or .gz) it counts how many requests need the service again at a slice of 256 tokens, and what is
locked in relation to what is charged; that needs no clock.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from settlement.core import rates
from settlement.core.rating import Refusal, rate
from settlement.core.times import parse as parse_time
from settlement.storage import schema
from settlement.storage.database import Database
from settlement.storage.embedded import EmbeddedServer
from tests.meter.gateway import open_gateway
from tests.world import SeededSources, first_rates, new_world

SLICE = 256
REPORT_AT = 80


def trace_rows(path: Path) -> Iterator[tuple[int, int]]:
    """Input and output tokens of each request of a trace."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    for row in csv.DictReader(text.splitlines()):
        yield int(row["ContextTokens"]), int(row["GeneratedTokens"])


def grants(output: int, slice_tokens: int = SLICE) -> int:
    """How many grants a call of so many output tokens takes: the next is asked for at 80 % of the newest slice.

    Slices are the service's adaptive ones: four of the first size, then doubling up to 4,096.
    """
    granted, count, size = slice_tokens, 1, slice_tokens
    while output >= granted - size + size * REPORT_AT // 100:
        count += 1
        size = slice_tokens if count <= 4 else min(2 * size, 4096)
        granted += size
    return count


def locked_over_charged(path: Path) -> dict[str, float]:
    """Share of requests with more than one grant, mean grants, and locked over charged in CU, on a trace."""
    table = rates.parse(first_rates())
    at = parse_time("2026-11-22T00:00:00Z")
    calls = extended = total = 0
    locked = charged = 0
    for given, output in trace_rows(path):
        count, granted, size = grants(output), SLICE, SLICE
        for number in range(2, count + 1):
            size = SLICE if number <= 4 else min(2 * size, 4096)
            granted += size
        calls += 1
        total += count
        extended += count > 1
        for tokens, into in ((granted, "locked"), (output, "charged")):
            charge = rate(table, "gpt-5", "standard", "completed", {"input_tokens": given, "output_tokens": tokens}, at)
            assert not isinstance(charge, Refusal)
            if into == "locked":
                locked += charge.pico
            else:
                charged += charge.pico
    return {
        "requests": calls,
        "share_extended": extended / calls,
        "grants": total / calls,
        "locked_over_charged": locked / charged,
    }


async def one(http: httpx2.AsyncClient, tokens: int) -> tuple[float, list[float]]:
    """One streamed call: seconds to the first byte of the answer, and between chunks."""
    body = {"model": "gpt-5", "stream": True, "messages": [{"role": "user", "content": f"say {tokens} pause 2"}]}
    started = time.perf_counter()
    first, gaps, last = 0.0, [], 0.0
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for _ in answer.aiter_raw():
            now = time.perf_counter()
            if not first:
                first = now - started
            else:
                gaps.append(now - last)
            last = now
    return first, gaps


async def latency(calls: int, tokens: int) -> dict[str, float]:
    """Medians direct and through the proxy, in milliseconds, and their difference and ratio.

    The model server, the gateway (proxy and service) and this client are three processes.
    """
    with tempfile.TemporaryDirectory(prefix="settlement-bench-") as folder:
        Path(folder).chmod(0o711)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.meter", "--serve", folder), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            towns = json.loads(await child.stdout.readline())
            headers = {"authorization": f"Bearer {towns['spending']}"}
            async with (
                httpx2.AsyncClient(base_url=towns["direct"], trust_env=False, timeout=60) as direct,
                httpx2.AsyncClient(base_url=towns["proxy"], headers=headers, trust_env=False, timeout=60) as proxied,
            ):
                return await _measured({"direct": direct, "proxied": proxied}, calls, tokens)
        finally:
            child.terminate()
            await child.wait()


async def _measured(ways: dict[str, httpx2.AsyncClient], calls: int, tokens: int) -> dict[str, float]:
    for http in ways.values():
        await one(http, 3)
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    gaps: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(calls):
        for name, http in ways.items():
            first, between = await one(http, tokens)
            firsts[name].append(first * 1000)
            gaps[name].extend(gap * 1000 for gap in between)
    first_direct, first_proxied = (statistics.median(firsts[name]) for name in ("direct", "proxied"))
    gap_direct, gap_proxied = (statistics.median(gaps[name]) for name in ("direct", "proxied"))
    return {
        "first_byte_direct_ms": first_direct,
        "first_byte_proxied_ms": first_proxied,
        "first_byte_added_ms": first_proxied - first_direct,
        "first_byte_ratio": first_proxied / first_direct,
        "chunk_direct_ms": gap_direct,
        "chunk_proxied_ms": gap_proxied,
        "chunk_ratio": gap_proxied / gap_direct,
    }


async def serve(folder: Path) -> None:
    """The gateway of a bench: real service on an embedded database, proxy, and a model server of its own process."""
    server = EmbeddedServer.attach(folder / "postgres")
    try:
        url = server.url("postgres")
        schema.upgrade(url)
        database = Database(url)
        sources = SeededSources()
        sources.settable.now = datetime.now(UTC)
        world = await new_world(database, sources, folder)
        upstream = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.meter.upstream"), stdout=asyncio.subprocess.PIPE
        )
        assert upstream.stdout is not None
        direct = (await upstream.stdout.readline()).decode().strip()
        async with open_gateway(world, folder, micro=10**13, model_server=direct) as gateway:
            print(json.dumps({"direct": direct, "proxy": gateway.url, "spending": gateway.spending}), flush=True)
            stopped = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
            await stopped.wait()
        upstream.terminate()
        await upstream.wait()
        await database.close()
    finally:
        server.close(wait=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    print(json.dumps(asyncio.run(latency(arguments.calls, arguments.tokens)), indent=1))
    if arguments.trace:
        print(json.dumps(locked_over_charged(arguments.trace), indent=1))


if __name__ == "__main__":
    main()
