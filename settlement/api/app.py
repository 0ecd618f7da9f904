"""The HTTP application: routers, the guard in front of them, and an OpenAPI document that is complete."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from governance.proposals import MOST_BYTES
from settlement.api import (
    accounts,
    announcements,
    api_keys,
    balance_rules,
    budgets,
    checkpoints,
    datamap,
    demand,
    disputes,
    erasures,
    funding,
    holds,
    keys,
    meta,
    offers,
    payouts,
    problems,
    proofs,
    providers,
    quotes,
    rates,
    reputation,
    statements,
    surcharges,
    usage_records,
    usage_reports,
    value,
    webhooks,
    windows,
    withdrawals,
)
from settlement.api.dependencies import Settings, State
from settlement.api.guard import Guard
from settlement.api.hot import Application
from settlement.api.limits import Buckets
from settlement.api.shapes import In, Out
from settlement.api.traffic import Traffic
from settlement.core import offers as offer
from settlement.core.usage import MAX_BODY
from settlement.services.context import Context

BODY_CAPS = {
    "/v1/usage-reports": MAX_BODY,
    "/v1/providers/me/offers": offer.MAX_BODY,
    "/v1/governance/proposals": MOST_BYTES,
}
"""Routes that take more than the guard's general cap, in bytes."""

ROUTERS: tuple[APIRouter, ...] = (
    meta.router,
    announcements.router,
    rates.router,
    windows.router,
    withdrawals.router,
    checkpoints.router,
    accounts.router,
    providers.router,
    offers.router,
    reputation.router,
    keys.router,
    api_keys.router,
    budgets.router,
    disputes.router,
    balance_rules.router,
    funding.router,
    holds.router,
    quotes.router,
    payouts.router,
    proofs.router,
    statements.router,
    usage_records.router,
    demand.router,
    surcharges.router,
    value.router,
    webhooks.router,
    datamap.router,
    erasures.router,
    usage_reports.router,
)

_DESCRIPTION = """Providers send signed usage reports, everybody is netted per window, payouts and an anchor go out on a
chain, and a stranger can check the result.

Amounts of CU are decimal strings with at most 6 places, chain amounts decimal strings in the asset's own scale, times
RFC 3339 in UTC. Every error is `application/problem+json` (RFC 9457) with a stable `code`. Lists are
`{data, has_more, next_cursor}`. Signed calls carry `purpose` and `at` in their body: a signature is good for one call,
for five minutes, once."""


def create_app(
    context: Context,
    settings: Settings | None = None,
    *,
    routers: Sequence[APIRouter] = (),
    traffic: Traffic | None = None,
) -> FastAPI:
    """The application over a context that the caller opens and closes; nothing is started here.

    `routers` come from the floors above (governance, console); `traffic` counts for more processes than this one.
    """
    settings, traffic = settings or Settings(), traffic or Traffic()
    guarded = partial(Guard, entropy=context.sources.entropy, traffic=traffic, body_caps=BODY_CAPS)
    app = Application(
        context,
        hot=(*holds.hot, usage_reports.hot),
        guarded=guarded,
        title="Compute settlement",
        version="0.1.0",
        summary="The clearing house of the LLM economy",
        description=_DESCRIPTION,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settlement = State(context, settings, Buckets(settings.requests_per_minute), traffic)
    problems.install(app)
    for router in (*ROUTERS, *routers):
        app.include_router(router)
    app.add_middleware(guarded)
    app.state.routers = (*ROUTERS, *routers)
    # FastAPI documents replacing this method as the way to change its document.
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _restore_nulls(app: FastAPI, found: dict[str, Any]) -> None:
    """Put examples and bodies that are described by hand back as they were: FastAPI drops their null members."""
    schemas = found["components"]["schemas"]
    for model in (*In.__subclasses__(), *Out.__subclasses__()):
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in schemas and isinstance(extra, dict):
            schemas[model.__name__].update(extra)
    for route in (route for router in app.state.routers for route in router.routes):
        described = route.openapi_extra if isinstance(route, APIRoute) else None
        if isinstance(route, APIRoute) and described and "requestBody" in described:
            for method in route.methods or ():
                found["paths"][route.path_format][method.lower()]["requestBody"] = described["requestBody"]


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with the one schema of all errors in the place of its own."""
    if app.openapi_schema:
        return app.openapi_schema
    found = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = problems.ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    answer = {
        "description": "An error; docs/reference/errors.md lists the codes.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = answer
    _restore_nulls(app, found)
    app.openapi_schema = found
    return found
