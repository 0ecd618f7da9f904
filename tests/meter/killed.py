"""A provider's meter as a process of its own, to be killed: spools records and sends them, and says what is durable.

    python -m tests.meter.killed FOLDER URL PROVIDER KEYFILE CONSUMER RECORDS KILL_AT

It prints ``durable <id>`` when a record is on disk and ``drained`` at its end. At the KILL_AT-th call that makes
something durable (fsync or rename; 0 for never) it is killed by SIGKILL, from inside: before the call when the number
is odd, behind it when it is even.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from settlement.core.ids import Sources, uuid7, uuid_text
from settlement.core.signatures import SigningKey
from settlement.core.times import text
from settlement.meter.sending import open_sender
from settlement.meter.spool import Spool


def deadly(kill_at: int) -> None:
    """Count the calls that make something durable, and die at one of them."""
    seen = 0

    def wrapped(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == kill_at and kill_at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync = wrapped(os.fsync)
    os.rename = wrapped(os.rename)


async def main(folder: str, url: str, provider: str, key: str, consumer: str, records: str, kill_at: str) -> None:
    """Spool, send, drain."""
    deadly(int(kill_at))
    sources = Sources(lambda: datetime.now(UTC), os.urandom)
    spool = Spool(Path(folder), sources)
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        signer = SigningKey.from_jwk(json.loads(Path(key).read_text()))
        sender = await open_sender(spool, provider, signer, http, os.urandom, every=0.01)
        sending = asyncio.create_task(sender.run())
        for _ in range(int(records)):
            now = sources.clock()
            record = {
                "id": uuid_text(uuid7(now, os.urandom)),
                "at": text(now),
                "consumer": consumer,
                "model": "gpt-5",
                "operation": "chat",
                "tier": "standard",
                "meters": {"input_tokens": 10, "output_tokens": 5},
            }
            await spool.begin(record)
            await spool.record(record | {"outcome": "completed"})
            print(f"durable {record['id']}", flush=True)
        await spool.close()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await sender.drain()
        print("drained", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
