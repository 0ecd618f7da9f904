"""One charged usage record, explained: every factor in words and numbers, and the same charge that is on file."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from settlement.core import explaining, offers, plausibility, rates, rating, times
from settlement.core.canonical import digest
from settlement.core.demand import as_multipliers
from settlement.core.errors import Broken, NotFound
from settlement.core.plausibility import Known
from settlement.core.standing import day_of
from settlement.services import demand, evidence, standing
from settlement.services.context import Context
from settlement.storage import holds, pages
from settlement.storage import offers as offer_storage
from settlement.storage.holds import StoredHold
from settlement.storage.parties import Party

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


async def explain(context: Context, reader: Party, provider: str, record_id: str) -> dict[str, Any]:
    """The charge of a record, to its consumer or its provider. Raises NotFound ``record_unknown`` to anybody else.

    Raises Broken ``charge_mismatch`` when rates and offer don't make the charge on file: then the books are wrong, and
    nothing is explained away.
    """
    unknown = NotFound("record_unknown", f"you have no charged usage record {record_id} of {provider}")
    if not _UUID.fullmatch(record_id):
        raise unknown
    async with context.database.read() as connection:
        line = await evidence.record(context, connection, provider, UUID(record_id))
        if line is None or reader.id not in (line.consumer, provider):
            raise unknown
        record = line.record
        at = times.parse(record["at"])
        published = await pages.rate_table_version(connection, line.rates)
        stored = [each.offer for each in await offer_storage.of_providers(connection, [provider])]
        held = await holds.find(connection, record["hold"]) if "hold" in record else None
        day = await standing.of_day(connection, day_of(at))
        step = await demand.of_hold(connection, record.get("hold"))
    table = rates.parse(published.document)
    asked = offers.Offers([offers.parse(each.body) for each in stored])
    model, tier = table.resolve(record["model"]) or record["model"], record["tier"]
    charge = rating.rate(
        table,
        model,
        tier,
        record["outcome"],
        record["meters"],
        at,
        (
            *asked.multipliers(model, tier, at),
            *as_multipliers(demand.multiplier(step, provider)),
            *day.multipliers(line.consumer),
        ),
    )
    capped = "hold" in record and not isinstance(charge, rating.Refusal) and line.charge_pico < charge.pico
    if isinstance(charge, rating.Refusal) or (charge.pico != line.charge_pico and not capped):
        raise Broken("charge_mismatch", f"record {record_id} of {provider} is on file with {line.charge_pico} picoCU")
    offer = asked.at(at)
    return {
        "provider": provider,
        "record": record,
        "report": f"sha256:{line.digest.hex()}",
        "line": line.line,
        "window": f"win_{line.window_no}",
        "rates": {"version": table.version, "digest": digest(published.document)},
        "offer": None if offer is None else {"version": offer.version, "digest": offer.digest},
        "demand": None if step is None else {"number": step.number, "digest": f"sha256:{step.digest.hex()}"},
        "volume": str(day.volumes.get(line.consumer, 0)) if day.rules.tiers else None,
        **explaining.explained(charge, at, line.charge_pico),
        "noticed": plausibility.noticed(record["meters"], table.models[model].bounds, _known(held, line.received_at)),
    }


def _known(held: StoredHold | None, received_at: datetime) -> Known | None:
    """What the hold says of one of its calls: a lease's output is that of each."""
    if held is None:
        return None
    milliseconds = (received_at - held.hold.created_at) // timedelta(milliseconds=1)
    return Known(held.hold.max_output_tokens, held.hold.output_tokens, milliseconds)
