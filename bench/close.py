"""What closing a window costs: close + net + checkpoint at 100,000 and 1,000,000 records and 10,000 parties.

    python -m bench.close [--records 100000 1000000] [--report 1000] [--leaves 1000000] [--turns 9]

Each size has a database of its own on an embedded server, and its settlement runs in a fresh process, so that its peak
memory (VmHWM) is its own. Seeding writes what ingest writes, by the storage functions that ingest uses. Prints JSON:
seconds a step, peak RSS before and after, and the ratio of `merkle_root` to bare hashing of the same leaves (median of
interleaved turns).
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
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.engine import make_url

from adapters.simulated import USD, open_adapter
from settlement.core.ids import Sources, public_id, uuid7, uuid_text
from settlement.core.journal import CU, Entry, Posting
from settlement.core.merkle import merkle_root
from settlement.core.policy import Policy
from settlement.core.signatures import SigningKey
from settlement.core.units import split_pico
from settlement.services import windows as service
from settlement.services.context import Context
from settlement.storage import accounts, governance, journal, schema, windows
from settlement.storage.database import Connection, Database, raw_cursor
from settlement.storage.embedded import EmbeddedServer
from settlement.storage.usage import COMPRESSION_LEVEL, compress

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PROVIDERS = 50
PARTIES = 10_000
RECORD_COLUMNS = "id, provider_no, report_no, line, window_no, consumer_no, model_no, rates_version, at, charge_pico"


def peak_kib() -> int:
    """The most memory that this process has had, in KiB."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def context_of(url: str, folder: Path) -> Context:
    """A context as bootstrap makes it, with a clock that stands still."""
    sources = Sources(lambda: NOW, os.urandom)
    chain = open_adapter({"data_dir": str(folder), "network": "bench"}, clock=sources.clock, entropy=sources.entropy)
    return Context(Database(url), sources, SigningKey(bytes(32)), {"simulated": chain})


async def found(connection: Connection) -> list[tuple[int, str, int]]:
    """An empty installation with 10,000 parties; (party no, id, account no) of each, providers first."""
    await windows.open_first(connection, NOW - timedelta(hours=1))
    policy = Policy(1, NOW - timedelta(days=40), usd_per_asset={"USD": Fraction(1)}, minimum_payout=1_000_000)
    document = policy.document()
    signed = governance.Signed(1, sha256(document).digest(), policy.effective_from, document, [])
    await governance.publish_policy(connection, signed)
    await accounts.ensure(connection, "conversion/CU", "conversion", CU)
    ids = [public_id("prv" if at < PROVIDERS else "acc", uuid7(NOW, os.urandom)) for at in range(PARTIES)]
    kinds = ["provider" if at < PROVIDERS else "consumer" for at in range(PARTIES)]
    async with raw_cursor(connection) as cursor:
        await cursor.execute(
            "INSERT INTO party (id, kind, name, status, created_at) "
            "SELECT i, k, i, 'active', now() FROM unnest(%s::text[], %s::text[]) AS p(i, k)",
            (ids, kinds),
        )
        await cursor.execute(
            "INSERT INTO account (id, party_no, kind, asset, overdraft) SELECT id, no, kind, 'CU', false FROM party"
        )
        await cursor.execute(
            "INSERT INTO payout_address (party_no, chain, asset, address, valid_from, signed_body, signature) "
            "SELECT no, 'simulated', %s, 'bench' || no, '2026-01-01', '', '' FROM party WHERE kind = 'provider'",
            (USD.text,),
        )
        # Half of the providers also buy: each of them is one party with a consumer account.
        await cursor.execute(
            "UPDATE party p SET account_id = c.id FROM (SELECT id, row_number() OVER (ORDER BY no) AS n FROM party "
            "WHERE kind = 'consumer') c WHERE p.kind = 'provider' AND p.no % 2 = 0 AND c.n = p.no"
        )
        await cursor.execute(
            "SELECT p.no, p.id, a.no FROM party p JOIN account a ON a.party_no = p.no ORDER BY p.kind DESC, p.no"
        )
        rows: list[tuple[int, str, int]] = await cursor.fetchall()
    number = await windows.enter(connection)
    legs = [Posting(name, CU, 10**12) for _, name, _ in rows[PROVIDERS:]]
    total = -sum(leg.amount for leg in legs)
    await journal.append(
        connection, Entry("opening", "bench", number, NOW, (Posting("conversion/CU", CU, total), *legs))
    )
    return rows


class Seed:
    """Writes reports as ingest does: bodies, records, obligations, carries and journal entries that agree."""

    def __init__(self, parties: list[tuple[int, str, int]]) -> None:
        self.parties = parties
        self.dice = random.Random(7)
        self.carry: dict[tuple[int, int], int] = {}
        self.owed: dict[tuple[int, int], list[int]] = {}

    async def report(self, connection: Connection, number: int, size: int) -> None:
        provider_no, provider, provider_account = self.parties[number % PROVIDERS]
        consumers = self.dice.choices(self.parties[PROVIDERS:], k=size)
        records = [self._record(consumer) for _, consumer, _ in consumers]
        body = json.dumps(
            {"v": 1, "provider": provider, "report": f"r{number}", "seq": number, "prev": None, "records": records},
            separators=(",", ":"),
        ).encode()
        digest = sha256(body).digest()
        posted: dict[int, int] = {}
        rows = []
        for line, (record, (consumer_no, _, account_no)) in enumerate(zip(records, consumers, strict=True)):
            pico = 125_000 * record["meters"]["input_tokens"] + 1_000_003 * record["meters"]["output_tokens"]
            pair = provider_no, consumer_no
            owed = self.owed.setdefault(pair, [0, 0, 0])
            whole, self.carry[pair] = split_pico(self.carry.get(pair, 0), pico)
            owed[0], owed[1], owed[2] = owed[0] + 1, owed[1] + pico, owed[2] + whole
            posted[account_no] = posted.get(account_no, 0) + whole
            rows.append((record["id"], provider_no, number, line, 1, consumer_no, 1, 1, NOW, pico))
        total = sum(posted.values())
        names = {account: name for _, name, account in consumers}
        legs = [Posting(names[account], CU, -amount) for account, amount in posted.items() if amount]
        entry = Entry("usage", f"rep_{number}", 1, NOW, (*legs, Posting(provider, CU, total)))
        numbers = {name: account for account, name in names.items()} | {provider: provider_account}
        head = await journal.append_locked(connection, entry, numbers)
        async with raw_cursor(connection) as cursor:
            await cursor.execute(
                "INSERT INTO usage_report (no, id, provider_no, report, seq, digest, window_no, journal_seq, "
                "received_at, kid, signature, body, accepted, refusals, total, receipt) "
                "VALUES (%s, %s, %s, %s, %s, %s, 1, %s, %s, '', '', %s, %s, %s, %s, '')",
                (
                    number,
                    f"rep_{number}",
                    provider_no,
                    f"r{number}",
                    number,
                    digest,
                    head.seq,
                    NOW,
                    compress(body),
                    size,
                    Jsonb([]),
                    total,
                ),
            )
            async with cursor.copy(f"COPY usage_record ({RECORD_COLUMNS}) FROM STDIN") as copy:
                for row in rows:
                    await copy.write_row(row)

    async def pairs(self, connection: Connection) -> None:
        async with raw_cursor(connection) as cursor:
            columns = "window_no, provider_no, consumer_no, records, carried_in, pico, posted"
            async with cursor.copy(f"COPY obligation ({columns}) FROM STDIN") as copy:
                for (provider, consumer), (records, pico, whole) in self.owed.items():
                    await copy.write_row((1, provider, consumer, records, 0, pico, whole))

    def _record(self, consumer: str) -> dict[str, Any]:
        cached = self.dice.randrange(2_000)
        return {
            "id": uuid_text(uuid7(NOW, self.dice.randbytes)),
            "at": "2026-11-22T00:00:00.123456Z",
            "consumer": consumer,
            "model": "gpt-5",
            "operation": "chat",
            "tier": "standard",
            "outcome": "completed",
            "meters": {
                "input_tokens": cached + self.dice.randrange(2_000),
                "cache_read_tokens": cached,
                "output_tokens": self.dice.randrange(900),
                "output_reasoning_tokens": 0,
            },
        }


async def seed(url: str, folder: Path, records: int, report: int) -> float:
    """Fill a database; returns the seconds it took."""
    started = time.perf_counter()
    context = context_of(url, folder)
    async with context.database.begin() as connection:
        written = Seed(await found(connection))
    for number in range(1, records // report + 1):
        async with context.database.begin() as connection:
            await written.report(connection, number, report)
    async with context.database.begin() as connection:
        await written.pairs(connection)
    await context.database.close()
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as owner:
        owner.execute("VACUUM (ANALYZE)")
    return time.perf_counter() - started


async def settle(url: str, folder: Path) -> dict[str, Any]:
    """Close, net and checkpoint window 1 in this process; what it took."""
    context = context_of(url, folder)
    before = peak_kib()
    found: dict[str, Any] = {}
    for name, step in (("close", service.close(context)), ("net", service.settle_net(context, 1))):
        found[f"{name}_seconds"] = await _timed(step)
    found["checkpoint_seconds"] = await _timed(service.settle_checkpoint(context, 1))
    found["seconds"] = round(sum(found.values()), 3)
    found |= {"peak_rss_mib": peak_kib() // 1024, "of_it_before_mib": before // 1024}
    async with context.database.read() as connection:
        document = (await connection.execute(text("SELECT document FROM checkpoint"))).scalar_one()
        found["positions"] = json.loads(document)["positions"]["size"]
        found["records"] = json.loads(document)["records"]["size"]
        found["obligations"] = (await connection.execute(text("SELECT count(*) FROM obligation"))).scalar_one()
    await context.database.close()
    return found


async def _timed(step: Any) -> float:
    started = time.perf_counter()
    assert await step, "the step was refused"
    return round(time.perf_counter() - started, 3)


def tree_ratio(size: int, turns: int, leaf_bytes: int) -> dict[str, Any]:
    """`merkle_root` over bare hashing: as many hash calls, on the same leaves, turn about; CPU time."""
    leaves = [np.random.default_rng(at).bytes(leaf_bytes - 4) for at in range(64)]
    many = [leaves[at % 64] + at.to_bytes(4, "big") for at in range(size)]
    node = bytes(65)
    ratios, to_leaves = [], []
    for _ in range(turns):
        started = time.process_time()
        for leaf in many:
            sha256(b"\x00" + leaf).digest()
        leaves_only = time.process_time() - started
        for _ in range(size - 1):
            sha256(node).digest()
        bare = time.process_time() - started
        started = time.process_time()
        merkle_root(many)
        tree = time.process_time() - started
        ratios.append(tree / bare)
        to_leaves.append(tree / leaves_only)
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "leaves": size,
        "leaf_bytes": leaf_bytes,
        "turns": turns,
        "merkle_root_to_bare_hash_calls": round(statistics.median(ratios), 3),
        "spread": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "merkle_root_to_leaf_hashing": round(statistics.median(to_leaves), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--report", type=int, default=1_000, help="records in a report")
    parser.add_argument(
        "--leaves", type=int, default=1_000_000, help="leaves of the tree that is compared with hashing"
    )
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--settle", nargs=2, metavar=("URL", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.settle:
        print(json.dumps(asyncio.run(settle(given.settle[0], Path(given.settle[1])))))
        return
    results: dict[str, Any] = {
        "parties": PARTIES,
        "report": given.report,
        "zstd_level": COMPRESSION_LEVEL,
        "windows": [],
    }
    with tempfile.TemporaryDirectory(prefix="settlement-bench-") as folder:
        Path(folder).chmod(0o711)  # run as root, the server drops to a user that must get through
        server = EmbeddedServer.attach(Path(folder) / "postgres")
        try:
            for records in given.records:
                results["windows"].append(_one_size(server, Path(folder), records, given.report))
        finally:
            server.close(wait=True)
    # Real leaves have about 570 bytes; short ones leave the tree nowhere to hide.
    results["tree"] = [tree_ratio(given.leaves, given.turns, leaf_bytes) for leaf_bytes in (64, 570)]
    print(json.dumps(results, indent=1))


def _one_size(server: EmbeddedServer, folder: Path, records: int, report: int) -> dict[str, Any]:
    name = f"bench_{records}"
    plain = make_url(server.url("postgres")).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as owner:
        owner.execute(f"CREATE DATABASE {name}")
    schema.upgrade(server.url(name))
    seeded = asyncio.run(seed(server.url(name), folder / f"seed-{records}", records, report))
    command = [sys.executable, "-m", "bench.close", "--settle", server.url(name), str(folder / f"settle-{records}")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return {"seed_seconds": round(seeded, 1), **found}


if __name__ == "__main__":
    main()
