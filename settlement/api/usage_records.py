"""One usage record, and why it costs what it costs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from settlement.api.dependencies import ContextDep, Reader, StrictRoute
from settlement.api.shapes import EXAMPLE_CONSUMER, EXAMPLE_DIGEST, EXAMPLE_PROVIDER, EXAMPLE_TIME, Example
from settlement.services import charges

router = APIRouter(prefix="/v1/usage-records", tags=["usage"], route_class=StrictRoute)

_EXAMPLE: Example = {
    "provider": EXAMPLE_PROVIDER,
    "record": {
        "id": "019aaa00-0000-7000-8000-000000000000",
        "at": EXAMPLE_TIME,
        "consumer": EXAMPLE_CONSUMER,
        "model": "gpt-5",
        "operation": "chat",
        "tier": "standard",
        "outcome": "completed",
        "meters": {"input_tokens": 1155, "output_tokens": 211},
    },
    "report": EXAMPLE_DIGEST,
    "line": 0,
    "window": "win_1",
    "rates": {"version": 1, "digest": EXAMPLE_DIGEST},
    "offer": {"version": 1, "digest": EXAMPLE_DIGEST},
    "demand": None,
    "volume": None,
    "model": "gpt-5",
    "tier": "standard",
    "above_input_tokens": 0,
    "lines": [
        {
            "meter": "input_tokens",
            "units": 1155,
            "rate": 277777778,
            "pico": "320833333590",
            "says": "1,155 input_tokens at 277.777778 CU per million: 0.32083333359 CU",
        },
        {
            "meter": "output_tokens",
            "units": 211,
            "rate": 2222222222,
            "pico": "468888888842",
            "says": "211 output_tokens at 2222.222222 CU per million: 0.468888888842 CU",
        },
    ],
    "minimum": None,
    "par_pico": "789722222432",
    "multipliers": [
        {
            "name": "ask",
            "multiplier": "0.9",
            "pico": "710750000188",
            "says": "times 0.9 for what the provider asks in its signed offer: "
            "0.789722222432 becomes 0.710750000188 CU",
        }
    ],
    "capped": None,
    "charge_pico": "710750000188",
    "charge": "0.710750000188",
    "says": ["Rated as gpt-5, tier standard, by rate table 1."],
    "noticed": ["output_above_grant"],
}


@router.get(
    "/{provider}/{record}",
    operation_id="explainCharge",
    summary="Why a record costs what it costs",
    responses={
        200: {
            "description": "Every factor in words and numbers.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
        }
    },
)
async def explain(
    context: ContextDep,
    reader: Reader,
    provider: Annotated[str, Path(max_length=64, examples=[EXAMPLE_PROVIDER])],
    record: Annotated[str, Path(max_length=64, examples=["019aaa00-0000-7000-8000-000000000000"])],
) -> dict[str, Any]:
    """The charge of a record of mine, line by line and multiplier by multiplier: what statement and proof show too.

    The consumer that paid and the provider that reported see it, nobody else.
    """
    return await charges.explain(context, reader.party, provider, record)
