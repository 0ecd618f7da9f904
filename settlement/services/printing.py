"""A statement as a page that is fit to print: what was used, what it cost, what moved, and where to check it.

Records are summed by provider, model, tier and rate table while they are read; the single ones are in the CSV.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from settlement.core.units import cu_text, decimal_text
from settlement.services.statements import Opened


@dataclass(slots=True)
class Group:
    """The records of one provider, model, tier and rate table; `pico` is their exact charge."""

    records: int = 0
    pico: int = 0


async def as_html(found: Opened) -> AsyncIterator[bytes]:
    """The page, in pieces, after all records were read. It needs nothing else: no script, no style sheet, no font."""
    groups: dict[tuple[str, str, str, int], Group] = {}
    async for entry in found.records:
        record = entry["record"]
        group = groups.setdefault((entry["provider"], record["model"], record["tier"], entry["rates"]), Group())
        group.records += 1
        group.pico += int(entry["charge_pico"])
    lines = [(*key, group.records, decimal_text(group.pico, 12)) for key, group in sorted(groups.items())]
    total = decimal_text(sum(group.pico for group in groups.values()), 12)
    for piece in _template().generate(
        statement=found.head, groups=lines, total=total, usd_per_cu=str(found.usd_per_cu)
    ):
        yield piece.encode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("settlement.services", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cu"] = _cu
    environment.filters["pico"] = _pico
    return environment.get_template("statement.html")


def _cu(micro: Any) -> str:
    return cu_text(int(micro))


def _pico(pico: Any) -> str:
    return decimal_text(int(pico), 12)
