"""`data-map/1`: what is kept about whom, in which tables, why, and how long. A policy names the one that was agreed on.

Every table is in exactly one entry; a test of the house holds the two together.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from settlement.core import canonical


@cache
def document() -> bytes:
    """The canonical bytes of this release's data map."""
    return canonical.encode(json.loads(files("settlement.core").joinpath("data_map.json").read_text("utf-8")))


@cache
def digest() -> str:
    """What the policy's section `retention` calls it by."""
    return canonical.digest(document())


@cache
def tables() -> tuple[str, ...]:
    """The tables of all entries, in order."""
    return tuple(table for entry in json.loads(document())["entries"] for table in entry["tables"])
