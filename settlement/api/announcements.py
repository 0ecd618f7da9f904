"""Files that a network's wallets look for on the domain that the service's accounts name, such as ``stellar.toml``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import PlainTextResponse

from settlement.api.dependencies import ContextDep, StrictRoute
from settlement.services import announcements

router = APIRouter(tags=["service"], route_class=StrictRoute)

_HEADERS = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"}
"""Wallets are web pages of other domains (SEP-1)."""


@router.get(
    "/.well-known/{name}",
    operation_id="getAnnouncement",
    summary="What a network's wallets look for here",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"example": 'VERSION = "2.7.0"\n'}}}},
)
async def announcement(
    context: ContextDep, name: Annotated[str, Path(max_length=64, examples=["stellar.toml"])]
) -> PlainTextResponse:
    """`stellar.toml` (SEP-1) where the service settles on Stellar and has a domain. Any origin may read it."""
    return PlainTextResponse(await announcements.file(context, name), headers=_HEADERS)
