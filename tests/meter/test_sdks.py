"""Other people's software, unmodified: the OpenAI SDK against the proxy, LiteLLM with our logger in it.

Their pins clash with the lock, so each lives in an environment of its own, made from requirements with hashes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from settlement.meter import segments
from tests.meter.gateway import open_gateway
from tests.meter.upstream import WORD, Upstream
from tests.world import World

pytestmark = [pytest.mark.nightly, pytest.mark.database, pytest.mark.network]

HERE = Path(__file__).with_name("sdks")
ROOT = Path(__file__).parents[2]


def environment(name: str) -> Path:
    """The Python of an environment with these requirements; kept between runs. Skips when it can't be built."""
    folder = ROOT / ".venv" / "sdks" / name
    python = folder / "bin" / "python"
    requirements = HERE / f"{name}.txt"
    stamp = folder / "made-from.txt"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", "--require-hashes", "--requirement", str(requirements)]
        made = subprocess.run(command, check=False, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(
                f"SKIPPED FOR WANT OF PACKAGES: {name} can't be installed here ({made.stderr.strip()[-200:]}); "
                "this test proved nothing here"
            )
        stamp.write_bytes(requirements.read_bytes())
    return python


async def run(python: Path, script: str, *arguments: str) -> dict[str, Any]:
    """What a script of `sdks/` prints."""
    child = await asyncio.create_subprocess_exec(
        *(str(python), str(HERE / script), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()[-3000:]
    found: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return found


async def test_the_openai_sdk_needs_another_base_url_and_key_and_nothing_else(world: World, tmp_path: Path) -> None:
    python = environment("openai")
    world.sources.settable.now = datetime.now(UTC)
    async with open_gateway(world, tmp_path) as gateway:
        found = await run(python, "openai_calls.py", f"{gateway.url}/v1", gateway.spending)
        records = gateway.records()
    assert found == {
        "whole": WORD * 7,
        "usage": 7,
        "plain": WORD * 7,
        "streamed_usage": 7,
        "cost": found["cost"],
        "refused": "401 consumer_key_unknown",
        "models": ["gpt-5"],
    }
    assert float(found["cost"]) > 0
    assert [(record["outcome"], record["meters"]["output_tokens"]) for record in records] == [("completed", 7)] * 4


async def test_litellm_calls_our_logger_and_loses_nothing(tmp_path: Path) -> None:
    python = environment("litellm")
    upstream = Upstream()
    url = await upstream.start()
    try:
        found = await run(python, "litellm_calls.py", f"{url}/v1", str(tmp_path / "spool"))
    finally:
        await upstream.stop()
    assert found == {"dropped": {}}
    records = [
        record
        for path in (tmp_path / "spool").glob("segments/*")
        for record in segments.records(segments.read(path).lines)
    ]
    assert [record["meters"] for record in records] == [{"input_tokens": 5, "output_tokens": 9}] * 2
    assert {record["consumer"] for record in records} == {"acc_of_a_call"}
