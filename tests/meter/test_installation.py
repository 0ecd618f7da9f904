"""A provider installs the meter without the server: what `pip install compute-settlement` brings is enough for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SERVER_ONLY = (
    "sqlalchemy",
    "fastapi",
    "psycopg",
    "xrpl",
    "stellar_sdk",
    "numpy",
    "msgspec",
    "alembic",
)


def brought() -> set[str]:
    """The distributions that the base installation brings, with all that they need in turn."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    waiting, found = [Requirement(each) for each in asked], set[str]()
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting.extend(Requirement(each) for each in metadata.requires(name) or ())
    return found


def importable() -> set[str]:
    """The top-level names of those distributions."""
    names = brought()
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if any(re.sub(r"[-_.]+", "-", owner).lower() in names for owner in owners)
    }


def alone(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where nothing can be imported but Python, this project and what the base installation brings."""
    allowed = sorted(importable() | {"settlement", "governance", "adapters", "_cffi_backend"})
    shut = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
ALLOWED = set(sys.stdlib_module_names) | set({allowed!r})
class Shut:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Shut())
"""
    return subprocess.run(
        [sys.executable, "-P", "-c", shut + program], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_base_installation_brings_no_server() -> None:
    names = brought()
    assert {"cryptography", "genai-prices", "httpx2", "typer", "uvicorn"} <= names
    assert not names & {"sqlalchemy", "fastapi", "psycopg", "xrpl-py", "stellar-sdk", "numpy", "msgspec", "alembic"}
    assert len(names) < 40


def test_every_module_of_meter_and_client_imports_without_the_server() -> None:
    places = [path for package in ("meter", "client") for path in (ROOT / "settlement" / package).glob("*.py")]
    names = sorted(f"settlement.{path.parent.name}.{path.stem}" for path in places if path.stem != "__init__")
    names += ["settlement.commands.metering", "settlement.commands.siblings"]
    done = alone(f"for name in {names!r}:\n    __import__(name)\n")
    assert done.returncode == 0, done.stderr
    for module in SERVER_ONLY:
        assert alone(f"import {module}").returncode != 0


def test_the_command_line_meters_without_the_server(tmp_path: Path) -> None:
    answer = {"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(answer))
    run = "from settlement.cli import run; import sys; sys.exit(run({!r}))"
    done = alone(run.format(["meter", "normalise", str(file), "--json"]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["all"]["exact"] == 1
    refused = alone(run.format(["db", "upgrade"]))
    assert refused.returncode == 1
    assert "extra_missing" in refused.stderr
    assert "compute-settlement[server]" in refused.stderr
