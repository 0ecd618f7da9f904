"""Ingest over HTTP against a raw COPY BINARY of the same rows, interleaved in one run.

    .venv/bin/python -m bench.ingest [--passes 9] [--reports 40] [--records 1000] [--lanes 4] [--processes 1]

The service is the real one: `settlement serve` in processes of its own, embedded PostgreSQL with fsync on, every
report signed, verified, charged, journalled and committed before its answer. The baseline copies the very rows that the
service writes, in transactions of the same size, over one connection, into a table with the same columns and indexes.
Ratios are the result; absolute figures are one machine's. After each pass the books are checked; a wrong sum voids it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from bench.installation import Installation, Stream
from settlement.core import assessment, rates, usage
from settlement.storage import usage as storage

CONSUMERS = 60
BALANCE = 10**16


def main() -> None:
    """Run the passes and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--reports", type=int, default=40, help="reports a pass")
    parser.add_argument("--records", type=int, default=1000, help="records a report")
    parser.add_argument("--lanes", type=int, default=4, help="providers that report at the same time")
    parser.add_argument("--processes", type=int, default=1, help="that serve the API")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="settlement-bench-") as folder:
        Path(folder).chmod(0o711)
        figures = _measure(Path(folder), options)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    with Installation(folder) as installation:
        streams = installation.participants(providers=options.lanes + 1, consumers=CONSUMERS, balance=BALANCE)
        with _served(folder, options.processes) as (port, pids):
            _send(port, [_reports(streams[1:], options.lanes * 2, options.records)], options.lanes)  # warm up
            passes = [_pass(installation, port, pids, streams, options, turn) for turn in range(options.passes)]
    return _summary(passes, options, installation.settings)


def _pass(
    installation: Installation,
    port: int,
    pids: list[int],
    streams: list[Stream],
    options: argparse.Namespace,
    turn: int,
) -> dict[str, float]:
    """One interleaved pass: sequential over HTTP, raw, concurrent over HTTP; the order rotates."""
    found: dict[str, float] = {}
    sequential = _reports(streams[:1], options.reports, options.records)
    concurrent = _reports(streams[1:], options.reports, options.records)
    rows = _rows(installation, sequential)
    records = options.reports * options.records
    subjects = {
        "one": lambda: _send(port, [sequential], 1),
        "raw": lambda: _copy(installation, rows),
        "lanes": lambda: _send(port, [concurrent], options.lanes),
    }
    names = list(subjects)
    for name in names[turn % 3 :] + names[: turn % 3]:
        installation.execute("CHECKPOINT")
        began = time.perf_counter()
        subjects[name]()
        found[name] = records / (time.perf_counter() - began)
    installation.check_books()
    found["server_peak_mib"] = _peak_mib(pids)
    print(f"pass {turn + 1}: " + "  ".join(f"{name} {value:,.0f}" for name, value in found.items()), file=sys.stderr)
    return found


def _reports(streams: list[Stream], count: int, records: int) -> list[tuple[Stream, bytes, str]]:
    return [(stream, *stream.report(records)) for stream in (streams[turn % len(streams)] for turn in range(count))]


def _rows(installation: Installation, reports: list[tuple[Stream, bytes, str]]) -> list[bytes]:
    """The COPY bodies of the rows that the service will write for these reports."""
    book = assessment.RateBook([rates.parse(installation.rate_table)])
    bodies = []
    for number, (_, body, _) in enumerate(reports):
        assessed = assessment.assess(usage.decode(body), book, datetime.now(UTC))
        rows = storage.record_rows(
            assessed,
            np.ones(len(assessed.pico), np.bool_),
            provider_no=1,
            report_no=number,
            window_no=1,
            consumer_numbers=range(1, len(assessed.consumers) + 1),
            model_numbers=range(1, len(assessed.models) + 1),
        )
        bodies.append(storage.copy_body([rows]))
    return bodies


def _copy(installation: Installation, bodies: list[bytes]) -> None:
    statement = storage.COPY.replace("usage_record", "raw_record", 1)
    with psycopg.connect(installation.plain_url) as connection:
        for body in bodies:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(body)
            connection.commit()


def _send(port: int, batches: list[list[tuple[Stream, bytes, str]]], lanes: int) -> None:
    """Send reports, each provider's in order, `lanes` at a time; anything but 201 ends the run."""
    queues: dict[int, list[tuple[bytes, str]]] = {}
    for stream, body, signature in batches[0]:
        queues.setdefault(id(stream), []).append((body, signature))
    failures: list[str] = []

    def lane(queue: list[tuple[bytes, str]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for body, signature in queue:
            headers = {"Content-Type": "application/json", "x-jws-signature": signature}
            connection.request("POST", "/v1/usage-reports", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 201 or json.loads(said)["refused"]:
                failures.append(f"{answer.status} {said[:300]!r}")
                return
        connection.close()

    threads = [threading.Thread(target=lane, args=(queue,)) for queue in list(queues.values())[:lanes]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"a report was not charged whole, the run is void: {failures[0]}")


@contextmanager
def _served(folder: Path, processes: int) -> Iterator[tuple[int, list[int]]]:
    """The service as it is shipped: its port, and its API processes, which all listen."""
    environment = os.environ | {"SETTLEMENT_DATA_DIR": str(folder)}
    command = [str(Path(sys.executable).with_name("settlement")), "serve", "--no-worker", "--listen", "127.0.0.1:0"]
    command += ["--processes", str(processes), "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            if not said:
                raise SystemExit(f"the service ended with {server.wait()} before it was ready")
            yield int(json.loads(said)["url"].rpartition(":")[2]), [server.pid, *_serving(server.pid)]
        finally:
            server.send_signal(signal.SIGTERM)


def _serving(parent: int) -> list[int]:
    """The processes beside the first that serve as well: multiprocessing's own bookkeeper is none."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _peak_mib(pids: list[int]) -> float:
    """The peak of all processes together; what they share counts for each."""
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def _summary(passes: list[dict[str, float]], options: argparse.Namespace, settings: dict[str, str]) -> dict[str, Any]:
    def spread(values: list[float]) -> dict[str, float]:
        return {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
        }

    return {
        "what": "signed 1,000-record usage reports over HTTP against raw COPY BINARY of the same rows",
        "passes": len(passes),
        "reports_a_pass": options.reports,
        "records_a_report": options.records,
        "lanes": options.lanes,
        "processes": options.processes,
        "records_per_second": {name: spread([each[name] for each in passes]) for name in ("raw", "one", "lanes")},
        "ratio_one_in_flight_to_raw": spread([each["one"] / each["raw"] for each in passes]),
        "ratio_lanes_to_raw": spread([each["lanes"] / each["raw"] for each in passes]),
        "server_peak_mib": [round(each["server_peak_mib"]) for each in passes],
        "postgresql": settings,
        "python": sys.version.split()[0],
    }


if __name__ == "__main__":
    main()
