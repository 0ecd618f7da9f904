"""Answering with a stored document: its exact bytes, its signatures in headers, its digest as the ETag."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from settlement.storage.pages import Published

FOREVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "public, no-cache"

EXACT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The exact canonical bytes that the digest and every signature are over.",
        "headers": {
            "ETag": {"schema": {"type": "string"}, "description": "the digest of the bytes, in quotes"},
            "x-jws-signature": {
                "schema": {"type": "string"},
                "description": "detached JWS over the bytes, `protected..signature`; several are separated by commas",
            },
        },
    },
    304: {"description": "Not modified: If-None-Match names the digest."},
}
"""The `responses` of a route that answers so."""


def exact(request: Request, found: Published, cache: str, extra: dict[str, str] | None = None) -> Response:
    """The document, or 304 when the caller has it."""
    headers = {
        "ETag": f'"sha256:{found.digest.hex()}"',
        "Cache-Control": cache,
        "x-jws-signature": ", ".join(f"{each['protected']}..{each['signature']}" for each in found.signatures),
        **(extra or {}),
    }
    if has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(found.document, headers=headers, media_type="application/json")


def has_it(request: Request, etag: str) -> bool:
    """Whether If-None-Match says that the caller has this version (RFC 9110 13.1.2, weak comparison)."""
    named = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return etag in named or "*" in named
