"""Holds: hot routes. Thin as usage reports are: no framework between the bytes and the use case, msgspec both ways."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import astuple

from settlement.api.dependencies import ContextDep, StrictRoute, needs
from settlement.api.hot import Arriving, HotRoute, Reply, as_described
from settlement.api.shapes import EXAMPLE_CONSUMER, EXAMPLE_TIME, Example, amount_in
from settlement.core import ids, multipliers, strictjson
from settlement.core.errors import Malformed, Problem, Unauthenticated
from settlement.core.hold_rules import LARGEST_SLICE, SMALLEST_SLICE
from settlement.core.holds import CLOCK_SKEW, MOST_TOKENS, Ask
from settlement.services import authentication, holds
from settlement.services.authentication import Credential, Principal
from settlement.services.holds import Extending, Placing, Releasing

router = APIRouter(tags=["holds"], route_class=StrictRoute)

Form = TypeVar("Form", bound=Struct)
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/@+-]{1,128}$")]
Units = Annotated[int, Meta(ge=0, le=10**12)]
Output = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]


class Final(Struct, forbid_unknown_fields=True, frozen=True):
    """What the provider does when the balance ends."""

    action: Literal["stop", "redirect", "absorb"]
    limit: str | UnsetType = UNSET


_STOP = Final("stop")


class HoldRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a request for a hold."""

    request: str
    model: Name
    tier: Name
    meters: dict[Name, Units]
    max_output_tokens: Output | UnsetType = UNSET
    output_tokens: Annotated[int, Meta(ge=0, le=LARGEST_SLICE)] | UnsetType = UNSET
    requests: Annotated[int, Meta(ge=1, le=1_000)] | UnsetType = UNSET
    expires_in: Annotated[int, Meta(ge=10, le=3_600)] | UnsetType = UNSET
    final: Final | UnsetType = UNSET
    demand: Annotated[str, Meta(pattern=f"^{multipliers.TEXT.pattern}$")] | UnsetType = UNSET


class ExtendRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a request for the next grant."""

    grant: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    output_tokens: Annotated[int, Meta(ge=1, le=LARGEST_SLICE)] | UnsetType = UNSET
    meters: dict[Name, Units] | UnsetType = UNSET


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SIGNED = re.compile(rb":\s*-")
_read_hold = msgspec.json.Decoder(HoldRequest)
_read_extension = msgspec.json.Decoder(ExtendRequest)
_PATH = re.compile(r" - at `\$?(.*)`$")
_UUID_SCHEMA = {"type": "string", "pattern": f"^{_UUID.pattern}$"}
_SKEW = CLOCK_SKEW // timedelta(milliseconds=1)

_REQUEST_EXAMPLE: Example = {
    "request": "019aaa00-0000-7000-8000-000000000000",
    "model": "gpt-5",
    "tier": "standard",
    "meters": {"input_tokens": 1155},
    "max_output_tokens": 4096,
}
_EXAMPLE: Example = {
    "id": "hld_01kamk5q0r7v3c9x2m4n6p8q0s",
    "request": "019aaa00-0000-7000-8000-000000000000",
    "state": "open",
    "consumer": EXAMPLE_CONSUMER,
    "model": "gpt-5",
    "tier": "standard",
    "rates": "1",
    "demand": "1",
    "requests": 1,
    "uses": 0,
    "amount": "0.889723",
    "captured": "0",
    "released": "0",
    "grant": 1,
    "output_tokens": 256,
    "report_at": 205,
    "final": {"action": "stop"},
    "created_at": EXAMPLE_TIME,
    "expires_at": "2026-11-22T00:05:00Z",
    "ended_at": EXAMPLE_TIME,
}
_TEXTS = ("id", "request", "state", "consumer", "model", "tier", "rates", "demand", "amount", "captured", "released")
_COUNTS = ("requests", "uses", "grant", "output_tokens", "report_at")
_HOLD_SCHEMA = {
    "type": "object",
    "required": list(_EXAMPLE),
    "properties": {
        **{name: {"type": "string"} for name in (*_TEXTS, "created_at", "expires_at")},
        **{name: {"type": "integer"} for name in _COUNTS},
        "final": {"type": ["object", "null"]},
        "ended_at": {"type": ["string", "null"]},
    },
}
_METERS_SCHEMA = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 10**12}}
_TOKENS = {"type": "integer", "minimum": 0, "maximum": MOST_TOKENS}
_REQUEST_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["request", "model", "tier", "meters"],
    "properties": {
        "request": _UUID_SCHEMA,
        "model": {"type": "string"},
        "tier": {"type": "string"},
        "meters": _METERS_SCHEMA,
        "max_output_tokens": _TOKENS,
        "output_tokens": {**_TOKENS, "maximum": LARGEST_SLICE},
        "requests": {"type": "integer", "minimum": 1, "maximum": 1_000},
        "expires_in": {"type": "integer", "minimum": 10, "maximum": 3_600},
        "final": {"type": "object"},
        "demand": {"type": "string", "pattern": f"^{multipliers.TEXT.pattern}$"},
    },
}
_EXTEND_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["grant"],
    "properties": {
        "grant": {"type": "integer", "minimum": 1},
        "output_tokens": {"type": "integer", "minimum": 1, "maximum": LARGEST_SLICE},
        "meters": _METERS_SCHEMA,
    },
}


def _described(status: int, what: str) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": _HOLD_SCHEMA, "example": _EXAMPLE}}
    return {status: {"description": what, "content": content}}


def _body(schema: dict[str, Any], example: Example) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


_needs_holds = needs("holds", "provider")
_needs_read = needs("read")
Holding = Annotated[Principal, Depends(_needs_holds)]
Reading = Annotated[Principal, Depends(_needs_read)]
HoldId = Annotated[str, Path(max_length=64, examples=[_EXAMPLE["id"]])]


@router.post(
    "/v1/holds",
    status_code=201,
    operation_id="placeHold",
    summary="Reserve the input and a first slice of output",
    response_class=Response,
    responses=_described(201, "Reserved; a repeated request has the header Idempotency-Replayed: true."),
    openapi_extra=_body(_REQUEST_SCHEMA, _REQUEST_EXAMPLE)
    | {
        "parameters": [
            {
                "name": "X-Consumer-Key",
                "in": "header",
                "required": True,
                "description": "the consumer's spending key",
                "schema": {"type": "string"},
            }
        ]
    },
)
async def place(request: Request, context: ContextDep, _: Holding) -> Response:
    """With the provider's API key (scope `holds`) and the consumer's spending key in `X-Consumer-Key`."""
    return await as_described(context, request, receive_place)


@router.post(
    "/v1/holds/{hold_id}/extend",
    operation_id="extendHold",
    summary="Reserve the next slice, or renew the expiry",
    response_class=Response,
    responses=_described(200, "The hold as it stands now."),
    openapi_extra=_body(_EXTEND_SCHEMA, {"grant": 2}),
)
async def extend(request: Request, context: ContextDep, _: Holding, hold_id: HoldId) -> Response:
    """`grant` is the number of the grant that is asked for; with the present number it is a heartbeat."""
    return await as_described(context, request, receive_extend)


@router.post(
    "/v1/holds/{hold_id}/release",
    operation_id="releaseHold",
    summary="Give a hold back",
    response_class=Response,
    responses=_described(200, "The hold as it stands now."),
)
async def release(request: Request, context: ContextDep, _: Holding, hold_id: HoldId) -> Response:
    """The call failed, or had no answer. Repeating it changes nothing."""
    return await as_described(context, request, receive_release)


@router.get(
    "/v1/holds/{hold_id}",
    operation_id="getHold",
    summary="One hold",
    response_class=Response,
    responses=_described(200, "The hold as it stands now."),
)
async def one(context: ContextDep, reader: Reading, hold_id: HoldId) -> Response:
    """To its provider and its consumer."""
    document = holds.document(await holds.get(context, reader, hold_id))
    return Response(msgspec.json.encode(document), media_type="application/json")


async def receive_place(arriving: Arriving) -> Reply:
    """A hold, without the framework's routing and injection."""
    provider = _bearer(arriving)
    given = arriving.values(b"x-consumer-key")
    if len(given) != 1:
        raise Unauthenticated("consumer_key_missing", "send one header X-Consumer-Key: cu_..., the consumer's key")
    consumer = authentication.credential(given[0])
    if consumer is None:
        raise Unauthenticated("consumer_key_unknown", "X-Consumer-Key is not a valid API key")
    body = await arriving.body()
    asked = _decoded(body, _read_hold)
    placing = Placing(
        provider=provider,
        consumer=consumer,
        request=_request_id(asked.request, arriving.context.sources.clock()),
        fingerprint=sha256(body).digest(),
        model=asked.model,
        tier=asked.tier,
        meters=asked.meters,
        ask=_ask(asked),
        most_demand=None if asked.demand is UNSET else multipliers.parse(asked.demand),
    )
    answer = await holds.place(arriving.context, placing)
    return Reply(msgspec.json.encode(holds.document(answer.stored)), 201, answer.replayed)


async def receive_extend(arriving: Arriving) -> Reply:
    """The next grant."""
    provider = _bearer(arriving)
    asked = _decoded(await arriving.body(), _read_extension)
    answer = await holds.extend(
        arriving.context,
        Extending(
            provider=provider,
            hold=arriving.path_params["hold_id"],
            grant=asked.grant,
            output_tokens=None if asked.output_tokens is UNSET else asked.output_tokens,
            meters=None if asked.meters is UNSET else asked.meters,
        ),
    )
    return Reply(msgspec.json.encode(holds.document(answer.stored)))


async def receive_release(arriving: Arriving) -> Reply:
    """The end of a hold that nothing is taken of."""
    releasing = Releasing(_bearer(arriving), arriving.path_params["hold_id"])
    answer = await holds.release(arriving.context, releasing)
    return Reply(msgspec.json.encode(holds.document(answer.stored)))


hot = (
    HotRoute(re.compile("/v1/holds"), receive_place),
    HotRoute(re.compile("/v1/holds/(?P<hold_id>[^/]{1,64})/extend"), receive_extend),
    HotRoute(re.compile("/v1/holds/(?P<hold_id>[^/]{1,64})/release"), receive_release),
)
"""Those above are what the OpenAPI document describes."""


def _bearer(arriving: Arriving) -> Credential:
    """The provider's key as it was sent; whether it is one is asked in the transaction."""
    given = arriving.values(b"authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("api_key_missing", "send one header Authorization: Bearer cu_...")
    found = authentication.credential(token)
    if found is None:
        raise Unauthenticated("key_unknown", "this is not a valid API key")
    return found


def _decoded(body: bytes, read: msgspec.json.Decoder[Form]) -> Form:
    """The document that a body is. Raises Malformed, as strictjson does or ``document_malformed``.

    What msgspec takes and strictjson refuses are keys that come twice, escapes, and a sign before zero. A body without
    any of them, where colons are as many as members, is read at once; any other is read strictly.
    """
    try:
        form = read.decode(body)
        if body.count(b":") == _members(form) and b"\\" not in body and _SIGNED.search(body) is None:
            return form
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # read strictly, to say what is wrong
    return _strictly(body, read.type)


def _members(form: Struct) -> int:
    """How many members the JSON object has that was read, with those in it."""
    count = 0
    for value in astuple(form):
        if value is not UNSET:
            count += 1
            if isinstance(value, dict):
                count += len(value)
            elif isinstance(value, Struct):
                count += _members(value)
    return count


def _strictly(body: bytes, form: type[Form]) -> Form:
    try:
        return msgspec.convert(strictjson.loads(body), form)
    except msgspec.ValidationError as error:
        message = str(error)
        match = _PATH.search(message)
        steps = re.findall(r"[A-Za-z0-9_.]+", match.group(1).replace("[...]", "")) if match else []
        pointer = "".join(f"/{step}" for step in ".".join(steps).split(".") if step)
        detail = message[: match.start()] if match else message
        raise _malformed(pointer, detail) from None


def _request_id(text: str, now: datetime) -> str:
    if not _UUID.fullmatch(text):
        raise _malformed("/request", "a UUIDv7 in lower case", "id_malformed")
    if abs(int(text[:8] + text[9:13], 16) - ids.micros(now) // 1_000) > _SKEW:
        raise _malformed("/request", "its time is more than 5 minutes from our clock", "id_malformed")
    return text


def _ask(asked: HoldRequest) -> Ask:
    maximum = None if asked.max_output_tokens is UNSET else asked.max_output_tokens
    size = None if asked.output_tokens is UNSET else asked.output_tokens
    if size and size < (SMALLEST_SLICE if maximum is None else min(SMALLEST_SLICE, maximum)):
        raise _malformed("/output_tokens", f"a slice has at least {SMALLEST_SLICE} output tokens")
    final = _STOP if asked.final is UNSET else asked.final
    if (final.action == "absorb") != (final.limit is not UNSET):
        raise _malformed("/final", "`limit` goes with the action absorb, and only with it")
    return Ask(
        max_output_tokens=maximum,
        output_tokens=size,
        requests=1 if asked.requests is UNSET else asked.requests,
        expires_in=None if asked.expires_in is UNSET else asked.expires_in,
        final_action=final.action,
        absorb=0 if final.limit is UNSET else amount_in(final.limit, 6, "/final/limit"),
    )


def _malformed(pointer: str, detail: str, code: str = "invalid") -> Malformed:
    problems = (Problem(pointer, code, detail),)
    return Malformed("document_malformed", "the body does not have the documented form", problems)
