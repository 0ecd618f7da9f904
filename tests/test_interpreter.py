"""A Python that would run something else than what was tested is refused before anything happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from settlement.interpreter import check_interpreter


def test_assertions_must_be_on() -> None:
    check_interpreter()
    code = "from settlement.interpreter import check_interpreter as check\ncheck()"
    ended = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "assertions_off" in ended.stderr


def test_a_namesake_of_one_of_the_packages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "__init__.py").write_text("")
    code = "from settlement.interpreter import check_interpreter as check\ncheck()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert ended.returncode == 1
    assert "packages_apart" in ended.stderr
    assert str(tmp_path) in ended.stderr
