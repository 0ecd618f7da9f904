"""LiteLLM with our hooks in it, as a gateway runs it. Runs in an environment of its own.

python litellm_calls.py BASE_URL SPOOL
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


async def main(base_url: str, folder: str) -> dict[str, object]:
    """A whole and a streamed call; returns what the hooks dropped."""
    import litellm

    from settlement.core.ids import Sources
    from settlement.meter.gateways import UsageHooks, custom_logger
    from settlement.meter.spool import Spool

    sources = Sources(lambda: datetime.now(UTC), os.urandom)
    spool = Spool(Path(folder), sources)
    hooks = UsageHooks(spool, sources)
    litellm.callbacks = [custom_logger(hooks)]
    common = {
        "model": "openai/gpt-5",
        "api_base": base_url,
        "api_key": "none",
        "messages": [{"role": "user", "content": "say 9"}],
        "metadata": {"settlement_consumer": "acc_of_a_call"},
    }
    await litellm.acompletion(**common)
    async for _ in await litellm.acompletion(**common, stream=True, stream_options={"include_usage": True}):
        pass
    for _ in range(500):
        if sum(1 for path in Path(folder).glob("segments/*") for line in path.read_bytes().splitlines()) >= 2:
            break
        await asyncio.sleep(0.02)
    await spool.close()
    return {"dropped": hooks.dropped}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
