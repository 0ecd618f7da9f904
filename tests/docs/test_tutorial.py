"""The tutorial works: its blocks are run in order, in one shell, as its reader would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from socket import create_server

import pytest

from tests.demo.test_play import processes

pytestmark = [pytest.mark.network, pytest.mark.database]

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST = 240


@pytest.fixture
def folder() -> Iterator[Path]:
    """For the tutorial's temporary files; PostgreSQL's own user may pass through."""
    with tempfile.TemporaryDirectory(prefix="settlement-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def script() -> str:
    """All blocks, stopping at the first command that fails; on a free port, in the environment that runs this test."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = "\n".join(BLOCK.findall(TUTORIAL.read_text("utf-8")))
    for written, here in (
        ("make .venv/ready\n", "true\n"),
        (". .venv/bin/activate\n", f". {sys.prefix}/bin/activate\n"),
        ("127.0.0.1:8097\n", f"127.0.0.1:{port}\n"),
    ):
        assert text.count(written) == 1, written
        text = text.replace(written, here)
    return f"set -eo pipefail\n{text}"


@pytest.mark.skipif(not shutil.which("curl"), reason="THE TUTORIAL IS NOT TESTED: there is no curl")
def test_every_block_works_and_no_server_is_left(folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SETTLEMENT_")}
    said = folder / "said"
    with said.open("w") as out:
        shell = subprocess.Popen(
            ["bash", "-c", script()],
            cwd=ROOT,
            env=environment | {"TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(LONGEST)
            deadline = time.monotonic() + 60
            while processes(folder) and time.monotonic() < deadline:
                time.sleep(0.1)
            left = processes(folder)
        finally:
            stop(shell, folder)
    text = said.read_text()
    assert code == 0, text[-4000:]
    assert left == []
    assert "all good" in text
    assert "broken: " in text  # the forged proof


def stop(shell: subprocess.Popen[bytes], folder: Path) -> None:
    """End what is left after a failure: the shell's own processes at once; the database ends when nobody uses it."""
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    shell.wait()
    deadline = time.monotonic() + 60
    while processes(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
