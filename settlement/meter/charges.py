"""What a call costs, from the same rate table and by the same rule as the service: for headers and a stream's end.

The service's own charge counts; this is the provider's statement of it, which the consumer can recompute.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx2

from settlement.core import rates
from settlement.core.errors import Malformed
from settlement.core.rates import Model, RateTable
from settlement.core.rating import Refusal, rate
from settlement.core.units import PICO_PER_MICRO, cu_text, parse_decimal


class RateTables:
    """The service's rate tables, fetched once each: a published version never changes."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._tables: dict[str, RateTable] = {}

    async def version(self, version: str) -> RateTable | None:
        """A version's table; None when it can't be had now, which costs a call its explanation and nothing else."""
        found = self._tables.get(version)
        if found is None:
            try:
                response = await self._http.get(f"/v1/rate-tables/{version}")
                response.raise_for_status()
                found = rates.parse(response.content)
            except (httpx2.HTTPError, Malformed):
                return None
            self._tables[version] = found
        return found

    def known(self, model: str) -> Model | None:
        """The model as the newest table that was fetched has it."""
        for version in sorted(self._tables, key=int, reverse=True):
            name = self._tables[version].resolve(model)
            if name is not None:
                return self._tables[version].models[name]
        return None


def explained(
    table: RateTable, record: Mapping[str, Any], at: datetime, held: str | None = None
) -> dict[str, Any] | None:
    """The charge of a record, line by line; never above `held`, decimal CU. None when the table can't rate it."""
    charge = rate(table, record["model"], record["tier"], record["outcome"], record["meters"], at)
    if isinstance(charge, Refusal):
        return None
    micro = -(-charge.pico // PICO_PER_MICRO)
    limit = micro if held is None else parse_decimal(held, 6)
    return {
        "record": record["id"],
        "hold": record.get("hold"),
        "model": charge.model,
        "tier": charge.tier,
        "rates": str(charge.rates),
        "outcome": record["outcome"],
        "meters": dict(record["meters"]),
        "lines": [
            {"meter": line.meter, "units": line.units, "rate": line.rate, "pico": str(line.pico)}
            for line in charge.lines
        ],
        "pico": str(charge.pico),
        "amount": cu_text(min(micro, limit)),
        "flags": list(record.get("flags", ())),
    }
