"""Whether counts can be true, by what was seen of the answer: its bytes, chunks, time and the limit that was asked for.

Both sides can look: a provider's meter before it signs, a consumer's transport when the charge arrives. A finding
refuses nothing; it becomes a flag, so that whoever pays sees it, and what it rests on can be argued about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from settlement.meter.estimates import INTERFACES

BOUNDS: Mapping[str, int] = INTERFACES["bounds"]
SLACK = 16
"""Tokens of difference that are never remarkable: ends of turns, calls' wrappings, a last piece that was cut."""
INFLATION = 4
"""How many times our own estimate a count may be before it is remarkable."""

FLAGS = {
    "output_above_bytes": "more visible output tokens than the text has bytes",
    "output_above_estimate": "more than four times the tokens that the text's bytes make likely",
    "output_below_bytes": "fewer tokens than the text's bytes allow, at the model's `max_bytes_per_token`",
    "output_above_limit": "more output tokens than the request allowed",
    "output_above_speed": "more output tokens per second than the model's `max_output_tokens_per_second`",
    "reasoning_above_bound": "a larger part of the output is reasoning than the model's `max_reasoning_percent`",
    "output_without_text": "visible output tokens, and not one byte of text",
}


@dataclass(frozen=True, slots=True)
class Observed:
    """What one side saw of an answer.

    `text_bytes` of visible and shown reasoning text, `pieces` that brought any, `estimate` of their tokens by our own
    count, `milliseconds` from the request's sending to the answer's end, `limit` of output tokens that was asked for.
    """

    text_bytes: int
    pieces: int
    estimate: int
    milliseconds: int
    limit: int | None = None
    has_text: bool = True
    """Whether the answer is text at all: audio, images and vectors have no bytes to compare with."""


def implausible(meters: Mapping[str, int], observed: Observed, bounds: Mapping[str, int] = BOUNDS) -> tuple[str, ...]:
    """The flags of what does not fit, in the order of `FLAGS`; empty when all is plausible."""
    output = meters.get("output_tokens", 0)
    media = sum(meters.get(f"output_{kind}_tokens", 0) for kind in ("audio", "image", "video"))
    visible = output - meters.get("output_reasoning_tokens", 0) - media
    per_second = bounds.get("max_output_tokens_per_second", BOUNDS["max_output_tokens_per_second"])
    per_token = bounds.get("max_bytes_per_token", BOUNDS["max_bytes_per_token"])
    percent = bounds.get("max_reasoning_percent", BOUNDS["max_reasoning_percent"])
    found = {
        "output_above_limit": observed.limit is not None and output > observed.limit + SLACK,
        "output_above_speed": output * 1000 > per_second * max(observed.milliseconds, 1) + SLACK * 1000,
        "reasoning_above_bound": meters.get("output_reasoning_tokens", 0) * 100 > output * percent,
    }
    if observed.has_text and observed.text_bytes:
        found |= {
            "output_above_bytes": visible > observed.text_bytes + SLACK,
            "output_above_estimate": visible > INFLATION * observed.estimate + SLACK,
            "output_below_bytes": observed.text_bytes > per_token * (output + SLACK),
        }
    elif observed.has_text:
        found["output_without_text"] = visible > SLACK
    return tuple(flag for flag in FLAGS if found.get(flag))
