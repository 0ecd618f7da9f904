"""Governing over HTTP: who governs, proposals, comments, decisions, the log. What changes anything is signed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field

from governance import proposals, service
from governance.service import impact as previews
from governance.service import reading
from settlement.api.dependencies import ContextDep, Reader, SignedDep, StrictRoute
from settlement.api.published import EXACT, FOREVER, exact
from settlement.api.shapes import (
    EXAMPLE_CONSUMER,
    EXAMPLE_DIGEST,
    EXAMPLE_KID,
    EXAMPLE_TIME,
    Example,
    In,
    window_number,
)
from settlement.core import times
from settlement.core.errors import Conflict

router = APIRouter(prefix="/v1", tags=["council"], route_class=StrictRoute)

_ID = "prp_01kamk5q0r7v3c9x2m4n6p8q0s"
_VOICE: Example = {"name": "Ada", "kid": EXAMPLE_KID, "at": EXAMPLE_TIME}
_PROPOSAL: Example = {
    "id": _ID,
    "object": "rates",
    "subject": "",
    "version": 2,
    "parent": EXAMPLE_DIGEST,
    "effective_from": EXAMPLE_TIME,
    "digest": EXAMPLE_DIGEST,
    "document_digest": EXAMPLE_DIGEST,
    "statement": "prices of November",
    "correction": False,
    "state": "open",
    "proposed_at": EXAMPLE_TIME,
    "changed_at": None,
    "threshold": "ordinary",
    "notice_seconds": 1209600,
    "time_lock_seconds": 86400,
    "approved": [_VOICE],
    "vetoed": [],
}
_COUNCIL: Example = {
    "governed_by": "operator",
    "operator": EXAMPLE_KID,
    "council": None,
    "next": None,
    "pause": None,
    "log": {"size": 1, "head": "0" * 64},
}
_COMMENT: Example = {"no": 7, "party": EXAMPLE_CONSUMER, "at": EXAMPLE_TIME, "text": "twice as much is too much"}
_BILL: Example = {"records": 9, "before": "10.5", "after": "12.6", "change_percent": "20.00", "unrated": 0}
_WOULD_BE: Example = {
    "party": EXAMPLE_CONSUMER,
    "window": "win_1",
    "rates": {"version": 2, "digest": EXAMPLE_DIGEST},
    "charged": "9.45",
    **_BILL,
}
_IMPACT: Example = {
    "proposal": _ID,
    "made_at": EXAMPLE_TIME,
    "since": EXAMPLE_TIME,
    "complete": True,
    "total": _BILL,
    "consumers": [{"above_percent": 5, "to_percent": 20, "participants": 1}],
    "providers": [{"above_percent": 5, "to_percent": 20, "participants": 1}],
    "most_affected": [_BILL],
}
_ENTRY: Example = {"no": 1, "payload": "{}", "previous": "0" * 64, "hash": "0" * 64}
_SENT: Example = {
    "type": "proposal/1",
    "id": _ID,
    "object": "rates",
    "document": {},
    "statement": "prices of November",
    "correction": False,
}
_DECISION: Example = {"type": "decision/1", "decision": "approve", "proposal": _ID, "digest": EXAMPLE_DIGEST}


def _answers(status: int, example: object, description: str) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {status: {"description": description, "content": content}}


def _takes(example: Example) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


_DISPUTE = "dsp_01kamk5q0r7v3c9x2m4n6p8q0s"
DisputeId = Annotated[str, Path(max_length=64, examples=[_DISPUTE])]
ProposalId = Annotated[str, Path(max_length=64, examples=[_ID])]
After = Annotated[int, Query(ge=0, le=2**53 - 1, description="number of the log's entry behind which to begin")]
Limit = Annotated[int, Query(ge=1, le=reading.MOST_ENTRIES)]


class Comment(In):
    """What a participant says of a proposal."""

    model_config = ConfigDict(json_schema_extra={"example": {"text": "twice as much is too much"}})

    text: str = Field(min_length=1, max_length=4000)


@router.get(
    "/council",
    operation_id="getCouncil",
    summary="Who governs",
    response_class=JSONResponse,
    responses=_answers(200, _COUNCIL, "The council in force (`council/1`), what it has paused, the log's end."),
)
async def council(context: ContextDep) -> Response:
    """`governed_by` is `operator` until the first council is in force."""
    return JSONResponse(await reading.council(context))


@router.get(
    "/governance/proposals",
    operation_id="listProposals",
    summary="All proposals",
    response_class=JSONResponse,
    responses=_answers(200, {"data": [_PROPOSAL], "has_more": False, "next_cursor": None}, "The newest first."),
)
async def listed(context: ContextDep) -> Response:
    """Every proposal with its state and who has decided on it."""
    return JSONResponse({"data": await reading.listed(context), "has_more": False, "next_cursor": None})


@router.post(
    "/governance/proposals",
    status_code=201,
    operation_id="propose",
    summary="Propose",
    response_class=JSONResponse,
    responses=_answers(201, _PROPOSAL, "Taken; the same bytes again give the same answer."),
    openapi_extra=_takes(_SENT),
)
async def propose(context: ContextDep, signed: SignedDep) -> Response:
    """`proposal/1` in canonical form, signed by a member over the exact bytes, `typ` `proposal+jws`."""
    found = await service.propose(context, signed.body, signed.signature)
    headers = {"Idempotency-Replayed": "true"} if found.replayed else {}
    document = await reading.proposal(context, found.standing.proposal.id)
    return JSONResponse(document, 201, headers)


@router.get(
    "/governance/proposals/{proposal}",
    operation_id="getProposal",
    summary="A proposal",
    response_class=JSONResponse,
    responses=_answers(200, _PROPOSAL, "Its state and who has decided on it."),
)
async def one(context: ContextDep, proposal: ProposalId) -> Response:
    """What it would change is in its document and in its impact."""
    return JSONResponse(await reading.proposal(context, proposal))


@router.get(
    "/governance/proposals/{proposal}/document",
    operation_id="getProposalDocument",
    summary="A proposal's exact bytes",
    response_class=JSONResponse,
    responses={
        **EXACT,
        200: {**EXACT[200], "content": {"application/json": {"schema": {"type": "object"}, "example": _SENT}}},
    },
)
async def document(context: ContextDep, request: Request, proposal: ProposalId) -> Response:
    """`proposal/1`, as it was signed: what a member takes to its own machine to decide about."""
    return exact(request, await reading.body(context, proposal), FOREVER)


@router.get(
    "/governance/proposals/{proposal}/impact",
    operation_id="getImpact",
    summary="What a proposed rate table would have changed",
    response_class=JSONResponse,
    responses=_answers(200, _IMPACT, "The last 30 days of every account, rated again; kept for an hour."),
)
async def impact(context: ContextDep, proposal: ProposalId) -> Response:
    """At par, by the table in force and by the proposed one. Nobody's name is in it; your own bill is at `mine`."""
    return JSONResponse(previews.document(proposal, await previews.preview(context, proposal)))


@router.get(
    "/governance/proposals/{proposal}/impact/mine",
    operation_id="getMyImpact",
    summary="What a proposed rate table would have changed for me",
    response_class=JSONResponse,
    responses=_answers(200, {"party": EXAMPLE_CONSUMER, "rank": 1, **_BILL}, "Your bill would change by so much."),
)
async def my_impact(context: ContextDep, reader: Reader, proposal: ProposalId) -> Response:
    """`rank` is your place among the ten most affected, if you are one of them."""
    return JSONResponse(previews.own(await previews.preview(context, proposal), reader.party.id))


@router.get(
    "/statements/{window}/counterfactual",
    operation_id="getCounterfactual",
    summary="What my window would have cost by another rate table",
    response_class=JSONResponse,
    responses=_answers(200, _WOULD_BE, "By the tables that it was charged by, and by the other one, both at par."),
)
async def counterfactual(
    context: ContextDep,
    reader: Reader,
    window: Annotated[str, Path(max_length=20, examples=["win_1"])],
    rates: Annotated[str, Query(max_length=64, examples=["2"], description="a version, or the id of a proposal")],
) -> Response:
    """Of my own records alone, on either side. `charged` is what they have cost, with asks and other multipliers."""
    party, number = reader.party.id, window_number(window)
    return JSONResponse(previews.would_be(party, number, *await previews.counterfactual(context, party, number, rates)))


async def _decided(context: ContextDep, proposal: str, signed: SignedDep, choice: proposals.Choice) -> Response:
    decision = proposals.parse_decision(signed.body)
    if decision.choice != choice:
        raise Conflict("decision_of_another", f"this address takes the decision {choice}")
    await service.decide(context, proposal, signed.body, signed.signature)
    return JSONResponse(await reading.proposal(context, proposal))


@router.post(
    "/governance/proposals/{proposal}/approvals",
    operation_id="approve",
    summary="Approve",
    response_class=JSONResponse,
    responses=_answers(200, _PROPOSAL, "The proposal after it; adopted when it was the last one needed."),
    openapi_extra=_takes(_DECISION),
)
async def approve(context: ContextDep, signed: SignedDep, proposal: ProposalId) -> Response:
    """`decision/1`, signed by a member over the exact bytes, `typ` `decision+jws`."""
    return await _decided(context, proposal, signed, "approve")


@router.post(
    "/governance/proposals/{proposal}/vetoes",
    operation_id="veto",
    summary="Veto",
    response_class=JSONResponse,
    responses=_answers(200, _PROPOSAL, "The proposal after it."),
    openapi_extra=_takes({**_DECISION, "decision": "veto"}),
)
async def veto(context: ContextDep, signed: SignedDep, proposal: ProposalId) -> Response:
    """As an approval; until the proposal is enacted."""
    return await _decided(context, proposal, signed, "veto")


@router.post(
    "/governance/proposals/{proposal}/withdrawal",
    operation_id="withdraw",
    summary="Withdraw",
    response_class=JSONResponse,
    responses=_answers(200, _PROPOSAL, "The proposal after it."),
    openapi_extra=_takes({**_DECISION, "decision": "withdraw"}),
)
async def withdraw(context: ContextDep, signed: SignedDep, proposal: ProposalId) -> Response:
    """By who proposed it, while it is open."""
    return await _decided(context, proposal, signed, "withdraw")


@router.get(
    "/governance/proposals/{proposal}/comments",
    operation_id="listComments",
    summary="What participants say of a proposal",
    response_class=JSONResponse,
    responses=_answers(200, {"data": [_COMMENT], "has_more": False, "next_cursor": None}, "In order."),
)
async def comments(context: ContextDep, proposal: ProposalId, after: After = 0, limit: Limit = 50) -> Response:
    """`no` is the comment's entry in the log; ask again with `after`."""
    found = await reading.comments(context, proposal, after, limit + 1)
    data = [
        {"no": each.entry_no, "party": each.party, "at": times.text(each.at), "text": each.text}
        for each in found[:limit]
    ]
    more = len(found) > limit
    return JSONResponse({"data": data, "has_more": more, "next_cursor": str(data[-1]["no"]) if more else None})


@router.post(
    "/governance/proposals/{proposal}/comments",
    status_code=201,
    operation_id="comment",
    summary="Comment on a proposal",
    response_class=JSONResponse,
    responses=_answers(201, {"no": 7}, "Its number in the log."),
)
async def comment(context: ContextDep, reader: Reader, proposal: ProposalId, said: Comment) -> Response:
    """By any participant, until the proposal is enacted or closed. The text is public; the log has its digest."""
    return JSONResponse({"no": await service.comment(context, reader.party, proposal, said.text)}, 201)


@router.post(
    "/disputes/{dispute}/rulings",
    status_code=201,
    operation_id="proposeRuling",
    summary="Propose a ruling",
    tags=["disputes"],
    response_class=JSONResponse,
    responses=_answers(
        201, {**_PROPOSAL, "object": "ruling", "subject": _DISPUTE}, "Taken; approve it to carry it out."
    ),
    openapi_extra=_takes({**_SENT, "object": "ruling"}),
)
async def propose_ruling(context: ContextDep, signed: SignedDep, dispute: DisputeId) -> Response:
    """As any proposal, with a `ruling/1` about this dispute. It is carried out in the commit of the last approval."""
    about = proposals.parse(signed.body).governed
    if (about.kind, about.subject) != ("ruling", dispute):
        raise Conflict("ruling_out_of_bounds", f"this is a proposal of {about.kind} {about.subject}".rstrip())
    return await propose(context, signed)


@router.get(
    "/governance/log",
    operation_id="getGovernanceLog",
    summary="The governance log",
    response_class=JSONResponse,
    responses=_answers(200, {"data": [_ENTRY], "has_more": False, "next_cursor": None}, "In order."),
)
async def entries(context: ContextDep, after: After = 0, limit: Limit = 50) -> Response:
    """Entries behind number `after`. Each hash covers the one before; checkpoints state the last one."""
    found = await reading.entries(context, after, limit)
    more = len(found) == limit
    return JSONResponse({"data": found, "has_more": more, "next_cursor": str(found[-1]["no"]) if more else None})
