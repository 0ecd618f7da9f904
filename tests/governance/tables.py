"""Rate tables that follow one another, made from the first."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from settlement.core import canonical, times


def following(document: bytes, effective_from: datetime, **changes: Any) -> bytes:
    """The next version of a table: gpt-5 at twice its rates, and the same again by the name `twice`."""
    found = json.loads(document)
    model = found["models"]["gpt-5"]
    for tier in model["tiers"].values():
        for band in tier["bands"]:
            band["rates"] = {meter: 2 * rate for meter, rate in band["rates"].items()}
    found["models"], found["aliases"] = {"gpt-5": model, "twice": model}, {}
    found |= {
        "version": found["version"] + 1,
        "parent": canonical.digest(document),
        "effective_from": times.text(effective_from),
    }
    return canonical.encode(found | changes)
