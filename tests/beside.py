"""A program of two processes, as `settlement serve --processes 2` is one, without the service: it says their numbers.

python -m tests.beside
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from multiprocessing.connection import Connection

from settlement.commands.running import reported
from settlement.commands.siblings import siblings, until_parent_ends


def stand_by(ready: Connection) -> None:
    """The second process: it says its number, and waits for its end."""

    async def wait() -> None:
        stop = asyncio.Event()
        until_parent_ends(stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        print(os.getpid(), flush=True)
        ready.send_bytes(b"here")
        await stop.wait()

    asyncio.run(wait())


async def _both() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with siblings(stop, stand_by, [()]):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(reported(lambda: asyncio.run(_both())))
