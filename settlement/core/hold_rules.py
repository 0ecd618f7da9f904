"""The rules of holds as a section of the policy: how large slices are, how long holds last, what a lease is for.

The outer limits here are those of the documents' form; a policy narrows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

SMALLEST_SLICE = 10
LARGEST_SLICE = 4_096
MOST_REQUESTS = 1_000
SHORTEST, LONGEST = timedelta(seconds=10), timedelta(hours=1)
LONGEST_LIFE = timedelta(days=1)
"""How long a hold can be kept alive: no longer is money locked, or a price kept, without the consumer's key."""
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class HoldRules:
    """Slices are output tokens."""

    first_slice: int = 256
    """An adaptive slice at first (ECONOMICS 7.5): 1.28 times the charge is locked, in 1.37 grants."""
    smallest_slice: int = SMALLEST_SLICE
    largest_slice: int = LARGEST_SLICE
    steady_grants: int = 4
    """So many adaptive slices are alike; then they double, so that a long answer does not ask hundreds of times."""
    most_requests: int = MOST_REQUESTS
    """The most calls that one lease is for."""
    shortest: timedelta = SHORTEST
    """The least time that a hold is asked for, from its placing and from each extension."""
    usual: timedelta = timedelta(minutes=5)
    """When the request says nothing."""
    longest: timedelta = LONGEST

    def __post_init__(self) -> None:
        if not SMALLEST_SLICE <= self.smallest_slice <= self.first_slice <= self.largest_slice <= LARGEST_SLICE:
            raise ValueError("10 <= smallest_slice <= first_slice <= largest_slice <= 4096 does not hold")
        if not SHORTEST <= self.shortest <= self.usual <= self.longest <= LONGEST:
            raise ValueError("10 s <= shortest <= usual <= longest <= 1 h does not hold")
        if not (0 <= self.steady_grants <= 1_000 and 1 <= self.most_requests <= MOST_REQUESTS):
            raise ValueError("steady_grants is 0 to 1000, most_requests 1 to 1000")

    def slice_after(self, grants: int) -> int:
        """The adaptive slice that follows so many grants."""
        doubled = max(0, grants - self.steady_grants + 1)
        return min(self.first_slice << min(doubled, 12), self.largest_slice)

    def outside(
        self, *, output_tokens: int | None, max_output_tokens: int | None, requests: int, expires_in: int | None
    ) -> tuple[str, str] | None:
        """The member of a request that these rules do not allow, as (JSON pointer, what they allow); None if all do."""
        least = self.smallest_slice if max_output_tokens is None else min(self.smallest_slice, max_output_tokens)
        if output_tokens and not least <= output_tokens <= self.largest_slice:
            return "/output_tokens", f"a slice is {self.smallest_slice} to {self.largest_slice} output tokens"
        if requests > self.most_requests:
            return "/requests", f"a lease is for at most {self.most_requests} calls"
        shortest, longest = self.shortest // _SECOND, self.longest // _SECOND
        if expires_in is not None and not shortest <= expires_in <= longest:
            return "/expires_in", f"a hold lasts {shortest} to {longest} seconds"
        return None


def most_output(bounds: Mapping[str, int], asked: int | None) -> int | None:
    """The most output that a request can have: what it asks for, and never more than the model gives. None: unknown."""
    known = [each for each in (asked, bounds.get("max_output_tokens")) if each is not None]
    return min(known, default=None)


def too_long(bounds: Mapping[str, int], input_tokens: int) -> int | None:
    """The model's context length, when a request's input is longer than it."""
    context = bounds.get("context_tokens")
    return context if context is not None and input_tokens > context else None


def dearest_kind(subsets: Sequence[tuple[int, Sequence[int]]], coefficients: Sequence[int], whole: int) -> int:
    """What a unit of a meter costs at most, whatever part of it it is: parts cost their coefficient more than their
    whole, and wholes come before their parts."""
    costs = {whole: coefficients[whole]}
    for above, parts in subsets:
        if above in costs:
            costs |= {part: costs[above] + coefficients[part] for part in parts}
    return max(costs.values())
