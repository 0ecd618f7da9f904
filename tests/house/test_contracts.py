"""The import contracts of pyproject.toml name every part of the house, and each of them can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.house.source import PACKAGES, ROOT

BREAKING = {
    "Imports go down the floors of the house": ("settlement/storage/bad_up.py", "import settlement.services.context"),
    "The meter imports the core only": ("settlement/meter/bad_meter.py", "import settlement.chain"),
    "The client imports the core and the rules of governing only": (
        "settlement/client/bad_client.py",
        "import settlement.storage.tables",
    ),
    "The client verifies with the standard library and cryptography": (
        "settlement/client/bad_verifier.py",
        "import msgspec",
    ),
    "Adapters see the port and the core only": ("adapters/bad_adapter.py", "import settlement.storage.tables"),
    "Nothing imports adapters: entry points load them": ("governance/bad_loader.py", "import adapters.simulated"),
    "SQL lives in storage, migrations and bootstrap": ("settlement/services/bad_sql.py", "import sqlalchemy"),
    "No chain SDK outside adapters": ("settlement/core/bad_sdk.py", "import xrpl"),
    "Signers see the port and the core only": ("settlement/signers/bad_signer.py", "import settlement.storage.tables"),
    "No web framework below the API": ("settlement/core/bad_web.py", "import fastapi"),
}
"""For each contract a module that breaks it."""


def contracts() -> list[dict[str, Any]]:
    """The contracts as they are written."""
    read: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(read["tool"]["importlinter"]["contracts"])


def test_every_part_has_its_floor() -> None:
    """A new module at the top of a package says first where it stands."""
    floors = next(contract for contract in contracts() if contract["type"] == "layers")["layers"]
    named = {name.strip(" ()") for floor in floors for name in floor.split(":")} | {
        "settlement.client",
        "settlement.meter",
    }
    for package in ("settlement", "governance"):
        for path in (ROOT / package).iterdir():
            if path.suffix == ".py" or (path / "__init__.py").exists():
                name = path.stem
                assert name == "__init__" or f"{package}.{name}" in named, f"{package}.{name} has no floor"


def test_every_contract_can_fail(tmp_path: Path) -> None:
    """A copy of the house with one bad import for each contract breaks exactly those: all of them."""
    assert set(BREAKING) == {contract["name"] for contract in contracts()}
    for folder in (*PACKAGES, "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in BREAKING.values():
        (tmp_path / path).write_text(line + "\n")
    linter = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", linter, "--no-cache", "--no-logo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    kept = [name for name in BREAKING if not any(line.startswith(f"{name} BROKEN") for line in lines)]
    assert kept == [], done.stdout


def test_verifier_stands_alone() -> None:
    """Whoever checks us installs cryptography and nothing else: every other package is made impossible to import."""
    verifying = sorted(
        f"settlement.client.{path.stem}"
        for path in (ROOT / "settlement" / "client").glob("*.py")
        if path.stem != "__init__" and "httpx2" not in path.read_text()
    )
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
ALLOWED = set(sys.stdlib_module_names) | {{"settlement", "governance", "cryptography", "cffi", "_cffi_backend"}}
class Shut:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Shut())
for name in {verifying!r}:
    __import__(name)
"""
    if not verifying:
        pytest.fail("there is no verifier")
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
