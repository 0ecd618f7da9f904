"""Every error as RFC 9457 ``application/problem+json``, with a code that is stable and documented.

`CODES` is the list of all codes that a caller can meet; docs/reference/errors.md is compared with it by a test. The
``type`` of a problem is ``/problems/<code>``, where the service explains the code.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from settlement.core.errors import Insufficient, Problem, SettlementError, Unavailable
from settlement.core.units import cu_text

MEDIA_TYPE = "application/problem+json"
MOST_PROBLEMS = 20
"""How many single problems one answer lists."""

log = structlog.get_logger("settlement.api")


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means: the HTTP status it comes with, a title, and what to do."""

    status: int
    title: str
    meaning: str


def _code(status: int, title: str, meaning: str) -> Code:
    return Code(status, title, meaning)


CODES: dict[str, Code] = {
    # The request as such.
    "json_empty": _code(400, "Empty body", "Send a JSON document."),
    "json_bom": _code(400, "Byte order mark", "Send UTF-8 without a byte order mark."),
    "json_encoding": _code(400, "Not UTF-8", "Send UTF-8."),
    "json_nul_byte": _code(400, "NUL byte", "The body has a byte that JSON doesn't allow."),
    "json_malformed": _code(400, "Not JSON", "The body is not JSON; the detail names the byte."),
    "json_not_finite": _code(400, "Not a number", "NaN and Infinity are not JSON."),
    "json_trailing_data": _code(400, "Trailing data", "Something follows the JSON value."),
    "idempotency_key_missing": _code(400, "Idempotency-Key missing", "Send the header with a value of your own."),
    "not_found": _code(404, "Not found", "There is no such address, or nothing there."),
    "method_not_allowed": _code(405, "Method not allowed", "The header Allow lists the methods of this address."),
    "request_timeout": _code(408, "Request too slow", "The body did not arrive in time; send it again."),
    "body_too_large": _code(413, "Body too large", "The detail names the most bytes that this call takes."),
    "uri_too_long": _code(414, "Address too long", "Shorten the path or the query."),
    "unsupported_media_type": _code(415, "Unsupported media type", "Send Content-Type: application/json in UTF-8."),
    "unsupported_encoding": _code(415, "Unsupported encoding", "Send the body without Content-Encoding."),
    "headers_too_large": _code(431, "Headers too large", "Send fewer or shorter headers."),
    "rate_limited": _code(429, "Too many requests", "Wait as many seconds as Retry-After says."),
    "document_malformed": _code(422, "Document not valid", "`errors` lists what is wrong, by JSON pointer."),
    "request_malformed": _code(422, "Request not valid", "`errors` lists the path, query or header at fault."),
    "json_too_deep": _code(422, "JSON too deep", "Documents nest at most 32 levels."),
    "json_number_not_integer": _code(422, "Not an integer", "Numbers are integers, without point or exponent."),
    "json_number_too_long": _code(422, "Number too long", "Integers have at most 19 digits."),
    "json_negative_zero": _code(422, "Negative zero", "Zero has no sign."),
    "json_nul_escape": _code(422, "NUL character", "Text has no NUL character."),
    "json_lone_surrogate": _code(422, "Lone surrogate", "Text has no half surrogate pairs."),
    "json_duplicate_key": _code(422, "Duplicate key", "Every key comes once in an object."),
    "cursor_malformed": _code(422, "Cursor not valid", "Send the `next_cursor` of an earlier answer, unchanged."),
    "amount_malformed": _code(422, "Amount not valid", "Amounts are decimal strings in the asset's own scale."),
    "time_malformed": _code(422, "Time not valid", "Times are RFC 3339 in UTC, ending in Z."),
    "digest_malformed": _code(422, "Digest not valid", "Digests are sha256: and 64 lower-case hexadecimal digits."),
    "name_malformed": _code(422, "Name not valid", "The detail says which characters a name may have."),
    "id_malformed": _code(422, "Id not valid", "Ids are a prefix and 26 characters, or a UUIDv7."),
    "canonical_value": _code(422, "Not canonical", "A value has no canonical JSON form."),
    # Who is asking.
    "api_key_missing": _code(401, "API key missing", "Send Authorization: Bearer cu_..."),
    "key_unknown": _code(401, "Key unknown", "The key is unknown, not valid yet, or revoked."),
    "signature_missing": _code(401, "Signature missing", "Send x-jws-signature over the exact body bytes."),
    "signature_malformed": _code(401, "Signature not valid", "The value is not a detached JWS as documented."),
    "signature_algorithm": _code(401, "Algorithm not allowed", "alg is Ed25519 or EdDSA."),
    "signature_invalid": _code(401, "Signature wrong", "The signature is not of these bytes by that key."),
    "signature_expired": _code(401, "Signature expired", "`at` must be within 300 seconds of our clock."),
    "scope_missing": _code(403, "Scope missing", "This API key may not do that."),
    "scope_not_granted": _code(403, "Scope not granted", "An API key can only give scopes that it has."),
    "key_of_another": _code(403, "Key of another", "The signing key belongs to another participant."),
    "consumers_only": _code(403, "For consumers only", "This call is for consumers."),
    "providers_only": _code(403, "For providers only", "This call is for providers."),
    "account_not_proven": _code(403, "Account not proven", "The consumer account must sign the same body too."),
    "provider_pending": _code(403, "Provider not admitted", "The operator has to admit this provider first."),
    "provider_suspended": _code(403, "Provider suspended", "Ask the operator."),
    "not_enough_signatures": _code(403, "Not enough signatures", "More of those who govern must sign."),
    "signature_replayed": _code(409, "Already done", "This signed request took effect already; sign a new one."),
    # Participants and keys.
    "key_private": _code(422, "Private key sent", "It is no longer secret: make a new pair and send its public half."),
    "key_malformed": _code(422, "Key not valid", "A key is a public Ed25519 JWK."),
    "key_not_canonical": _code(422, "Key not canonical", "This is another spelling of a key."),
    "key_low_order": _code(422, "Key of small order", "Anything would verify under this key."),
    "key_off_group": _code(422, "Key not on the curve", "This is no point of the prime-order group."),
    "key_already_registered": _code(409, "Key registered", "Every key is registered once, for one participant."),
    "account_already_linked": _code(409, "Account linked", "Another provider is linked to this account."),
    "last_key": _code(409, "Last key", "Register another key before this one ends."),
    "time_in_past": _code(422, "Time in the past", "Keys begin and end now or later."),
    "unknown_key": _code(404, "Unknown key", "This participant has no such key."),
    "unknown_party": _code(404, "Unknown participant", "There is no such participant."),
    "unknown_account": _code(404, "Unknown account", "There is no such account."),
    "unknown_chain": _code(404, "Unknown chain", "The detail lists the chains of this service."),
    "unknown_asset": _code(404, "Unknown asset", "The detail lists the assets of this chain."),
    "asset_not_paid": _code(422, "Asset without value", "The policy in force gives this asset no value."),
    "address_malformed": _code(422, "Address not valid", "This is not an address of that chain."),
    "address_ours": _code(
        422,
        "Our own address",
        "Money sent there would stay with the service, on whichever chain and in whatever form the address is written.",
    ),
    "reference_out_of_range": _code(
        422, "Reference out of range", "The tag or memo id doesn't fit the chain, or the address names another one."
    ),
    # Money.
    "idempotency_key_malformed": _code(422, "Idempotency-Key not valid", "1 to 128 printable ASCII characters."),
    "idempotency_key_reused": _code(422, "Idempotency-Key reused", "The key was used for another request."),
    "request_in_flight": _code(409, "Request in flight", "The first request with this key is still being answered."),
    "party_not_consumer": _code(409, "Not a consumer", "Only consumers' accounts are funded."),
    "unknown_intent": _code(404, "Unknown intent", "This account has no such funding intent."),
    "address_unproven": _code(422, "Address not proven", "Send a proof by the address's own key."),
    "address_proof_invalid": _code(422, "Proof not valid", "The address's key signs the documented text, dated now."),
    "address_not_set": _code(409, "No address to pay to", "Set a payout address and prove it first."),
    "asset_without_value": _code(409, "Asset without value", "The policy in force gives the address's asset no value."),
    "withdrawal_too_small": _code(409, "Withdrawal too small", "The detail names the least that is withdrawn."),
    "withdrawal_limit": _code(409, "Withdrawal limit reached", "The detail says how much is left for 24 hours."),
    "insufficient_balance": _code(402, "Balance too low", "The detail names the missing amount; fund the account."),
    # Webhooks.
    "webhook_url": _code(422, "No address for webhooks", "An https address on the public internet."),
    "webhook_event": _code(422, "No such event", "webhooks.md lists the events of consumers and providers."),
    "unknown_webhook": _code(404, "Unknown webhook", "This participant has no such webhook."),
    "unknown_delivery": _code(404, "Unknown delivery", "This webhook has no delivery of that event."),
    "too_many_webhooks": _code(409, "Too many webhooks", "Remove one first."),
    "webhook_disabled": _code(409, "Webhook disabled", "Change it to enable it."),
    "unknown_balance_rule": _code(404, "Unknown balance rule", "This account has no such balance rule."),
    "too_many_balance_rules": _code(409, "Too many balance rules", "Remove one first."),
    # Usage reports.
    "budget_exceeded": _code(402, "Budget too low", "`missing` says by how much the spending key's budget is short."),
    # Holds.
    "consumer_key_missing": _code(401, "Consumer key missing", "Send the consumer's spending key in X-Consumer-Key."),
    "consumer_key_unknown": _code(401, "Consumer key unknown", "The key in X-Consumer-Key is unknown or revoked."),
    "consumer_key_scope": _code(403, "No spending key", "The key in X-Consumer-Key must have the scope spend alone."),
    "consumer_suspended": _code(403, "Consumer suspended", "The account may not be charged now."),
    "model_not_allowed": _code(403, "Model not allowed", "The spending key's budget doesn't allow this model."),
    "provider_not_allowed": _code(403, "Provider not allowed", "The spending key's budget doesn't allow it."),
    "unknown_budget": _code(404, "Unknown budget", "This participant has no such budget."),
    "budget_too_deep": _code(409, "Budget too deep", "Budgets nest at most 4 levels."),
    "unknown_hold": _code(404, "Unknown hold", "This participant has no such hold."),
    "hold_conflict": _code(409, "Other hold on file", "Every call has a request id of its own."),
    "demand_above": _code(409, "Demand above the request", "The multiplier is more than the request takes."),
    "hold_ended": _code(409, "Hold ended", "It was captured, released, or has expired."),
    "hold_is_lease": _code(409, "Hold is a lease", "A lease is not extended; place another one."),
    "grant_out_of_order": _code(409, "Grant out of order", "The detail names the number that is next."),
    "unknown_model": _code(422, "Unknown model", "The rate table in force has no such model or alias."),
    "unknown_tier": _code(422, "Unknown tier", "The model has no such tier."),
    "unknown_meter": _code(422, "Unknown meter", "The rate table in force has no such meter, or it is granted later."),
    "unpriced_meter": _code(422, "Meter without rate", "The model has no rate for this meter."),
    "subset_above_whole": _code(422, "Parts above whole", "The parts of a meter are more than it."),
    "charge_too_large": _code(422, "Charge too large", "The charge is more than the books can hold."),
    "request_too_large": _code(422, "Request too large", "Split the request; the detail names the most."),
    "context_exceeded": _code(422, "Input too long", "The detail names the most input that the model takes."),
    "hold_out_of_bounds": _code(422, "Not within the rules", "The policy's section holds says what may be asked for."),
    "report_conflict": _code(409, "Other report on file", "This report id is on file with other bytes."),
    "sequence_taken": _code(409, "Number taken", "Another report has this sequence number."),
    "sequence_gap": _code(409, "Gap in the sequence", "The detail names the number that is next."),
    "previous_mismatch": _code(409, "Wrong previous digest", "`prev` must be the digest of the report before."),
    "unknown_report": _code(404, "Unknown report", "This provider has sent no such report."),
    # Public record.
    "unknown_window": _code(404, "Unknown window", "There is no such window."),
    "unknown_checkpoint": _code(404, "Unknown checkpoint", "This window has no checkpoint yet."),
    "unknown_rate_table": _code(404, "Unknown rate table", "There is no such version."),
    "rates_not_in_force": _code(404, "No rates in force", "No rate table was in force at that time."),
    "policy_not_in_force": _code(404, "No policy in force", "No policy was in force at that time."),
    "record_unknown": _code(404, "Unknown record", "This provider has reported no such record."),
    "record_not_checkpointed": _code(404, "Not in a checkpoint yet", "Its window has to be closed first; ask later."),
    "record_erased": _code(404, "Erased", "Its consumer asked for it: the salt is gone, and the leaf can't be shown."),
    "solvency_unknown": _code(404, "Not measured", "Nothing was measured for that window; see the published ones."),
    "windows_reversed": _code(422, "Windows reversed", "The later checkpoint is the second one."),
    "position_unknown": _code(404, "Unknown position", "This participant has no position in that window."),
    "liability_unknown": _code(404, "Unknown liability", "This account is not in that checkpoint."),
    # Governing.
    "rate_table_malformed": _code(422, "Rate table not valid", "The detail names the JSON pointer."),
    "offer_malformed": _code(422, "Offer not valid", "`errors` has the place; offers.md has the form."),
    "observation_malformed": _code(422, "Observation not valid", "`errors` has the place; value.md has the form."),
    "source_unknown": _code(403, "Source unknown", "The policy in force names no such source."),
    "observation_conflict": _code(409, "Another observation on file", "A source says one thing about a time."),
    "demand_off": _code(409, "No demand", "The policy in force has no curve of demand."),
    "demand_too_soon": _code(409, "Step made already", "The detail says when the next step of demand is made."),
    "fixing_too_soon": _code(409, "Fixed already", "There is one fixing a day."),
    "prices_untrusted": _code(409, "Prices not trusted", "The detail says which series lacks good sources."),
    "fixing_without_gap": _code(409, "No gap", "The basket is bought anew only when a gap has frozen the index."),
    "ask_out_of_band": _code(422, "Ask outside of the band", "The detail names the ask and what the policy allows."),
    "policy_malformed": _code(422, "Policy not valid", "The detail says what is wrong."),
    "version_not_next": _code(409, "Wrong version", "A new version is the last one plus one."),
    "parent_mismatch": _code(409, "Wrong parent", "The parent is the digest of the last version."),
    "effective_date_in_past": _code(409, "Retroactive", "What governs is never changed for the past."),
    "council_malformed": _code(422, "Council not valid", "The detail says what is wrong."),
    "proposal_malformed": _code(422, "Proposal not valid", "The detail names the JSON pointer."),
    "decision_malformed": _code(422, "Decision not valid", "The detail names the JSON pointer."),
    "comment_malformed": _code(422, "Comment not valid", "A comment is text of at most 4,000 characters."),
    "council_missing": _code(409, "No council", "The operator governs alone; a council has to be founded first."),
    "council_exists": _code(409, "Council exists", "Another council follows this one by a proposal."),
    "council_governs": _code(403, "A council governs", "Propose it to the council."),
    "not_a_member": _code(403, "No voice", "The key is no member's, or its term doesn't run."),
    "member_recused": _code(403, "Member recused", "The member has declared an interest in whom this is about."),
    "not_the_proposer": _code(403, "Not the proposer", "Who proposed it may withdraw it."),
    "unknown_proposal": _code(404, "Unknown proposal", "There is no such proposal."),
    "proposal_conflict": _code(409, "Other proposal on file", "This proposal id is on file with other bytes."),
    "proposal_closed": _code(409, "Proposal closed", "The detail says how the proposal ended."),
    "already_decided": _code(409, "Decided already", "This key has decided on the proposal already."),
    "decision_of_another": _code(409, "Another proposal's decision", "Sign a decision about this proposal's bytes."),
    "notice_too_short": _code(409, "Notice too short", "The detail names the earliest time."),
    "pause_too_long": _code(409, "Pause too long", "The policy says how long a pause may be."),
    "too_many_comments": _code(409, "Too many comments", "A participant comments 20 times at most."),
    "not_due": _code(409, "Not due", "The detail says what has to come first."),
    "rates_expired": _code(503, "Rates expired", "The last rate table has run out; no new holds until the next one."),
    "council_suspended": _code(409, "Suspended by the council", "Only the council can admit this participant."),
    "no_impact": _code(409, "No impact", "Only a rate table changes what somebody pays."),
    "paused": _code(503, "Paused", "The council has stopped this for a while; the detail says until when."),
    # Disputes.
    "claim_malformed": _code(422, "Claim not valid", "The detail says what is missing, or what can't be rated."),
    "answer_malformed": _code(422, "Answer not valid", "`errors` has the place; disputes.md has the form."),
    "unknown_dispute": _code(404, "Unknown dispute", "You are on neither side of such a dispute."),
    "nothing_charged": _code(409, "Nothing charged", "Less than a microCU was charged: there is nothing to give back."),
    "dispute_exists": _code(409, "Disputed before", "A charge is disputed once; the detail names the dispute."),
    "dispute_too_late": _code(409, "Too late to dispute", "The detail says until when it could be disputed."),
    "too_many_disputes": _code(409, "Too many disputes", "Wait until some have ended; the policy says how many."),
    "claim_above_charge": _code(409, "Claim above the charge", "The detail names the most that can be claimed."),
    "claim_unfounded": _code(409, "Nothing too much", "By what you sent, nothing was charged too much."),
    "answer_of_another": _code(409, "Answer to another", "The answer names another dispute."),
    "answer_too_late": _code(409, "Too late to answer", "The detail says until when it could be answered."),
    "dispute_answered": _code(409, "Answered already", "The provider has answered; a ruling comes next."),
    "dispute_not_answered": _code(409, "Not answered yet", "The provider is heard first; the detail says until when."),
    "dispute_ended": _code(409, "Dispute ended", "The detail says how it ended."),
    "ruling_out_of_bounds": _code(409, "Ruling out of bounds", "The detail says what can be ruled."),
    # The operator.
    "conversions_paused": _code(503, "Conversions paused", "The index has no good fixing now; usage goes on."),
    "halted": _code(503, "Halted", "Payouts and anchors stand still until a person has looked."),
    "unknown_halt": _code(404, "Unknown halt", "There is no open halt of that number."),
    "unknown_order": _code(404, "Unknown order", "There is no such chain order."),
    "unknown_deposit": _code(404, "Unknown deposit", "There is no such deposit."),
    "account_not_frozen": _code(404, "Account not frozen", "Signing for this account isn't stopped."),
    "deposit_not_in_suspense": _code(409, "Deposit credited", "This deposit was credited before."),
    "deposit_without_value": _code(409, "Deposit without value", "The policy gives the asset no value in CU."),
    "order_not_contested": _code(409, "Order not contested", "Only a contested order can be decided by a person."),
    "outcome_unproven": _code(409, "Outcome not proven", "The chain's final state does not show that yet."),
    "window_not_netted": _code(409, "Window not netted", "The window has to be closed and netted first."),
    "window_not_planned": _code(409, "Window not planned", "The window's payouts have to be planned first."),
    "window_not_checkpointed": _code(409, "No checkpoint yet", "The window needs its checkpoint first."),
    "rail_closed": _code(409, "Chain closed already", "See `settlement chain choices` and `settlement chain open`."),
    "rail_open": _code(
        409, "Chain not closed", "Only a closed chain can be opened or given up: `settlement chain close`."
    ),
    "service_key_malformed": _code(422, "Hand-over not valid", "The document hands no key over."),
    "service_key_order": _code(422, "Hand-over out of order", "A new key follows the one that signs now."),
    # The service itself.
    "internal_error": _code(500, "Internal error", "Nothing was changed by halves; tell the operator the request_id."),
    "database_unavailable": _code(503, "Database away", "Send the request again later."),
    "archive_not_configured": _code(503, "No archive", "The operator has to say where sealed segments are."),
    "segment_missing": _code(503, "Segment away", "A sealed segment is not where it is kept; ask again later."),
    "database_busy": _code(503, "Database busy", "Send the request again."),
    "chain_not_open": _code(503, "Chain not open", "The service has not opened this chain yet; try again later."),
    "chain_stale": _code(503, "Chain stands still", "The newest final ledger that was seen is old; deposits are late."),
    "chain_unavailable": _code(503, "Chain away", "The chain does not answer; try again later."),
    "signer_retired": _code(503, "Key replaced", "The service took a new key; this process is about to be restarted."),
    "not_ready": _code(503, "Not ready", "`errors` says why."),
}


class ProblemItem(BaseModel):
    """One thing that is wrong, at one place."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body, or `path`, `query`, `header` and a name")
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457 problem details: the body of every 4xx and 5xx answer."""

    model_config = ConfigDict(
        title="Problem",
        json_schema_extra={
            "example": {
                "type": "/problems/document_malformed",
                "title": "Document not valid",
                "status": 422,
                "detail": "the body does not have the documented form",
                "code": "document_malformed",
                "request_id": "5f0d3c1a9b7e42d6a8c1",
                "errors": [{"pointer": "/name", "code": "string_type", "detail": "Input should be a valid string"}],
            }
        },
    )

    type: str = Field(description="`/problems/<code>`")
    title: str
    status: int
    detail: str
    code: str = Field(description="stable; listed in docs/reference/errors.md")
    request_id: str = Field(description="also in the header X-Request-Id")
    errors: list[ProblemItem] = []
    missing: str | None = Field(default=None, description="with 402: how much is missing, in CU, where it is known")


def document(
    status: int, code: str, detail: str, request_id: str, problems: Sequence[Problem] = ()
) -> dict[str, object]:
    """The members of a problem."""
    known = CODES.get(code)
    found: dict[str, object] = {
        "type": f"/problems/{code}",
        "title": known.title if known else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if problems:
        found["errors"] = [
            {"pointer": each.pointer, "code": each.code, "detail": each.detail} for each in problems[:MOST_PROBLEMS]
        ]
    return found


def response(error: SettlementError, request_id: str) -> Response:
    """The answer to an error raised on purpose."""
    headers: dict[str, str] = dict(getattr(error, "headers", {}))
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    if isinstance(error, Unavailable):
        headers.setdefault("Retry-After", "1")
    detail, code = error.detail, error.code
    if error.status == 500:
        log.error("broken", code=error.code, detail=error.detail, request_id=request_id)
        code, detail = "internal_error", CODES["internal_error"].meaning
    body = document(error.status, code, detail, request_id, error.problems)
    if isinstance(error, Insufficient) and error.missing is not None:
        body["missing"] = cu_text(error.missing)
    return JSONResponse(body, error.status, headers, media_type=MEDIA_TYPE)


def unexpected(error: BaseException, request_id: str, method: str, path: str) -> Response:
    """The answer to an error that nobody meant. The log gets its type and where it arose, never its text or values:
    a message may carry a row, a key or a body."""
    frames = traceback.extract_tb(error.__traceback__)
    told = [frame for frame in frames if "site-packages" not in frame.filename][-12:] + frames[-1:]
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in told]
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    log.error("unexpected", error=kind, where=where, sqlstate=state, request_id=request_id, method=method, path=path)
    detail = CODES["internal_error"].meaning
    return JSONResponse(document(500, "internal_error", detail, request_id), 500, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of the app and of the framework become a problem."""
    app.add_exception_handler(SettlementError, _on_settlement_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def request_id(request: Request) -> str:
    """The id that the guard gave to this request."""
    found: str = request.scope.get("request_id", "")
    return found


async def _on_settlement_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SettlementError)
    return response(error, request_id(request))


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [_item(each) for each in error.errors()]
    in_body = any(each.pointer == "" or each.pointer.startswith("/") for each in found)
    code = "document_malformed" if in_body else "request_malformed"
    detail = "the body does not have the documented form" if in_body else "a part of the request is not valid"
    return JSONResponse(document(422, code, detail, request_id(request), found), 422, media_type=MEDIA_TYPE)


def _item(error: Mapping[str, Any]) -> Problem:
    """pydantic's error without the value that was sent."""
    place, *steps = error["loc"]
    if place != "body":
        return Problem(f"{place} {'/'.join(str(step) for step in steps)}", error["type"], error["msg"])
    escaped = [str(step).replace("~", "~0").replace("/", "~1")[:64] for step in steps]
    return Problem("".join(f"/{step}" for step in escaped[:32]), error["type"], error["msg"][:200])


_FRAMEWORK = {404: "not_found", 405: "method_not_allowed"}


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _FRAMEWORK.get(error.status_code, "request_malformed" if error.status_code < 500 else "internal_error")
    body = document(error.status_code, code, CODES[code].meaning, request_id(request))
    return JSONResponse(body, error.status_code, dict(error.headers or {}), media_type=MEDIA_TYPE)
