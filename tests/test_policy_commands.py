"""`settlement policy`: from the one in force to the next one, by files; and the ceremony's script to a council."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from settlement import cli
from settlement.core import times

pytestmark = pytest.mark.database


@pytest.fixture
def said(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command on a fresh installation: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("DATABASE_URL", database_url), ("DATA_DIR", str(tmp_path / "data")), ("CHAINS", "simulated")):
        monkeypatch.setenv(f"SETTLEMENT_{name}", value)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(list(arguments))
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


def test_a_policy_is_drafted_published_and_shown(said: Any) -> None:
    code, out, err = said("policy", "show", "--json")
    assert code == 0, err
    first = json.loads(out)
    assert first["version"] == 1
    assert first["document"]["windows"] == {"span_seconds": 86_400}
    changes = ["--set", "windows.span_seconds=3600", "--set", 'withdrawals.fee="1000"']
    later = times.text((datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0))
    code, _, err = said("policy", "draft", *changes, "--effective-from", later, "--out", "next.json")
    assert code == 0, err
    drafted = json.loads(Path("next.json").read_bytes())
    assert (drafted["version"], drafted["parent"], drafted["effective_from"]) == (2, first["digest"], later)
    assert (drafted["windows"], drafted["withdrawals"]["fee"]) == ({"span_seconds": 3600}, "1000")
    code, out, err = said("policy", "publish", "next.json", "--json")
    assert code == 0, err
    assert json.loads(out)["version"] == 2
    code, _, err = said("policy", "publish", "next.json")
    assert code == 1
    assert "version_not_next" in err
    assert json.loads(said("policy", "show", "--json")[1])["version"] == 1, "the next one is not in force yet"
    assert json.loads(said("policy", "show", "2", "--json")[1])["document"]["windows"]["span_seconds"] == 3600
    assert "policy_unknown" in said("policy", "show", "3")[2]


WRONG = ["withdrawals.fee", "withdrawals.tip=1", "nothing=1", 'withdrawals.fee="-1"', "windows.span_seconds=0", "x="]


@pytest.mark.parametrize("change", WRONG)
def test_what_a_policy_does_not_have_is_not_drafted(said: Any, change: str) -> None:
    code, _, err = said("policy", "draft", "--set", change, "--out", "next.json")
    assert code == 1
    assert "policy_malformed" in err
    assert not Path("next.json").exists()


def test_the_ceremony_is_a_script_that_says_what_is_missing(said: Any, tmp_path: Path) -> None:
    folder = tmp_path / "hall"
    folder.mkdir()
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "settlement"
    run = "from settlement.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{run}" "$@"\n', "utf-8")
    command.chmod(0o755)
    script = str(files("governance").joinpath("seed", "ceremony.sh"))
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(Path(__file__).parents[1])}

    def ceremony() -> tuple[int, str]:
        arguments = ["sh", script, str(folder), "2099-01-01T00:00:00Z", "2", "2"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout + done.stderr

    assert ceremony()[0] == 1
    for name in ("ada", "bo"):
        out = said("keys", "new", "--out", f"{name}.jwk", "--json")[1]
        (folder / f"{name}.public.json").write_text(out, "utf-8")
    code, text = ceremony()
    assert code == 0, text
    assert "council.json" in text
    sign(said, folder, "ada")
    assert ceremony() == (1, "still to sign: bo\n")
    sign(said, folder, "bo")
    code, text = ceremony()
    assert code == 0, text
    assert "governs from 2099-01-01" in text


def sign(said: Any, folder: Path, name: str) -> None:
    """As a member does on a machine of its own."""
    signed = ["--key", f"{name}.jwk", "--out", str(folder / f"{name}.signature")]
    assert said("council", "sign", str(folder / "council.json"), *signed)[0] == 0
