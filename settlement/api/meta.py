"""The service about itself: is it alive, can it work, its figures, its key, its error codes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import PlainTextResponse
from pydantic import ConfigDict

from settlement.api.dependencies import ContextDep, StateDep, StrictRoute
from settlement.api.problems import CODES
from settlement.api.shapes import EXAMPLE_JWK, EXAMPLE_KID, Out
from settlement.core.errors import NotFound, Problem, SettlementError, Unavailable
from settlement.services import halts, reading

router = APIRouter(tags=["service"], route_class=StrictRoute)

_READY_SECONDS = 5
_METRICS = {
    "participants": ("Registered participants.", ("kind", "status")),
    "windows": ("Windows by state.", ("state",)),
    "chain_orders": ("Orders of a chain by what they are for and their state.", ("chain", "kind", "state")),
    "chain_attempts": ("Transactions that were ever signed for a chain.", ("chain",)),
    "payouts": ("Payouts by state.", ("state",)),
    "liabilities_microcu": ("What is owed to participants, in microCU.", ("kind",)),
    "journal_entries": ("Number of the last journal entry.", ()),
    "chain_ledger": ("Number of the newest final ledger that was seen of a chain.", ("chain",)),
    "chain_tip_age_seconds": ("Age of the newest final ledger that was seen of a chain.", ("chain",)),
    "halts": ("Open reasons to halt payouts and anchors.", ()),
    "webhooks": ("Endpoints of participants: active, failing or disabled.", ("state",)),
    "webhook_deliveries": ("Deliveries of the last 30 days by state.", ("state",)),
    "webhook_waiting_seconds": ("Age of the oldest event that waits for an endpoint that is not disabled.", ()),
    "rail_usable": ("1 while a chain is relied on for payouts, else 0.", ("chain",)),
    "rail_waiting_seconds": ("How long the oldest open payout of a chain has waited.", ("chain",)),
    "rail_held_units": ("What the treasury holds by the books, in smallest units.", ("chain", "asset")),
    "rail_free_units": ("What of it no payout and no position counts on.", ("chain", "asset")),
    "rail_free_microcu": ("What is free in microCU, of assets that the policy gives a worth.", ("chain", "asset")),
    "rail_float_least_microcu": ("The policy's lower limit of what is free, 0 for none.", ("chain",)),
    "rail_float_most_microcu": ("The policy's upper limit of what is free, 0 for none.", ("chain",)),
    "rail_fees_units": ("Network fees booked so far, in smallest units.", ("chain", "asset")),
}


class StatusOut(Out):
    """The service's own state."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})

    status: str


class JwksOut(Out):
    """The public keys that receipts, checkpoints and other documents of the service are signed with (RFC 7517)."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"keys": [{**EXAMPLE_JWK, "kid": EXAMPLE_KID, "use": "sig", "alg": "Ed25519"}]}}
    )

    keys: list[dict[str, str]]


class CodeOut(Out):
    """What an error code means."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "code": "json_empty",
                "status": 400,
                "title": "Empty body",
                "meaning": "Send a JSON document.",
            }
        }
    )

    code: str
    status: int
    title: str
    meaning: str


@router.get("/healthz", operation_id="getHealth", summary="Is the process alive")
async def healthz() -> StatusOut:
    """Asks nobody else."""
    return StatusOut(status="ok")


@router.get("/readyz", operation_id="getReadiness", summary="Can the service do all of its work")
async def readyz(context: ContextDep) -> StatusOut:
    """503 while the database is away, or while payouts and anchors are halted; then `errors` says why.

    A halted service still answers reads and takes usage reports.
    """
    try:
        async with asyncio.timeout(_READY_SECONDS):
            found = await halts.open_halts(context)
    except (SettlementError, TimeoutError) as error:
        code = error.code if isinstance(error, SettlementError) else "database_unavailable"
        problem = Problem("", code, "the database does not answer")
        raise Unavailable("not_ready", "the database does not answer", (problem,)) from error
    if found:
        reasons = tuple(Problem("", each.code, each.detail) for each in found)
        raise Unavailable("not_ready", "payouts and anchors are halted until a person has looked", reasons)
    return StatusOut(status="ready")


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"example": 'settlement_windows{state="open"} 1\n'}}}},
)
async def metrics(state: StateDep) -> PlainTextResponse:
    """Prometheus text format 0.0.4. Requests are counted by the processes of one service, all else comes from rows."""
    lines: list[str] = []
    for name, rows in (await reading.counts(state.context)).items():
        meaning, labels = _METRICS[name]
        lines += [f"# HELP settlement_{name} {meaning}", f"# TYPE settlement_{name} gauge"]
        lines += [f"settlement_{name}{_labels(labels, text)} {value}" for text, value in rows]
    lines += ["# HELP settlement_http_requests_total Answers of this service since it was started.", _COUNTER]
    for method, status, count in state.traffic.answered():
        lines.append(f'settlement_http_requests_total{{method="{method}",status="{status}"}} {count}')
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


_COUNTER = "# TYPE settlement_http_requests_total counter"


@router.get("/.well-known/jwks.json", operation_id="getServiceKeys", summary="The service's public keys")
async def jwks(context: ContextDep) -> JwksOut:
    """The keys that sign receipts and checkpoints: the one that signs now comes first, then those before it."""
    keys = await reading.service_keys(context)
    return JwksOut(keys=[{**each.jwk(), "kid": each.kid, "use": "sig", "alg": "Ed25519"} for each in keys])


@router.get("/problems/{code}", operation_id="explainProblem", summary="What an error code means")
async def explain(code: Annotated[str, Path(max_length=64, examples=["json_empty"])]) -> CodeOut:
    """The `type` of every problem leads here."""
    found = CODES.get(code)
    if found is None:
        raise NotFound("not_found", "there is no such code")
    return CodeOut(code=code, status=found.status, title=found.title, meaning=found.meaning)


def _labels(names: tuple[str, ...], text: str) -> str:
    pairs: list[Any] = [f'{name}="{value}"' for name, value in zip(names, text.split("/"), strict=False)]
    return "{" + ",".join(pairs) + "}" if names else ""
