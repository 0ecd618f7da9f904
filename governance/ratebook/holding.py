"""Tenfold moves: in a public price history a tenth of all changes was by ten or more, mostly slips put right later.

A table that is built from prices keeps a model as it was when one of its rates would move so far, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from governance.ratebook.report import Held

TENFOLD = 10
Models = dict[str, Any]


def hold_back(models: Models, previous: bytes, accepted: Collection[str]) -> list[Held]:
    """Put back what the table `previous` said of models whose rates would move tenfold, unless they are `accepted`."""
    before: Models = json.loads(previous)["models"]
    held = []
    for name in sorted(models.keys() & before.keys()):
        moves = list(_moves(name, before[name], models[name]))
        if moves and name not in accepted:
            models[name] = before[name]
            held += moves
    return held


def _moves(model: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Held]:
    """Rates of the first bands that would become ten times as high or a tenth, or nothing at all."""
    for tier in sorted(old["tiers"].keys() & new["tiers"].keys()):
        was, will = (each["tiers"][tier]["bands"][0]["rates"] for each in (old, new))
        for meter in sorted(was.keys() & will.keys()):
            low, high = sorted((was[meter], will[meter]))
            if high >= TENFOLD * low and high != low:
                yield Held(model, tier, meter, was[meter], will[meter])
