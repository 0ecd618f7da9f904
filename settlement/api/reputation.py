"""Reputation: what is settled about a provider, for everybody who chooses one."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, StrictRoute
from settlement.api.shapes import EXAMPLE_PROVIDER, Cu, Example, Out
from settlement.core.units import cu_text
from settlement.services import reputation

router = APIRouter(prefix="/v1/providers", tags=["providers"], route_class=StrictRoute)

_EXAMPLE: Example = {
    "provider": EXAMPLE_PROVIDER,
    "first_window": "win_1",
    "last_window": "win_90",
    "records": 1_200_000,
    "refused": 31,
    "flagged": 4_100,
    "charged": "947666.4",
    "disputed": 12,
    "upheld": 3,
    "rejected": 8,
    "withdrawn": 1,
    "unanswered": 1,
    "awarded": "2.1",
    "penalties": "0",
    "owed": "0",
    "answers": 9,
    "answer_median_seconds": 5400,
    "answer_longest_seconds": 86400,
}


class ReputationOut(Out):
    """Usage is that of windows with a checkpoint, disputes are those that have ended.

    `flagged` are charged records whose counts the provider's own meter flagged; `unanswered` are disputes that were
    lost by silence. Answer times are null before the first answer.
    """

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    provider: str
    first_window: str | None
    last_window: str | None
    records: int
    refused: int
    flagged: int
    charged: Cu
    disputed: int
    upheld: int
    rejected: int
    withdrawn: int
    unanswered: int
    awarded: Cu
    penalties: Cu
    owed: Cu
    answers: int
    answer_median_seconds: int | None
    answer_longest_seconds: int | None


@router.get("/{provider}/reputation", operation_id="getReputation", summary="What is settled about a provider")
async def figures(context: ContextDep, provider: str) -> ReputationOut:
    """Counts and amounts that follow from the books; no stars and no opinions."""
    found = await reputation.of_provider(context, provider)
    return ReputationOut(
        provider=provider,
        first_window=None if found.first_window is None else f"win_{found.first_window}",
        last_window=None if found.last_window is None else f"win_{found.last_window}",
        records=found.records,
        refused=found.refused,
        flagged=found.flagged,
        charged=cu_text(found.charged),
        disputed=found.upheld + found.rejected + found.withdrawn,
        upheld=found.upheld,
        rejected=found.rejected,
        withdrawn=found.withdrawn,
        unanswered=found.unanswered,
        awarded=cu_text(found.awarded),
        penalties=cu_text(found.penalties),
        owed=cu_text(found.owed),
        answers=found.answers,
        answer_median_seconds=found.answer_median,
        answer_longest_seconds=found.answer_longest,
    )
