"""What it takes to put a document in force: how many signatures, how much notice, how long a time-lock.

The guard rails of ECONOMICS 5.5, by the `governance` section of the policy: a rate table that only adds has a short
notice; one that changes what somebody pays already has the long one; and one that moves any rate by more than `step`
needs the higher threshold. What a change means that this module does not know is taken as such a large one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta

from governance import proposals
from governance.council import Threshold
from governance.proposals import Proposal
from settlement.core.governing import GovernanceRules
from settlement.core.policy import Policy
from settlement.core.rates import Model, RateTable
from settlement.core.tiers import PER_REQUEST, Band, Tier

NOTHING = timedelta(0)

_COMPARED: dict[type, set[str]] = {
    RateTable: {"version", "digest", "parent", "effective_from", "meters", "models", "aliases"},
    Model: {"name", "tiers", "tokens_per_kilobyte", "bounds"},
    Tier: {"bands"},
}
"""The fields that `changes` looks into; if another one differs, the change is a large one."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a proposal needs."""

    threshold: Threshold
    notice: timedelta
    time_lock: timedelta


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a rate table changes for those who pay already: `before` and `after` are rates or None."""

    place: str
    before: int | None
    after: int | None

    def is_beyond(self, rules: GovernanceRules) -> bool:
        """Whether it moves further than one step. What appears from zero or disappears always does."""
        if self.before is None or self.after is None:
            return True
        return abs(self.after - self.before) > rules.step * self.before


def for_rates(proposal: Proposal, before: RateTable, after: RateTable, rules: GovernanceRules) -> Demand:
    """What the next rate table needs."""
    found = list(changes(before, after))
    notice = rules.notice if found else rules.notice_addition
    if proposal.correction:
        notice = rules.notice_correction
    beyond = any(change.is_beyond(rules) for change in found)
    return Demand("higher" if beyond else "ordinary", notice, rules.time_lock)


def for_policy(before: Policy, after: Policy) -> Demand:
    """What the next policy needs: the higher threshold when it changes the rules of governing themselves."""
    rules = before.governance
    return Demand("ordinary" if after.governance == rules else "higher", rules.notice, rules.time_lock)


def for_council(rules: GovernanceRules) -> Demand:
    """What another council needs, from the old one and from the new one."""
    return Demand("ordinary", rules.notice_council, rules.time_lock)


def for_pause(found: proposals.Pause, *, rested: bool) -> Demand:
    """What a pause needs: few signatures to stop, as many as any change to go on or to stop again without a rest."""
    return Demand("pause" if found.stop and rested else "ordinary", NOTHING, NOTHING)


AT_ONCE = Demand("ordinary", NOTHING, NOTHING)
"""What the status of a participant, or a ruling, needs."""


def changes(before: RateTable, after: RateTable) -> Iterator[Change]:
    """What `after` changes for requests that `before` already rates; additions are none."""
    if _differs(before, after):
        yield Change("the table", None, None)
    for meter in before.meters.values():
        kept = after.meters.get(meter.name)
        if kept is None or kept != meter:
            yield Change(f"meter {meter.name}", None, None)
    for name in [*before.models, *before.aliases]:
        target = after.resolve(name)
        old = before.models[before.aliases.get(name, name)]
        if target is None:
            yield Change(name, None, None)
        elif target != old.name or name == old.name:
            yield from _model_changes(name, before, old, after, after.models[target])


def _model_changes(name: str, before: RateTable, old: Model, after: RateTable, new: Model) -> Iterator[Change]:
    if _differs(old, new):
        yield Change(name, None, None)
    for tier, was in old.tiers.items():
        will = new.tiers.get(tier)
        if will is None:
            yield Change(f"{name} {tier}", None, None)
        else:
            yield from _tier_changes(f"{name} {tier}", before, was, after, will)


def _tier_changes(name: str, before: RateTable, old: Tier, after: RateTable, new: Tier) -> Iterator[Change]:
    if _differs(old, new):
        yield Change(name, None, None)
    meters = (*before.meters, *(() if PER_REQUEST in before.meters else (PER_REQUEST,)))
    for above in sorted({band.above_input_tokens for band in (*old.bands, *new.bands)}):
        rates, others = _selected(old, above), _selected(new, above)
        for meter in meters:
            was, will = _rate(before, rates, meter), _rate(after, others, meter)
            if was is not None and was != will:
                yield Change(f"{name} above {above} {meter}", was, will)


def _selected(tier: Tier, above: int) -> Mapping[str, int]:
    """The rates of requests whose input is just above so many tokens; with `excess`, of the tokens above."""
    band: Band = next(band for band in reversed(tier.bands) if band.above_input_tokens <= above)
    return {**tier.bands[0].rates, **band.rates} if tier.excess else band.rates


def _rate(table: RateTable, rates: Mapping[str, int], meter: str) -> int | None:
    """What a unit of the meter costs: its own rate or that of the nearest meter that contains it."""
    at: str | None = meter
    while at is not None:
        if at in rates:
            return rates[at]
        found = table.meters.get(at)
        at = None if found is None else found.parent
    return 0 if meter == PER_REQUEST else None


def _differs(one: RateTable | Model | Tier, other: RateTable | Model | Tier) -> bool:
    names = {each.name for each in fields(one)} - _COMPARED[type(one)]
    return any(getattr(one, name) != getattr(other, name) for name in names)
