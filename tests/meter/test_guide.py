"""The provider's guide, run as it stands: the meter is installed before a model server, called, and has reported."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.api.town import auth
from tests.meter.gateway import events, open_gateway, said
from tests.meter.upstream import WORD
from tests.world import World

pytestmark = [pytest.mark.database, pytest.mark.network]

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "provider.md"
SECTION = "## Install the meter"


def section() -> str:
    return PAGE.read_text("utf-8").split(f"{SECTION}\n")[1].split("\n## ")[0]


def script(port: int) -> str:
    """The section's shell, without the installation that this environment has, and its end put in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", section(), re.MULTILINE | re.DOTALL)
    lines = (
        "".join(blocks).replace("pip install compute-settlement\n", "").replace("127.0.0.1:8090", f"127.0.0.1:{port}")
    )
    call = lines[lines.index("curl ") : lines.index("sleep ")]
    status = lines[lines.index("settlement meter status") :]
    return f"set -e\n{lines}\n{call}\nkill -TERM %1\nwait %1\necho stopped in order\n{status}"


async def test_the_section_works_as_it_is_written(world: World, tmp_path: Path) -> None:
    world.sources.settable.now = datetime.now(UTC)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with open_gateway(world, tmp_path / "other") as gateway:
        key = tmp_path / "settlement-key.jwk"
        key.write_text(json.dumps(gateway.provider.key.jwk()))
        key.chmod(0o600)
        api_key = (await auth(world, gateway.provider, "holds", "read"))["Authorization"].removeprefix("Bearer ")
        child = await asyncio.create_subprocess_exec(
            *("bash", "-m", "-c", script(port)),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PROVIDER_API_KEY": api_key,
                "MODEL_SERVER": gateway.upstream.url,
                "SERVICE": gateway.service,
                "PROVIDER": gateway.provider.id,
                "SPENDING_KEY": gateway.spending,
            },
        )
        try:
            out, err = await asyncio.wait_for(child.communicate(), 90)
        except TimeoutError:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        assert child.returncode == 0, (out, err)
        text = out.decode()
        account = await gateway.account()
    stream = text[text.index("data: ") : text.index("waiting ")]
    _, stopped, last = text.partition("stopped in order\n")
    assert stopped, "told to stop, it ends by itself"
    assert re.findall(r"\d+", last)[:3] == ["0", "2", "0"], "and has reported the call that came just before"
    assert said(stream) == WORD * 20
    cost = json.loads(next(data for kind, data in events(stream) if kind == "cost"))
    shown = re.search(r"((?:^ {4}(?:waiting|reports|refused) .*\n)+)", section(), re.MULTILINE)
    assert shown is not None
    wanted = [line[4:] for line in shown.group(1).splitlines()]
    found = text[text.index("waiting ") :].strip().splitlines()[:3]
    assert found[:2] == wanted[:2]
    assert found[2] == wanted[2]
    assert float(account["settled"]) == pytest.approx(1000 - 2 * float(cost["amount"]), abs=4e-6)
