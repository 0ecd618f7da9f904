"""Holds and captures over HTTP against a no-op endpoint of FastAPI, interleaved in one run.

    .venv/bin/python -m bench.holds [--passes 9] [--seconds 4] [--accounts 100000] [--connections 64] [--processes 1]
    .venv/bin/python -m bench.holds trace FILE.csv.gz

Every server is one process or several, with the loop and parser of `settlement serve`; the client is another. A pass
runs each subject once, in turn: the no-op; holds with captures over many accounts and over one; holds alone; holds with
one transaction a request; leases of 100. Captures are usage reports, signed and charged, of the holds placed before,
which each provider sends once a second as the shipped meter does. After each pass: no answer but 201, and what is held
is what open holds reserve. Ratios are the result.

`trace` needs no server: it holds, extends and captures every request of a trace (columns ContextTokens and
GeneratedTokens) by the core's own rules, input at 1 and output at 4, and prints locked over charged and grants a
request.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gc
import gzip
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import uvicorn
import uvloop
from fastapi import FastAPI, Request, Response

from bench.installation import Installation, Stream
from settlement import bootstrap
from settlement.api.app import create_app
from settlement.commands.service import GARBAGE_THRESHOLD
from settlement.commands.siblings import listening_on
from settlement.config import Settings
from settlement.core import canonical
from settlement.core import holds as core
from settlement.core.ids import public_id, uuid7, uuid_text
from settlement.core.journal import CU, Entry, Posting
from settlement.core.signatures import sign_detached
from settlement.core.times import text as time_text
from settlement.meter.reports import MAX_RECORDS
from settlement.meter.sending import EVERY
from settlement.services import holds as service
from settlement.services.authentication import issue_api_key
from settlement.services.lanes import Decided
from settlement.storage import accounts, journal, parties, windows
from settlement.storage.database import Connection

BALANCE = 10**12
LEASE = 100
WARM_UP = 1.0
METERS = {"input_tokens": 1155}
_RECORD = (
    '{"id":"%s","at":"%s","consumer":"%s","model":"%s","operation":"chat","tier":"%s","outcome":"completed",'
    f'"meters":{json.dumps({**METERS, "output_tokens": 211})},"hold":"%s"}}'
)
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
SUBJECTS = ("noop", "many", "one", "placing", "alone", "leases")


@dataclass
class Cast:
    """Who takes part: providers with their keys, consumers' spending keys, and the accounts behind them."""

    providers: list[tuple[Stream, str]]
    spending: list[tuple[str, str]]


class Placed(msgspec.Struct):
    """What a report has to know of a hold that was placed."""

    id: str
    consumer: str
    model: str
    tier: str


_read_placed = msgspec.json.Decoder(Placed).decode


@dataclass
class Run:
    """What a subject did in its seconds."""

    requests: int = 0
    holds: int = 0
    captures: int = 0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """A percentile of the answer times, in milliseconds."""
        ordered = sorted(self.waits)
        return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0


def main() -> None:
    """Run the passes and print the figures; or serve, or replay a trace."""
    if sys.argv[1:2] == ["serve"]:
        _serve(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["trace"]:
        print(json.dumps(replay(Path(sys.argv[2])), indent=2))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each subject in a pass")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--providers", type=int, default=4, help="that send reports; the rest of the connections hold")
    parser.add_argument("--processes", type=int, default=1, help="of every server")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="settlement-bench-") as folder:
        Path(folder).chmod(0o711)
        figures = _measure(Path(folder), options)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def replay(file: Path) -> dict[str, Any]:
    """Locked over charged, and grants a request, of a trace; by slice."""
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        rows = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(lines)]
    return {"requests": len(rows), "slices": {str(size): _replayed(rows, size) for size in (100, 128, 256, 512)}}


def _replayed(rows: Sequence[tuple[int, int]], size: int) -> dict[str, float]:
    now = datetime.now(UTC)
    locked = charged = grants = 0
    for context, output in rows:
        terms = core.Terms("m", context * 10**6, 4 * 10**6, has_output=True)
        ask = core.Ask(output_tokens=size)
        grant = core.first_grant(terms, ask, 10**18)
        assert grant is not None
        hold = core.opened(ask, terms, grant, now)
        while output >= hold.report_at:
            hold = core.extended(hold, core.next_grant(hold, terms, size, 10**18), now)
        done = core.capture(hold, (context + 4 * output) * 10**6, now)
        locked, charged, grants = locked + hold.amount, charged + done.taken, grants + hold.grants
    return {"locked_to_charged": round(locked / charged, 3), "grants_a_request": round(grants / len(rows), 3)}


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    with Installation(folder) as installation:
        cast = asyncio.run(_cast(folder, options))
        installation.participants(providers=1, consumers=1, balance=1)  # its settings, and the check of durability
        passes: list[dict[str, Run]] = []
        for turn in range(options.passes + 1):
            found = _pass(installation, folder, cast, options, turn)
            if turn:  # the first warms up
                passes.append(found)
        return _summary(passes, options, installation.settings)


def _pass(
    installation: Installation, folder: Path, cast: Cast, options: argparse.Namespace, turn: int
) -> dict[str, Run]:
    found: dict[str, Run] = {}
    names = list(SUBJECTS)
    at = turn % len(names)
    for name in names[at:] + names[:at]:
        installation.execute("CHECKPOINT")
        kind = name if name in ("noop", "alone") else "batched"
        with _served(folder, kind, options.processes) as port:
            uvloop.run(_load(port, name, cast, options, WARM_UP))  # a new process reads and compiles the rate tables
            found[name] = uvloop.run(_load(port, name, cast, options, options.seconds))
        if name != "noop":
            check_holds(installation)
    installation.check_books()
    figures = "  ".join(f"{name} {run.requests / run.seconds:,.0f}/s" for name, run in found.items())
    print(f"pass {turn}: {figures}", file=sys.stderr)
    return found


def check_holds(installation: Installation) -> None:
    """What must hold after a subject; a wrong sum voids the run."""
    wrong = """
        SELECT 'held' FROM account a LEFT JOIN (
            SELECT consumer_no, sum(amount - captured - released) AS held FROM hold WHERE state = 'open' GROUP BY 1
        ) h ON h.consumer_no = a.party_no WHERE a.held <> coalesce(h.held, 0)
        UNION ALL SELECT 'captured' WHERE (SELECT coalesce(sum(captured), 0) FROM hold)
            <> (SELECT coalesce(sum(taken), 0) FROM hold_capture WHERE NOT late)
    """
    with psycopg.connect(installation.plain_url) as connection:
        found = connection.execute(wrong).fetchall()
    if found:
        raise SystemExit(f"holds do not add up, the run is void: {found}")


async def _load(port: int, name: str, cast: Cast, options: argparse.Namespace, seconds: float) -> Run:
    """Keep every connection busy for the seconds of a subject."""
    run = Run()
    until = time.perf_counter() + seconds
    spending = cast.spending[:1] if name == "one" else cast.spending
    began = time.perf_counter()
    captured = name in ("many", "one")
    reporters = cast.providers if captured else []
    holders = options.connections - len(reporters)
    waiting: list[list[Placed]] = [[] for _ in cast.providers]
    tasks = []
    for number in range(holders):
        provider = number % len(cast.providers)
        make = _requests(name, cast.providers[provider][1], spending, number, holders)
        keep = waiting[provider].append if captured else None
        tasks.append(_hold(port, make, until, run, keep))
    for provider, (stream, _) in enumerate(reporters):
        first = EVERY * (provider + 1) / len(reporters)
        tasks.append(_report(port, stream, waiting[provider], first, until, run))
    await asyncio.gather(*tasks)
    run.seconds = time.perf_counter() - began
    return run


def _requests(
    name: str, provider_key: str, spending: Sequence[tuple[str, str]], number: int, step: int
) -> Callable[[int], bytes]:
    """What one connection sends, request after request."""
    name = "019aaa00-0000-7000-8000-000000000000"
    document = {
        "request": name,
        "model": "gpt-5",
        "tier": "standard",
        "meters": METERS,
        "max_output_tokens": 4096,
        "requests": LEASE if name == "leases" else 1,
        "expires_in": 3_600,
    }
    key = spending[0][1]
    headers = {"Authorization": f"Bearer {provider_key}", "X-Consumer-Key": key}
    whole = _request("/v1/holds", json.dumps(document, separators=(",", ":")).encode(), headers)
    before_key, _, rest = whole.partition(key.encode())
    before_request, _, after = rest.partition(name.encode())

    def make(turn: int) -> bytes:
        _, key = spending[(number + turn * step) % len(spending)]
        return b"".join((before_key, key.encode(), before_request, _uuid().encode(), after))

    return make


async def _hold(
    port: int, make: Callable[[int], bytes], until: float, run: Run, keep: Callable[[Placed], None] | None
) -> None:
    connection = await _connected(port)
    turn = 0
    while time.perf_counter() < until:
        sent = make(turn)
        began = time.perf_counter()
        answer = await connection.ask(sent)
        run.waits.append(time.perf_counter() - began)
        run.requests, run.holds, turn = run.requests + 1, run.holds + 1, turn + 1
        if keep is not None:
            keep(_read_placed(answer))
    connection.close()


async def _report(port: int, stream: Stream, waiting: list[Placed], first: float, until: float, run: Run) -> None:
    """One provider's meter: what was held within a second is captured by the next report, as the shipped one does."""
    connection = await _connected(port)
    pause = first
    while waiting or time.perf_counter() < until:
        await asyncio.sleep(min(pause, max(0.0, until - time.perf_counter())))
        ready, pause = waiting[:], EVERY
        waiting.clear()
        for start in range(0, len(ready), MAX_RECORDS):
            batch = ready[start : start + MAX_RECORDS]
            body, signature = _captures(stream, batch)
            sent = _request("/v1/usage-reports", body, {"x-jws-signature": signature})
            answer = json.loads(await connection.ask(sent))
            if answer["refused"]:
                raise SystemExit(f"a record was refused, the run is void: {answer['refused'][:1]}")
            run.requests, run.captures = run.requests + 1, run.captures + len(batch)
    connection.close()


def _captures(stream: Stream, placed: Sequence[Placed]) -> tuple[bytes, str]:
    stream.seq += 1
    now = datetime.now(UTC)
    head = {
        "v": 1,
        "provider": stream.provider,
        "report": f"report-{stream.seq}",
        "seq": stream.seq,
        "prev": stream.last_digest,
    }
    at = time_text(now)
    records = [_RECORD % (_uuid(), at, hold.consumer, hold.model, hold.tier, hold.id) for hold in placed]
    body = f'{json.dumps(head)[:-1]},"records":[{",".join(records)}]}}'.encode()
    stream.last_digest = canonical.digest(body)
    return body, sign_detached(stream.key, body)


def _uuid() -> str:
    return uuid_text(uuid7(datetime.now(UTC), os.urandom))


def _request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = {"Host": "bench", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class _Asking(asyncio.Protocol):
    """One connection that is kept: a request, then its answer. Lean, so that the client takes little of the machine."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._seen = b""
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        """The connection stands."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of the answer, most often all of it."""
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if end else None
        if length is None or len(body) < int(length[1]) or self._answer is None:
            return
        self._seen = b""
        if head.startswith(b"HTTP/1.1 201"):
            self._answer.set_result(body)
        else:
            self._answer.set_exception(SystemExit(f"an answer was not 201, the run is void: {head[:40]!r} {body!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        """The server went away, or the run is over."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SystemExit(f"the server went away, the run is void: {error}"))

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the body of its answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Hang up."""
        assert self._transport is not None
        self._transport.close()


async def _connected(port: int) -> _Asking:
    _, protocol = await asyncio.get_running_loop().create_connection(_Asking, "127.0.0.1", port)
    return protocol


async def _cast(folder: Path, options: argparse.Namespace) -> Cast:
    """Register and fund providers and consumers; consumers by the thousand."""
    async with bootstrap.open_installation(_settings(folder)) as opened:
        context = opened.context
        now = context.sources.clock()
        spending: list[tuple[str, str]] = []

        async def use_case(connection: Connection) -> list[tuple[Stream, str]]:
            await accounts.ensure(connection, "conversion/CU", "conversion", CU)
            found = []
            for _ in range(options.providers):
                stream = await _provider(connection, now)
                party = await parties.get(connection, stream.provider)
                found.append((stream, await issue_api_key(connection, context.sources, party.no, ["holds"])))
            return found

        providers = await context.database.run(use_case)
        for start in range(0, options.accounts, 1_000):
            size = min(1_000, options.accounts - start)
            spending += await context.database.run(partial(_consumers, size=size, now=now))
        return Cast(providers, spending)


async def _provider(connection: Connection, now: datetime) -> Stream:
    from settlement.core.signatures import SigningKey
    from settlement.storage.parties import Key

    key = SigningKey(os.urandom(32))
    provider = public_id("prv", uuid7(now, os.urandom))
    party = await parties.add(
        connection, party_id=provider, kind="provider", name="", status="active", account_id=None, now=now
    )
    await parties.add_key(connection, Key(key.public.kid, party.no, key.public.raw, now, None), now)
    return Stream(provider, key, [])


async def _consumers(connection: Connection, *, size: int, now: datetime) -> list[tuple[str, str]]:
    """Consumers in bulk: parties, accounts, spending keys, and one entry that funds them all."""
    people = []
    for _ in range(size):
        consumer = public_id("acc", uuid7(now, os.urandom))
        key, secret = public_id("key", uuid7(now, os.urandom)), os.urandom(32).hex()
        people.append((consumer, key, secret))
    rows = [
        {"id": consumer, "key": key, "hash": sha256(secret.encode()).hexdigest()} for consumer, key, secret in people
    ]
    values = (json.dumps(rows), now)
    await connection.exec_driver_sql(_BULK, values)
    window_no = await windows.enter(connection)
    legs = [Posting("conversion/CU", CU, -BALANCE * size), *(Posting(who, CU, BALANCE) for who, *_ in people)]
    await journal.append(connection, Entry("deposit", f"bench/{people[0][0]}", window_no, now, tuple(legs)))
    return [(consumer, f"cu_{key.removeprefix('key_')}_{secret}") for consumer, key, secret in people]


_BULK = """
WITH people AS (SELECT * FROM json_to_recordset(%s::json) AS p(id text, key text, hash text)),
made AS (
    INSERT INTO party (id, kind, name, status, created_at) SELECT id, 'consumer', '', 'active', %s FROM people
    RETURNING no, id
), booked AS (
    INSERT INTO account (id, party_no, kind, asset, overdraft) SELECT id, no, 'consumer', 'CU', false FROM made
)
INSERT INTO api_key (id, party_no, secret_hash, scopes, created_at)
SELECT p.key, m.no, decode(p.hash, 'hex'), ARRAY['spend'], now() FROM people p JOIN made m ON m.id = p.id
"""


def _settings(folder: Path) -> Settings:
    return Settings.from_environment({**os.environ, "SETTLEMENT_DATA_DIR": str(folder)})


@contextmanager
def _served(folder: Path, kind: str, processes: int) -> Iterator[int]:
    """Servers of that kind in processes of their own, at one address; its port."""
    with listening_on("127.0.0.1", 0, processes) as bound, ExitStack() as running:
        command = [sys.executable, "-m", "bench.holds", "serve", str(folder), kind]
        for each in bound:
            server = running.enter_context(
                subprocess.Popen([*command, str(each.fileno())], stdout=subprocess.PIPE, pass_fds=[each.fileno()])
            )
            running.callback(server.send_signal, signal.SIGTERM)
            assert server.stdout is not None
            if not server.stdout.readline():
                raise SystemExit(f"the server ended with {server.wait()} before it was ready")
        yield bound[0].getsockname()[1]


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print("listening", flush=True)


def _serve(folder: Path, kind: str, bound: int) -> None:
    """The no-op, the service, or the service with one transaction a request, on a bound socket; until SIGTERM."""

    async def serve(app: Any) -> None:
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
        await _Server(config).serve([socket.socket(fileno=bound)])

    async def noop() -> None:
        app = FastAPI(openapi_url=None)

        @app.post("/v1/holds", status_code=201)
        async def nothing(request: Request) -> Response:
            await request.body()
            return Response(b"{}", 201, media_type="application/json")

        await serve(app)

    async def settle() -> None:
        async with bootstrap.open_installation(_settings(folder)) as opened:
            if kind == "alone":
                _take_lanes_away(opened.context.database)
            await serve(create_app(opened.context))

    uvloop.run(noop() if kind == "noop" else settle())


def _take_lanes_away(database: Any) -> None:
    """One transaction a request, on as many connections as the pool has: what batching is compared with."""

    class Alone:
        def __init__(self, act: Callable[[Sequence[Any], Decided], Any]) -> None:
            self._act = act

        async def take(self, ask: Any) -> Any:
            (outcome,) = await self._act([ask], lambda: None)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    service.use_lanes(database, Alone(service.place_together), Alone(service.change_together))


def _summary(passes: list[dict[str, Run]], options: argparse.Namespace, settings: dict[str, str]) -> dict[str, Any]:
    def spread(values: list[float]) -> dict[str, float]:
        return {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
        }

    def rate(run: Run, count: Callable[[Run], int]) -> float:
        return count(run) / run.seconds

    def both(run: Run) -> int:
        return run.holds + run.captures

    def ratio(one: str, other: str, count: Callable[[Run], int], base: Callable[[Run], int]) -> dict[str, float]:
        return spread([rate(each[one], count) / rate(each[other], base) for each in passes])

    return {
        "what": "holds and captures over HTTP against a no-op of FastAPI; each durable before its answer",
        "passes": len(passes),
        "seconds": options.seconds,
        "connections": options.connections,
        "processes": options.processes,
        "accounts": options.accounts,
        "per_second": {name: spread([rate(each[name], both) for each in passes]) for name in SUBJECTS},
        "holds_and_captures_to_noop": ratio("many", "noop", both, both),
        "holds_alone_to_noop": ratio("placing", "noop", both, both),
        "one_account_to_many": ratio("one", "many", both, both),
        "batched_to_one_transaction_a_request": ratio("placing", "alone", both, both),
        "lease_of_100_to_one_transaction_a_request": ratio("leases", "alone", lambda run: LEASE * run.holds, both),
        "p50_ms": {name: spread([each[name].percentile(50) for each in passes]) for name in SUBJECTS},
        "p99_ms": {name: spread([each[name].percentile(99) for each in passes]) for name in SUBJECTS},
        "postgresql": settings,
        "python": sys.version.split()[0],
    }


if __name__ == "__main__":
    main()
