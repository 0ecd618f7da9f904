"""A provider's signed offer as an export, a statement or a proof shows it, checked from its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from settlement.client.lines import Fields, Wrong, equal
from settlement.core import offers, rating, signatures
from settlement.core.demand import as_multipliers
from settlement.core.errors import Malformed, Unauthenticated
from settlement.core.multipliers import ONE
from settlement.core.offers import Offer, Offers
from settlement.core.rates import RateTable
from settlement.core.signatures import PublicKey
from settlement.core.standing import PLAIN, Day


def read_offer(line: Fields, key: PublicKey) -> Offer:
    """The offer of a line with ``body``, ``signature``, ``provider``, ``version``; `key` signed it. Raises Wrong."""
    body = line.base64("body")
    try:
        signatures.verify_detached(line.text("signature"), body, key, offers.SIGNATURE_TYPE)
    except Unauthenticated as error:
        raise Wrong("offer_signature", line.subject, error.detail) from None
    try:
        offer = offers.parse(body)
    except Malformed as error:
        raise Wrong("offer_malformed", line.subject, error.detail) from None
    equal(line.text("provider"), offer.provider, "offer_malformed", line.subject, "its provider")
    equal(line.whole("version"), offer.version, "offer_malformed", line.subject, "its version")
    return offer


def charge_of(
    table: RateTable, asked: Offers, record: Mapping[str, Any], at: datetime, day: Day = PLAIN, *, busy: int = ONE
) -> rating.Charge | rating.Refusal:
    """What a record costs by a table, its provider's ask, demand (ten-thousandths) and its consumer's standing."""
    model, tier = record["model"], record["tier"]
    asks = asked.multipliers(table.resolve(model) or model, tier, at)
    further = (*asks, *as_multipliers(busy), *day.multipliers(record["consumer"]))
    return rating.rate(table, model, tier, record["outcome"], record["meters"], at, further)
