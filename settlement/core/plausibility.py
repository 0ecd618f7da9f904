"""What the service itself notices about a record's counts, by its hold, its times and its model's bounds.

The service sees no bytes. What it knows is what was granted and asked for, and the longest that the answer can have
taken: from the hold's making to the report's arrival. A finding refuses nothing and changes no charge (decision 0022);
it is shown to both sides beside the flags that the provider signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SLACK = 16
"""Tokens of difference that are never remarkable, as the meter has it."""
SPEED = 10_000
"""Output tokens per second that no model reaches, for models whose bound the rate table does not have."""

NOTICES = {
    "output_above_limit": "more output tokens than the request allowed or the model gives",
    "output_above_grant": "more output tokens than the hold granted",
    "output_above_speed": "more output tokens per second than the model's `max_output_tokens_per_second`",
    "reasoning_above_bound": "a larger part of the output is reasoning than the model's `max_reasoning_percent`",
}


@dataclass(frozen=True, slots=True)
class Known:
    """Of a record's hold: the output allowed and granted, and the milliseconds from its making to the report."""

    allowed: int | None
    granted: int
    milliseconds: int


def noticed(meters: Mapping[str, int], bounds: Mapping[str, int], hold: Known | None) -> list[str]:
    """The names of what can't be as it was reported, in the order of `NOTICES`. `bounds` are the model's."""
    output = meters.get("output_tokens", 0)
    allowed = None if hold is None else hold.allowed
    limits = [each for each in (allowed, bounds.get("max_output_tokens")) if each is not None]
    speed = bounds.get("max_output_tokens_per_second", SPEED)
    percent = bounds.get("max_reasoning_percent", 100)
    found = {
        "output_above_limit": any(output > limit + SLACK for limit in limits),
        "output_above_grant": hold is not None and output > hold.granted + SLACK,
        "output_above_speed": hold is not None and output * 1000 > speed * max(hold.milliseconds, 1) + SLACK * 1000,
        "reasoning_above_bound": meters.get("output_reasoning_tokens", 0) * 100 > output * percent,
    }
    return [name for name in NOTICES if found[name]]
