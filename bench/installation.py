"""An installation for benchmarks: embedded PostgreSQL, founded, with funded participants, and checks of its books."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from settlement import bootstrap
from settlement.config import Settings
from settlement.core import canonical
from settlement.core.ids import public_id, uuid7, uuid_text
from settlement.core.journal import CU, Entry, Posting
from settlement.core.signatures import SigningKey, sign_detached
from settlement.core.times import text as time_text
from settlement.storage import accounts, governance, journal, parties, windows
from settlement.storage.database import Connection
from settlement.storage.embedded import EmbeddedServer
from settlement.storage.parties import Key

MODELS = ("gpt-5", "gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro")


class Stream:
    """A provider that signs one report after the other about the same consumers."""

    def __init__(self, provider: str, key: SigningKey, consumers: list[str]) -> None:
        self.provider = provider
        self.key = key
        self.consumers = consumers
        self.seq = 0
        self.last_digest: str | None = None

    def report(self, records: int) -> tuple[bytes, str]:
        """The next report and its signature: one consumer after the other, four models in turn."""
        self.seq += 1
        now = datetime.now(UTC)
        at = time_text(now)
        document = {
            "v": 1,
            "provider": self.provider,
            "report": f"report-{self.seq}",
            "seq": self.seq,
            "prev": self.last_digest,
            "records": [
                {
                    "id": uuid_text(uuid7(now, os.urandom)),
                    "at": at,
                    "consumer": self.consumers[line % len(self.consumers)],
                    "model": MODELS[line % len(MODELS)],
                    "operation": "chat",
                    "tier": "standard",
                    "outcome": "completed",
                    "meters": {"input_tokens": 1000 + line % 7, "cache_read_tokens": 300, "output_tokens": 200},
                }
                for line in range(records)
            ],
        }
        body = json.dumps(document, separators=(",", ":")).encode()
        self.last_digest = canonical.digest(body)
        return body, sign_detached(self.key, body)


class Installation:
    """Founds an installation below `folder`; the server stays while this is entered."""

    def __init__(self, folder: Path) -> None:
        self._settings = Settings.from_environment({**os.environ, "SETTLEMENT_DATA_DIR": str(folder)})
        self.rate_table = b""
        self.settings: dict[str, str] = {}

    def __enter__(self) -> Self:
        bootstrap.make_data_dir(self._settings)
        self._server = EmbeddedServer.attach(self._settings.data_dir / "postgres")
        self.plain_url = self._server.url().replace("+psycopg", "")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.close(wait=True)

    def participants(self, *, providers: int, consumers: int, balance: int) -> list[Stream]:
        """Register and fund participants, and make the table for the raw baseline."""
        streams = asyncio.run(self._register(providers, consumers, balance))
        self.execute("CREATE TABLE raw_record (LIKE usage_record INCLUDING INDEXES)")
        with psycopg.connect(self.plain_url) as connection:
            for name in ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers"):
                row = connection.execute(f"SHOW {name}").fetchone()
                assert row is not None
                self.settings[name] = row[0]
        if self.settings["fsync"] != "on" or self.settings["synchronous_commit"] != "on":
            raise SystemExit("durability is off: nothing measured here would mean anything")
        return streams

    def execute(self, statement: str) -> None:
        """Run one statement of the benchmark's own."""
        with psycopg.connect(self.plain_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def check_books(self) -> None:
        """Every sum that must hold after a pass; a wrong one voids the run."""
        wrong = """
            SELECT 'entries' FROM posting GROUP BY entry_seq HAVING sum(amount) <> 0
            UNION ALL SELECT 'balances' FROM account a
                LEFT JOIN (SELECT account_no, sum(amount) AS total FROM posting GROUP BY 1) p ON p.account_no = a.no
                WHERE a.settled <> coalesce(p.total, 0)
            UNION ALL SELECT 'records' FROM obligation o FULL JOIN (
                SELECT window_no, provider_no, consumer_no, count(*) AS n, sum(charge_pico) AS pico
                FROM usage_record GROUP BY 1, 2, 3) r USING (window_no, provider_no, consumer_no)
                WHERE o.records IS DISTINCT FROM r.n OR o.pico IS DISTINCT FROM r.pico
            UNION ALL SELECT 'accepted'
                WHERE (SELECT sum(accepted) FROM usage_report) <> (SELECT count(*) FROM usage_record)
        """
        with psycopg.connect(self.plain_url) as connection:
            found = connection.execute(wrong).fetchall()
        if found:
            raise SystemExit(f"the books do not add up, the run is void: {found}")

    async def _register(self, providers: int, consumers: int, balance: int) -> list[Stream]:
        async with bootstrap.open_installation(self._settings) as opened:
            context = opened.context
            now = context.sources.clock()

            async def use_case(connection: Connection) -> list[Stream]:
                window_no = await windows.enter(connection)
                await accounts.ensure(connection, "conversion/CU", "conversion", CU)
                ids = [public_id("acc", uuid7(now, os.urandom)) for _ in range(consumers)]
                for consumer in ids:
                    await parties.add(
                        connection,
                        party_id=consumer,
                        kind="consumer",
                        name="",
                        status="active",
                        account_id=None,
                        now=now,
                    )
                    legs = (Posting("conversion/CU", CU, -balance), Posting(consumer, CU, balance))
                    await journal.append(connection, Entry("deposit", f"bench/{consumer}", window_no, now, legs))
                return [await self._provider(connection, ids, now) for _ in range(providers)]

            streams = await context.database.run(use_case)
            async with context.database.read() as connection:
                self.rate_table = (await governance.rates_at(connection, now)).document
            return streams

    async def _provider(self, connection: Connection, consumers: list[str], now: datetime) -> Stream:
        key = SigningKey(os.urandom(32))
        provider = public_id("prv", uuid7(now, os.urandom))
        party = await parties.add(
            connection, party_id=provider, kind="provider", name="", status="active", account_id=None, now=now
        )
        await parties.add_key(connection, Key(key.public.kid, party.no, key.public.raw, now, None), now)
        return Stream(provider, key, consumers)
