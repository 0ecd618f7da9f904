"""Quotes: what a call is expected to cost, can cost at most, and reserves at first (docs/reference/holds.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from settlement.core.hold_rules import HoldRules
from settlement.core.holds import DEFAULT, Ask, Terms, wanted

BYTES_PER_TOKEN = 4
"""Input bytes that one token is expected to be; at most a token for every `FEWEST_BYTES`."""
FEWEST_BYTES = 2
EXPECTED_OUTPUT = 211
"""Output tokens when nobody says how many: the mean of a public trace of chat requests (ECONOMICS 7.5)."""
MOST_SLICES = 8
INPUT_METER = "input_tokens"


@dataclass(frozen=True, slots=True)
class Priced:
    """So much output in all and what is reserved or charged for it, in microCU; `grant` numbers slices from 1."""

    output_tokens: int
    amount: int
    grant: int = 1


@dataclass(frozen=True, slots=True)
class Quote:
    """See the reference page. `grants` and `ceiling` are None without a most output."""

    expected: Priced
    ceiling: Priced | None
    slices: tuple[Priced, ...]
    grants: int | None


def estimated(meters: Mapping[str, int], input_bytes: int | None, bytes_per_token: int) -> Mapping[str, int]:
    """The meters with input tokens in the place of a size in bytes."""
    if input_bytes is None:
        return meters
    return {**meters, INPUT_METER: -(-input_bytes // bytes_per_token)}


def quote(expected: Terms, dearest: Terms, ask: Ask, expected_output: int | None, rules: HoldRules = DEFAULT) -> Quote:
    """The quote by the terms that are expected and by the dearest ones, which holds and the ceiling go by."""
    most = ask.max_output_tokens if dearest.has_output else 0
    output = EXPECTED_OUTPUT if expected_output is None else expected_output
    output = output if most is None else min(output, most)
    grants = None if most is None else sum(1 for _ in _slices(dearest, ask, most, rules))
    return Quote(
        expected=Priced(output, expected.amount(output)),
        ceiling=None if most is None else Priced(most, dearest.amount(most)),
        slices=tuple(islice(_slices(dearest, ask, most, rules), MOST_SLICES)),
        grants=grants,
    )


def _slices(terms: Terms, ask: Ask, most: int | None, rules: HoldRules) -> Iterator[Priced]:
    """Every grant in turn, until the most output is reached; without a most there is no end."""
    granted, number = wanted(terms, ask, rules), 1
    yield Priced(granted, terms.amount(granted), number)
    while terms.has_output and (most is None or granted < most):
        granted += rules.slice_after(number)
        granted = granted if most is None else min(granted, most)
        number += 1
        yield Priced(granted, terms.amount(granted), number)
