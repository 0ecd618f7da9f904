"""What routes ask for: the context, a strictly parsed body, the owner of an API key, the signed bytes.

No dependency holds a database session: every use case commits by itself before the answer is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from settlement.api.limits import Buckets
from settlement.api.traffic import Traffic
from settlement.core import strictjson
from settlement.core.errors import Forbidden, Unauthenticated
from settlement.services import authentication
from settlement.services.authentication import Principal
from settlement.services.context import Context

BEARER = HTTPBearer(
    scheme_name="apiKey",
    bearerFormat="cu_<id>_<secret>",
    description="`Authorization: Bearer cu_...`: for reading, and for what its scopes allow.",
    auto_error=False,
)
_signature = APIKeyHeader(
    name="x-jws-signature",
    scheme_name="jws",
    description="A detached JWS (RFC 7515, RFC 7797 `b64:false`, Ed25519) over the exact body, by a registered key.",
    auto_error=False,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decides about the API.

    `admit_providers`: ``open`` lets a provider report as soon as it is registered, ``review`` leaves it pending.
    `requests_per_minute`: for each API key, in each process. `webhook_targets`: ``any`` takes plain HTTP and addresses
    that are not public.
    """

    admit_providers: Literal["open", "review"] = "review"
    requests_per_minute: int = 600
    webhook_targets: Literal["public", "any"] = "public"


@dataclass(frozen=True, slots=True)
class State:
    """What `app.state.settlement` holds."""

    context: Context
    settings: Settings
    buckets: Buckets
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Signed:
    """A body as it came, and the value of ``x-jws-signature`` (empty without one). Nothing is verified yet."""

    body: bytes
    signature: str


class StrictRoute(APIRoute):
    """A route whose JSON body is read by `settlement.core.strictjson`, before the framework sees it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        reads_body = self.body_field is not None

        async def strictly(request: Request) -> Response:
            if reads_body:
                # Starlette keeps a parsed body in this attribute; the framework's own lenient parser is never asked.
                request._json = strictjson.loads(await request.body())
            return await handle(request)

        return strictly


def state_of(request: Request) -> State:
    """The state of the application."""
    found: State = request.app.state.settlement
    return found


def context_of(request: Request) -> Context:
    """The context of the application."""
    return state_of(request).context


def count(request: Request, principal: str) -> None:
    """Count this request against a principal that is known by now. Raises TooMany (429)."""
    request.scope["rate_limit_headers"] = state_of(request).buckets.take(principal)


def needs(scope: str, kind: Literal["consumer", "provider"] | None = None) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the owner of an API key with that scope, of that kind.

    Raises Unauthenticated ``api_key_missing`` or ``key_unknown``, TooMany, Forbidden ``scope_missing``,
    ``consumers_only`` or ``providers_only``.
    """

    async def authenticated(
        request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
    ) -> Principal:
        if bearer is None or len(request.headers.getlist("authorization")) != 1:
            raise Unauthenticated("api_key_missing", "send one header Authorization: Bearer cu_...")
        principal = await authentication.by_api_key(context_of(request), bearer.credentials)
        count(request, principal.key_id)
        if kind is not None and principal.party.kind != kind:
            raise Forbidden(f"{kind}s_only", f"this call is for {kind}s")
        if scope not in principal.scopes:
            raise Forbidden("scope_missing", f"this API key does not have the scope {scope}")
        return principal

    return authenticated


async def signed_of(request: Request, signature: Annotated[str | None, Security(_signature)]) -> Signed:
    """The exact body bytes and their signature. Raises Unauthenticated ``signature_malformed`` for several headers."""
    if len(request.headers.getlist("x-jws-signature")) > 1:
        raise Unauthenticated("signature_malformed", "send the header x-jws-signature once")
    return Signed(await request.body(), signature or "")


async def _context(request: Request) -> Context:
    return context_of(request)


async def _state(request: Request) -> State:
    return state_of(request)


ContextDep = Annotated[Context, Depends(_context)]
"""The context of the application. A coroutine, because the framework runs plain functions in a thread."""
StateDep = Annotated[State, Depends(_state)]
SignedDep = Annotated[Signed, Depends(signed_of)]
Reader = Annotated[Principal, Depends(needs("read"))]
ConsumerReader = Annotated[Principal, Depends(needs("read", "consumer"))]
ProviderReader = Annotated[Principal, Depends(needs("read", "provider"))]
