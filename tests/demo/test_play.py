"""The demonstration as its user runs it: it adds up, fits on a terminal, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from settlement.demo.play import Options

pytestmark = [pytest.mark.database, pytest.mark.network]

PROGRAM = Path(sys.executable).with_name("settlement")
SMALL = ("--records", "400", "--consumers", "5", "--windows", "2")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory for temporary files that PostgreSQL's own user may pass through."""
    with tempfile.TemporaryDirectory(prefix="settlement-test-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder
        deadline = time.monotonic() + 60
        while processes(folder) and time.monotonic() < deadline:
            time.sleep(0.05)


@pytest.fixture
def environment(scratch: Path) -> dict[str, str]:
    """No settings but the defaults."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SETTLEMENT_")}
    return plain | {"TMPDIR": str(scratch), "COLUMNS": "80"}


def processes(folder: Path) -> list[str]:
    """Command lines of processes that still work in a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if str(folder) in said:
            found.append(said)
    return found


def nothing_left(folder: Path) -> bool:
    return not list(folder.iterdir()) and not processes(folder)


def played(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), "demo", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_made_up_traffic_is_settled_and_reported_on_80_columns(environment: dict[str, str], scratch: Path) -> None:
    ended = played(environment, *SMALL)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) < 80
    labels = [line.split("  ")[1] for line in lines if line.startswith("  ") and "  " in line.strip()]
    assert {"records charged", "netting ratio", "fee per request", "verified offline"} <= set(labels)
    assert "everything adds up" in ended.stdout
    assert "not real traffic" in ended.stdout
    assert nothing_left(scratch)


def test_a_trace_is_charged_whole_and_the_books_can_be_kept(environment: dict[str, str], scratch: Path) -> None:
    trace, books = scratch / "real[1].csv", scratch / "books"
    rows = [f"2023-11-16 18:15:{second:02}.{second}00000,{100 + second},{second + 1}" for second in range(30)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    arguments = ("--trace", trace, "--consumers", 5, "--windows", 3, "--data-dir", books, "--json")
    ended = played(environment, *arguments)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["traffic"], found["records"], found["refused"], found["windows"]) == (trace.name, 30, 0, 3)
    assert found["verified"] == "everything adds up"
    looked = [str(PROGRAM), "verify", "--json"]
    closer = environment | {"SETTLEMENT_DATA_DIR": str(books)}
    verified = subprocess.run(looked, env=closer, capture_output=True, text=True, timeout=60, check=False)
    assert (verified.returncode, json.loads(verified.stdout)["records"]) == (0, 30)


@pytest.mark.parametrize(
    ("number", "lines"),
    [
        (signal.SIGINT, 0),
        (signal.SIGTERM, 4),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.nightly),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.nightly),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.nightly),
        pytest.param(signal.SIGINT, 4, marks=pytest.mark.nightly),
    ],
)
def test_stopping_it_leaves_nothing_behind(
    environment: dict[str, str], scratch: Path, number: signal.Signals, lines: int
) -> None:
    """While the database starts, while people register, and in the middle of settling."""
    command = [str(PROGRAM), "demo", "--records", "60000", "--consumers", "40"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        deadline = time.monotonic() + 60
        while not list(scratch.glob("*/postgres/pgdata")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=90)
    assert (process.returncode, said) == (130, "")
    assert nothing_left(scratch)


def test_a_trace_with_fewer_requests_than_windows_is_refused_before_anything_starts(
    environment: dict[str, str], scratch: Path
) -> None:
    trace = scratch / "short.jsonl"
    trace.write_text('{"timestamp": 1, "input_tokens": 5, "output_tokens": 5}\n')
    ended = played(environment, "--trace", trace)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith("settlement: trace_too_short: ")
    assert [file.name for file in scratch.iterdir()] == ["short.jsonl"]


def test_an_address_in_use_is_one_sentence(environment: dict[str, str], scratch: Path) -> None:
    ended = played(environment | {"SETTLEMENT_LISTEN": "192.0.2.1:1"}, *SMALL, "--stay")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("settlement: address_unavailable: ")
    assert nothing_left(scratch)


def test_options_go_by_name() -> None:
    with pytest.raises(TypeError):
        Options(None, 5)  # type: ignore[call-arg]
    assert Options(windows=3).windows == 3


def test_help_says_what_each_option_does(environment: dict[str, str]) -> None:
    said = played(environment, "--help").stdout.partition("Options:")[2]
    named = [line.split()[0] for line in said.splitlines() if line.startswith("  --")]
    fields = [f"--{name.replace('_', '-')}" for name in Options.__dataclass_fields__ if name not in ("_", "as_json")]
    assert set(named) == {*fields, "--json", "--help"}
    assert all(len(line.split()) > 2 for line in said.splitlines() if line.startswith("  --"))
