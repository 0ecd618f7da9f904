"""Commands in tests: a fresh installation by its environment, and what a command of this process said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from settlement import cli


@dataclass
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Said]


def commanding(capture: pytest.CaptureFixture[bytes]) -> Command:
    """Runs a command in this process."""

    def run(*arguments: object) -> Said:
        capture.readouterr()
        code = cli.run([str(each) for each in arguments])
        out, err = capture.readouterr()
        return Said(code, out.decode(), err.decode())

    return run


def installed(database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of an installation on the simulated chain, set for this process."""
    settings = {
        "SETTLEMENT_DATABASE_URL": database_url,
        "SETTLEMENT_DATA_DIR": str(folder / "data"),
        "SETTLEMENT_CHAINS": "simulated",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings
