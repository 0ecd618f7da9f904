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


def gone(previous: bytes | None, names: Collection[str]) -> list[str]:
    """The models and aliases of the table `previous` that are not among `names`."""
    before = {"models": {}, "aliases": {}} if previous is None else json.loads(previous)
    return sorted({*before["models"], *before["aliases"]} - set(names))


def _moves(model: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Held]:
    """Rates that would become ten times as high or a tenth, or nothing at all, just above any threshold of either."""
    for tier in sorted(old["tiers"].keys() & new["tiers"].keys()):
        bands = [each["tiers"][tier]["bands"] for each in (old, new)]
        seen: set[str] = set()
        for above in sorted({band["above_input_tokens"] for each in bands for band in each}):
            was, will = (_rates(each, above) for each in bands)
            for meter in sorted(was.keys() & will.keys() - seen):
                low, high = sorted((was[meter], will[meter]))
                if high >= TENFOLD * low and high != low:
                    seen.add(meter)
                    yield Held(model, tier, meter, was[meter], will[meter])


def _rates(bands: list[dict[str, Any]], above: int) -> dict[str, int]:
    """What the last band says that begins by a threshold."""
    found: dict[str, int] = [band for band in bands if band["above_input_tokens"] <= above][-1]["rates"]
    return found
