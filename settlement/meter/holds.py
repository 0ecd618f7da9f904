"""The holds of a service, as a provider's meter uses them (docs/reference/holds.md)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import httpx2

from settlement.core.errors import Unavailable

ATTEMPTS = 3
PAUSE = 0.1
"""Seconds before a request is sent again; every request here can be repeated."""

OURS = frozenset(
    ("api_key_missing", "key_unknown", "scope_missing", "providers_only", "provider_pending", "provider_suspended")
)
"""The service's refusals that are about the provider and its key."""
LOG = logging.getLogger("settlement.meter")


class HoldRefused(Exception):
    """The service refused: `status`, `code` and `document` are its problem+json."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {document.get('code')}: {document.get('detail')}")
        self.status = status
        self.code = str(document.get("code"))
        self.document = document


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as the service stated it last."""

    id: str
    consumer: str
    model: str
    tier: str
    rates: str
    amount: str
    grant: int
    output_tokens: int
    report_at: int
    final: Mapping[str, Any] | None
    expires_at: str

    @property
    def allowed(self) -> int:
        """Output tokens that may go out under it: what is granted, and what the provider absorbs."""
        return self.output_tokens + (int(self.final.get("output_tokens", 0)) if self.final else 0)


_MEMBERS = {each.name for each in fields(Hold)} - {"final"}


class Holds:
    """The calls. `http` has the service as its base and the provider's API key in its headers."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def create(self, consumer_key: str, body: Mapping[str, Any]) -> Hold:
        """Reserve input and a first slice.

        Raises HoldRefused, Unavailable ``service_unreachable`` and ``provider_refused``, about the provider itself.
        """
        return _hold(await self._post("/v1/holds", body, {"x-consumer-key": consumer_key}))

    async def extend(self, hold: Hold, grant: int, **more: Any) -> Hold:
        """Ask for grant number `grant`; with the present number, keep the hold alive."""
        return _hold(await self._post(f"/v1/holds/{hold.id}/extend", {"grant": grant, **more}, {}))

    async def release(self, hold: Hold) -> None:
        """Give the whole hold back."""
        await self._post(f"/v1/holds/{hold.id}/release", None, {})

    async def _post(self, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> dict[str, Any]:
        for attempt in range(ATTEMPTS):
            try:
                response = (
                    await self._http.post(path, json=body, headers=headers)
                    if body is not None
                    else (await self._http.post(path, headers={**headers, "content-type": "application/json"}))
                )
            except httpx2.HTTPError:
                response = None
            if response is not None and response.status_code < 500:
                break
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(PAUSE * 2**attempt)
        if response is None or response.status_code >= 500:
            raise Unavailable("service_unreachable", "the settlement service gives no answer; try again later")
        try:
            document = response.json()
        except ValueError:
            document = {"code": str(response.status_code), "detail": "no answer of a settlement service"}
        if document.get("code") in OURS:  # no consumer can mend it, or should take it for a matter of its own key
            LOG.error("the service refuses this provider: %s: %s", document["code"], document.get("detail"))
            raise Unavailable("provider_refused", "the settlement service refuses this provider; nothing is served")
        if response.status_code >= 400:
            raise HoldRefused(response.status_code, document)
        found: dict[str, Any] = document
        return found


def _hold(document: Mapping[str, Any]) -> Hold:
    if not document.keys() >= _MEMBERS:  # some other server answers at the service's address
        raise Unavailable("service_unreachable", "what answers is no settlement service")
    return Hold(
        id=document["id"],
        consumer=document["consumer"],
        model=document["model"],
        tier=document["tier"],
        rates=str(document["rates"]),
        amount=document["amount"],
        grant=document["grant"],
        output_tokens=document["output_tokens"],
        report_at=document["report_at"],
        final=document.get("final"),
        expires_at=document["expires_at"],
    )
