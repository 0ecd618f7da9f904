"""Holds: money reserved in slices before usage, and what a usage record takes of it (docs/reference/holds.md).

Pure: a `Hold` is a value, every step gives the next one. What may be reserved comes in as `room`, in microCU, so that a
balance and any number of budgets are one and the same to the rules here. The values are structs and not dataclasses,
because every call makes some of each, at a tenth of the cost (decision 14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from settlement.core import multipliers
from settlement.core.hold_rules import LONGEST_LIFE, HoldRules, dearest_kind
from settlement.core.multipliers import Multiplier
from settlement.core.rating import CompiledModel, Refusal
from settlement.core.tiers import CONTEXT_METER, Tier
from settlement.core.units import MAX_AMOUNT, PICO_PER_MICRO

DEFAULT = HoldRules()
CLOCK_SKEW = timedelta(minutes=5)
"""How far a provider's clock may be from ours."""
MOST_TOKENS = 10**7
"""The most units of all meters together, and the most output, that one request may ask for."""
OUTPUT_METER = "output_tokens"

State = Literal["open", "captured", "released", "expired"]
FinalAction = Literal["stop", "redirect", "absorb"]


class Terms(Struct, frozen=True):
    """What one request costs before its output is known: picoCU at par are ``base + per_token x output tokens``, at
    least `minimum`; then comes one multiplier, in ten-thousandths."""

    model: str
    base: int
    per_token: int
    has_output: bool
    minimum: int = 0
    multiplier: int = multipliers.ONE

    def amount(self, output_tokens: int, requests: int = 1) -> int:
        """microCU to reserve for so much output: rounded up, and never nothing."""
        par = max(self.base + self.per_token * output_tokens, self.minimum)
        return max(1, requests * -(-multipliers.apply(par, self.multiplier) // PICO_PER_MICRO))

    def most_output(self, micro: int, requests: int = 1) -> int | None:
        """The most output tokens for which `amount` is at most `micro`; below zero when the base is not covered, None
        when output costs nothing and the base is covered."""
        if micro < 1 or self.amount(0, requests) > micro:
            return -1
        if not self.per_token or not self.multiplier:
            return None
        pico = micro // requests * PICO_PER_MICRO
        par = ((pico + 1) * multipliers.ONE - 1) // self.multiplier  # the most that the multiplier makes `pico` of
        return (par - self.base) // self.per_token


class Ask(Struct, frozen=True):
    """What a provider wants reserved: see the request document. `absorb` is microCU."""

    max_output_tokens: int | None = None
    output_tokens: int | None = None
    requests: int = 1
    expires_in: int | None = None
    final_action: FinalAction = "stop"
    absorb: int = 0


class Grant(Struct, frozen=True):
    """What is granted: output tokens in all, what is reserved for them in all, and whether it is the last."""

    output_tokens: int
    slice: int
    amount: int
    at_end: bool


class Hold(Struct, frozen=True):
    """A hold. `captured + released` is what was taken and given back, all of `amount` once it has ended.

    `late` was taken from the balance after it had expired. A hold with several `requests` is a lease. `absorb` are
    output tokens that the provider goes on for unpaid when the balance ends.
    """

    requests: int
    amount: int
    output_tokens: int
    slice: int
    at_end: bool
    expires_in: int
    created_at: datetime
    expires_at: datetime
    max_output_tokens: int | None = None
    final_action: FinalAction = "stop"
    absorb: int = 0
    grants: int = 1
    uses: int = 0
    captured: int = 0
    released: int = 0
    late: int = 0
    state: State = "open"
    ended_at: datetime | None = None

    @property
    def reserved(self) -> int:
        """What it keeps from being spent otherwise."""
        return self.amount - self.captured - self.released

    @property
    def left(self) -> int:
        """The most that the next record can be charged."""
        return self.amount - self.captured - self.late

    @property
    def report_at(self) -> int:
        """Output tokens used at which the next slice should be asked for: 80 % of the newest one."""
        return self.output_tokens - self.slice // 5


class Capture(Struct, frozen=True):
    """What one record does to its hold: its charge, and the microCU that count as taken, `freed` of what was held."""

    hold: Hold
    pico: int
    taken: int
    freed: int
    late: bool


def dearest(compiled: CompiledModel, further: Sequence[Multiplier] = (), at: datetime | None = None) -> int:
    """One multiplier for all, rounded up: that of a time of day and then `further` ones. Without a time it is the
    highest of any, for a hold must do whenever its record is dated."""
    value = multipliers.ONE
    if compiled.hours and at is None:
        value = max(value, *(hours.multiplier for hours in compiled.hours))
    elif compiled.hours and at is not None:
        value = Tier((), hours=compiled.hours).multiplier_at(at)
    for each in further:
        value = -(-value * each.value // multipliers.ONE)
    return value


def terms(
    compiled: CompiledModel, meters: Mapping[str, int], multiplier: int = multipliers.ONE, *, plain: bool = False
) -> Terms | Refusal:
    """The terms of a request whose `meters` (all but output) are known, or the reason why it cannot be charged.

    Each output token is what the dearest kind of output costs, such as speech; with `plain`, what ordinary output does.
    """
    units: dict[int, int] = {}
    for meter, count in meters.items():
        place = compiled.places.get(meter)
        if place is None or meter == OUTPUT_METER:
            return Refusal("unknown_meter", meter)
        units[place] = count
    parts: dict[int, int] = {}
    for place, count in units.items():
        if count and place in compiled.unpriced:
            return Refusal("unpriced_meter", compiled.meters[place])
        if place in compiled.whole_of:
            whole = compiled.whole_of[place]
            parts[whole] = parts.get(whole, 0) + count
    for whole, count in parts.items():
        if count > units.get(whole, 0):
            return Refusal("subset_above_whole", compiled.meters[whole])
    context = meters.get(CONTEXT_METER, 0) if compiled.context_meter is not None else 0
    band = compiled.bands[0]
    for further in compiled.bands[1:]:
        if context > further.above_input_tokens:
            band = further
    base = band.per_request + sum([count * band.coefficients[place] for place, count in units.items()])
    base += sum([max(context - above, 0) * more for above, more in compiled.excess])
    if base > MAX_AMOUNT:
        return Refusal("charge_too_large")
    output = compiled.places.get(OUTPUT_METER)
    if output is None or output in compiled.unpriced:
        return Terms(compiled.model, base, 0, has_output=False, minimum=compiled.minimum, multiplier=multiplier)
    per_token = band.coefficients[output] if plain else dearest_kind(compiled.subsets, band.coefficients, output)
    return Terms(compiled.model, base, per_token, has_output=True, minimum=compiled.minimum, multiplier=multiplier)


def wanted(terms: Terms, ask: Ask, rules: HoldRules = DEFAULT) -> int:
    """The first slice, in output tokens, if money is no question."""
    if not terms.has_output:
        return 0
    size = rules.first_slice if ask.output_tokens is None else ask.output_tokens
    return size if ask.max_output_tokens is None else min(size, ask.max_output_tokens)


def first_grant(terms: Terms, ask: Ask, room: int, rules: HoldRules = DEFAULT) -> Grant | None:
    """The first slice, or None when `room` does not cover it. An adaptive one shrinks to what is covered."""
    size = wanted(terms, ask, rules)
    amount = terms.amount(size, ask.requests)
    if amount <= room:
        return Grant(size, size, amount, at_end=False)
    covered = terms.most_output(room, ask.requests)
    if ask.output_tokens is not None or covered is None or covered < min(size, rules.smallest_slice):
        return None
    return Grant(covered, covered, terms.amount(covered, ask.requests), at_end=True)


def opened(ask: Ask, terms: Terms, grant: Grant, now: datetime, rules: HoldRules = DEFAULT) -> Hold:
    """A new hold."""
    expires_in = rules.usual // timedelta(seconds=1) if ask.expires_in is None else ask.expires_in
    return Hold(
        requests=ask.requests,
        amount=grant.amount,
        output_tokens=grant.output_tokens,
        slice=grant.slice,
        at_end=grant.at_end,
        expires_in=expires_in,
        created_at=now,
        expires_at=now + timedelta(seconds=expires_in),
        max_output_tokens=ask.max_output_tokens,
        final_action=ask.final_action,
        absorb=absorbed_output(terms, ask.absorb),
    )


def next_grant(hold: Hold, terms: Terms, size: int | None, room: int, rules: HoldRules = DEFAULT) -> Grant:
    """The next slice of `size` output tokens (None: adaptive), no larger than the rules' largest, as far as `room`,
    beyond the hold, covers it."""
    size = rules.slice_after(hold.grants) if size is None else min(size, rules.largest_slice)
    target = hold.output_tokens + size if terms.has_output else 0
    if hold.max_output_tokens is not None:
        target = max(hold.output_tokens, min(target, hold.max_output_tokens))
    amount = max(hold.amount, terms.amount(target))
    if amount - hold.amount <= room:
        return Grant(target, target - hold.output_tokens, amount, at_end=False)
    covered = terms.most_output(hold.amount + room)
    if covered is None or covered < hold.output_tokens:
        return Grant(hold.output_tokens, 0, hold.amount, at_end=True)
    amount = max(hold.amount, terms.amount(covered))
    return Grant(covered, covered - hold.output_tokens, amount, at_end=True)


def extended(hold: Hold, grant: Grant, now: datetime) -> Hold:
    """The hold with one more grant, and a new expiry."""
    return replace(
        renewed(hold, now),
        grants=hold.grants + 1,
        output_tokens=grant.output_tokens,
        slice=grant.slice,
        amount=grant.amount,
        at_end=grant.at_end,
    )


def renewed(hold: Hold, now: datetime) -> Hold:
    """The hold with a new expiry, never an earlier one, and none beyond the longest life of a hold."""
    until = min(now + timedelta(seconds=hold.expires_in), hold.created_at + LONGEST_LIFE)
    return replace(hold, expires_at=max(hold.expires_at, until))


def given_back(hold: Hold, state: Literal["released", "expired"], now: datetime) -> Hold:
    """The hold's end without a record: what was not captured is given back."""
    return replace(hold, state=state, released=hold.amount - hold.captured, ended_at=now)


def refusal(hold: Hold, at: datetime) -> tuple[str, str] | None:
    """Why a record of a time cannot capture the hold, as (code, detail); None when it can.

    A hold that expired can be captured late, but not a lease: what its records took in time is counted there.
    """
    if hold.uses >= hold.requests or hold.state in ("captured", "released"):
        return "hold_ended", "it was released, or as many records as it is for have named it"
    if hold.state == "expired" and hold.requests > 1:
        return "hold_ended", "the lease expired"
    if not hold.created_at - CLOCK_SKEW <= at <= hold.expires_at + CLOCK_SKEW:
        return "hold_mismatch", "`at` is not within the time of the hold"
    return None


def capture(hold: Hold, exact_pico: int, now: datetime) -> Capture:
    """What a record with that exact charge takes. Never more than the hold; its last record ends it."""
    pico = min(exact_pico, hold.left * PICO_PER_MICRO)
    taken = -(-pico // PICO_PER_MICRO)
    if hold.state == "expired":
        return Capture(replace(hold, uses=hold.uses + 1, late=hold.late + taken), pico, taken, 0, late=True)
    after = replace(hold, uses=hold.uses + 1, captured=hold.captured + taken)
    if after.uses == after.requests:
        after = replace(after, state="captured", released=after.amount - after.captured, ended_at=now)
    return Capture(after, pico, taken, hold.reserved - after.reserved, late=False)


def absorbed_output(terms: Terms, limit: int) -> int:
    """How many output tokens the provider's own `limit` in microCU is worth."""
    dear = terms.per_token * terms.multiplier
    return min(limit * PICO_PER_MICRO * multipliers.ONE // dear, MOST_TOKENS) if dear else 0
