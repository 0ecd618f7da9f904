"""A small client for the HTTP API: registration, funding, signed reports, and reading.

One class, because every participant does the same three things: sign a body with its key, send an API key, and read.
Amounts stay the decimal strings that the API speaks. Errors come as `ApiProblem` with the service's own code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx2

from settlement.core import canonical, times
from settlement.core.signatures import REPORT_TYPE, SigningKey, sign_detached

Document = dict[str, Any]


class ApiProblem(Exception):
    """The service refused: `status`, `code` and `document` are its problem+json (RFC 9457)."""

    def __init__(self, status: int, document: Document) -> None:
        super().__init__(f"{status} {document.get('code')}: {document.get('detail')}")
        self.status = status
        self.code = str(document.get("code"))
        self.document = document


class Client:
    """A participant at one service. After `register_...` it keeps its id and API key in `id` and `api_key`."""

    def __init__(
        self, base_url: str, key: SigningKey | None = None, *, participant: str = "", api_key: str = ""
    ) -> None:
        self.key = key
        self.id = participant
        self.api_key = api_key
        self._http = httpx2.AsyncClient(base_url=base_url, timeout=120)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def register_consumer(self, name: str) -> Document:
        """Register this client's key as a consumer's."""
        return self._registered(await self._signed("/v1/accounts", "register-consumer", name=name, key=self._jwk()))

    async def register_provider(
        self, name: str, *, payout: Document | None = None, owner: Client | None = None
    ) -> Document:
        """Register this client's key as a provider's.

        `payout` names chain, asset and address; `owner` is the consumer of the same company, which signs as well.
        """
        members: Document = {"name": name, "key": self._jwk()}
        if payout is not None:
            members["payout"] = payout
        if owner is not None:
            members["account"] = owner.id
        return self._registered(await self._signed("/v1/providers", "register-provider", owner, **members))

    async def funding_intent(self, chain: str, asset: str, amount: str | None, idempotency_key: str) -> Document:
        """Where and with which reference to pay."""
        asked: Document = {"chain": chain, "asset": asset}
        if amount is not None:
            asked["amount"] = amount
        return await self._send("POST", "/v1/funding-intents", asked, {"Idempotency-Key": idempotency_key})

    async def submit_report(self, body: bytes) -> Document:
        """Sign the exact bytes of a usage report and send them; the answer holds the receipt."""
        return await self._post("/v1/usage-reports", body, {"x-jws-signature": self._signature(body, REPORT_TYPE)})

    async def get(self, path: str, **query: str) -> Document:
        """Read a document."""
        return await self._send("GET", path, None, {}, query)

    def _registered(self, answer: Document) -> Document:
        self.id, self.api_key = answer["id"], answer["api_key"]
        return answer

    def _jwk(self) -> Mapping[str, str]:
        return self._own_key().public.jwk()

    def _own_key(self) -> SigningKey:
        if self.key is None:
            raise ValueError("this client has no signing key")
        return self.key

    def _signature(self, body: bytes, typ: str | None = None) -> str:
        return sign_detached(self._own_key(), body, typ)

    async def _signed(self, path: str, purpose: str, owner: Client | None = None, **members: object) -> Document:
        body = json.dumps({"purpose": purpose, "at": times.text(datetime.now(UTC)), **members}).encode()
        headers = {"x-jws-signature": self._signature(body)}
        if owner is not None:
            headers["x-jws-signature-account"] = owner._signature(body)
        return await self._post(path, body, headers)

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Document:
        return _answer(await self._http.post(path, content=body, headers={**_JSON, **headers}))

    async def _send(
        self,
        method: str,
        path: str,
        document: Document | None,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> Document:
        sent = {**headers, "Authorization": f"Bearer {self.api_key}"} if self.api_key else dict(headers)
        content = None if document is None else json.dumps(document).encode()
        if content is not None:
            sent |= _JSON
        return _answer(await self._http.request(method, path, content=content, headers=sent, params=query or {}))


_JSON = {"Content-Type": "application/json"}


class ReportWriter:
    """Numbers and chains a provider's reports: `seq` and `prev` (usage/1)."""

    def __init__(self, provider: str, *, seq: int = 0, previous: str | None = None) -> None:
        self.provider = provider
        self.seq = seq
        self.previous = previous

    def write(self, records: Sequence[Mapping[str, Any]]) -> bytes:
        """The exact bytes of the next report; sign and send these and no others."""
        self.seq += 1
        document = {
            "v": 1,
            "provider": self.provider,
            "report": f"report-{self.seq}",
            "seq": self.seq,
            "prev": self.previous,
            "records": list(records),
        }
        body = json.dumps(document, separators=(",", ":")).encode()
        self.previous = canonical.digest(body)
        return body


def _answer(response: httpx2.Response) -> Document:
    try:
        document = response.json()
    except ValueError:
        document = {"code": "no_json", "detail": response.text[:200]}
    if response.status_code >= 400:
        raise ApiProblem(response.status_code, document)
    found: Document = document
    return found
