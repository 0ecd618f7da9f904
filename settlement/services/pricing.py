"""What the rate tables make of a request that has not run yet: for holds and quotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import numpy as np

from settlement.core import hold_rules, holds
from settlement.core.errors import Malformed, Problem
from settlement.core.hold_rules import HoldRules
from settlement.core.holds import Ask, Terms
from settlement.core.ids import micros
from settlement.core.multipliers import Multiplier
from settlement.core.rates import RateTable
from settlement.core.rating import Refusal
from settlement.core.tiers import CONTEXT_METER
from settlement.services.ratebook import KnownRates

_DETAILS = {
    "unknown_model": "the rate table in force has no such model or alias",
    "unknown_tier": "the rate table in force has no such tier for this model",
    "unknown_meter": "the rate table in force has no such meter, or it is granted in slices",
    "unpriced_meter": "the model has no rate for this meter",
    "subset_above_whole": "the parts of this meter are more than the whole",
    "charge_too_large": "the charge is more than the books can hold",
}
_POINTERS = {"unknown_model": "/model", "unknown_tier": "/tier"}


def table_at(book: KnownRates, now: datetime) -> RateTable:
    """The rate table in force. Raises Malformed ``rates_not_in_force``."""
    index = int(np.searchsorted(book.rates.starts, micros(now), side="right")) - 1
    if index < 0:
        refuse("/model", "rates_not_in_force", "no rate table is in force now")
    return book.rates.tables[index]


def terms(
    book: KnownRates,
    version: int,
    model: str,
    tier: str,
    meters: Mapping[str, int],
    further: Sequence[Multiplier],
    *,
    at: datetime | None = None,
) -> Terms:
    """The terms of a request by a version and `further` multipliers: at the dearest hour and for the dearest output, or
    at the hour of a time and for ordinary output.

    Raises Malformed ``request_too_large``, and what the table does not price.
    """
    if sum(meters.values()) > holds.MOST_TOKENS:
        refuse("/meters", "request_too_large", f"one request has at most {holds.MOST_TOKENS} units")
    compiled = book.rates.compiled(book.rates.places[version], model, tier)
    if isinstance(compiled, Refusal):
        found: Terms | Refusal = compiled
    else:
        found = holds.terms(compiled, meters, holds.dearest(compiled, further, at), plain=at is not None)
    if isinstance(found, Refusal):
        about = f" ({found.meter})" if found.meter else ""
        refuse(_POINTERS.get(found.code, "/meters"), found.code, _DETAILS[found.code] + about)
    return found


def within(rules: HoldRules, ask: Ask) -> Ask:
    """The ask, if the policy's rules allow it. Raises Malformed ``hold_out_of_bounds``."""
    wrong = rules.outside(
        output_tokens=ask.output_tokens,
        max_output_tokens=ask.max_output_tokens,
        requests=ask.requests,
        expires_in=ask.expires_in,
    )
    if wrong is not None:
        refuse(wrong[0], "hold_out_of_bounds", wrong[1])
    return ask


def most_output(table: RateTable, model: str, meters: Mapping[str, int], asked: int | None) -> int | None:
    """The most output of a request to a model of the table. Raises Malformed ``context_exceeded`` for longer input than
    the model takes, where the table says how much that is."""
    bounds = table.models[model].bounds
    context = hold_rules.too_long(bounds, meters.get(CONTEXT_METER, 0))
    if context is not None:
        refuse("/meters", "context_exceeded", f"{model} takes at most {context} {CONTEXT_METER}")
    return hold_rules.most_output(bounds, asked)


def refuse(pointer: str, code: str, detail: str) -> NoReturn:
    """Raise Malformed about one member of a body."""
    raise Malformed(code, detail, (Problem(pointer, code, detail),))
