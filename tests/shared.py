"""Where the large real data files are, for the tests that use them. They stay out of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("SETTLEMENT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared(path: str) -> Path:
    """The file below the shared data folder; skips the test, with a warning in the summary, when it isn't there."""
    file = ROOT / "data" / path
    if not file.exists():
        pytest.skip(
            f"SKIPPED FOR WANT OF DATA: {path} is not below $SETTLEMENT_SHARED/data; this test proved nothing here"
        )
    return file
