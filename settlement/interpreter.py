"""What this program asks of the Python that runs it, before anything of it is used."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from settlement.core.errors import Broken


def check_interpreter() -> None:
    """Raises Broken ``assertions_off`` under ``python -O``, ``packages_apart`` when a namesake would be imported."""
    if sys.flags.optimize:
        raise Broken("assertions_off", "this program checks itself with assert; run it without -O and PYTHONOPTIMIZE")
    places = {name: _place(name) for name in ("settlement", "adapters", "governance", "migrations")}
    if len(set(places.values())) > 1:
        where = ", ".join(f"{name} in {place or 'no place'}" for name, place in places.items())
        raise Broken("packages_apart", f"the project's packages should lie side by side, but Python finds {where}")


def _place(package: str) -> Path | None:
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve().parents[1]
