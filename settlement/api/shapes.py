"""What request and answer documents are made of: strict models, times, keys, amounts, pages."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from settlement.chain import Asset
from settlement.core import times
from settlement.core.errors import Malformed, NotFound, Problem
from settlement.core.signatures import parse_base64url
from settlement.core.units import decimal_text, parse_decimal
from settlement.services.context import Context
from settlement.storage.parties import PayoutAddress

Example = dict[str, Any]
"""An example document of the OpenAPI description."""

EXAMPLE_TIME = "2026-11-22T00:00:00Z"
EXAMPLE_CONSUMER = "acc_01kamk5q0r7v3c9x2m4n6p8q0s"
EXAMPLE_PROVIDER = "prv_01kamk5q0r5t7v9x1z3b5d7f9h"
EXAMPLE_KID = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
EXAMPLE_JWK: Example = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
EXAMPLE_DIGEST = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
EXAMPLE_KEY_ID = "key_01kamk5q0r2c4e6g8j0m2p4r6t"

_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_CURSOR = re.compile(r"([a-z]{3})_([0-9a-z]{1,40})", re.ASCII)


class In(BaseModel):
    """A document from outside: exactly these members, exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Out(BaseModel):
    """A document of ours."""

    model_config = ConfigDict(frozen=True)


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise PydanticCustomError("time_malformed", "a time is text")
    try:
        return times.parse(value)
    except Malformed as error:
        raise PydanticCustomError("time_malformed", "{detail}", {"detail": error.detail}) from None


Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 in UTC, ending in Z, at most microseconds."""

PublicJwk = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "description": "a public Ed25519 JWK (RFC 8037); kid, use and alg are checked when present",
            "required": ["kty", "crv", "x"],
            "properties": {
                "kty": {"const": "OKP"},
                "crv": {"const": "Ed25519"},
                "x": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
                "kid": {"type": "string"},
                "use": {"const": "sig"},
                "alg": {"enum": ["Ed25519", "EdDSA"]},
            },
            "additionalProperties": False,
        }
    ),
]

Cu = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]{1,6})?$", description="CU, at most 6 decimal places")]
Amount = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$", description="in the asset's own scale")]
Limit = Annotated[int, Query(ge=1, le=200, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=128, description="the `next_cursor` of the page before")]


class AddressProofIn(In):
    """The address's own signature of the text of docs/reference/address-proof.md that has this time."""

    at: Time
    signature: str = Field(min_length=1, max_length=512)
    public_key: str = Field("", max_length=130, description="where an address is a hash of its key")


class PayoutIn(In):
    """Where to pay. `proof` says that the address is yours; a consumer's needs one."""

    chain: str = Field(max_length=32, description="a chain of this service, such as `simulated`")
    asset: str = Field(max_length=128, description="`CODE` or `CODE:issuer`")
    address: str = Field(min_length=1, max_length=128)
    reference: int | None = Field(None, ge=0, lt=2**63, description="the payee's destination tag or memo id")
    proof: AddressProofIn | None = None


class PayoutOut(Out):
    """A payout address and when it came or comes into force."""

    chain: str
    asset: str
    address: str
    reference: int | None
    proven: bool
    valid_from: str


def payout_out(address: PayoutAddress | None) -> PayoutOut | None:
    """A payout address as it is shown."""
    if address is None:
        return None
    return PayoutOut(
        chain=address.chain,
        asset=address.asset,
        address=address.address,
        reference=address.reference,
        proven=address.proof is not None,
        valid_from=times.text(address.valid_from),
    )


def amount_in(text: str, places: int, pointer: str, *, above_zero: str = "") -> int:
    """The integer of 10^-places that a member of a body names; `above_zero` is said when it is nothing and may not be.

    Raises Malformed ``amount_malformed``, which points at the member.
    """
    try:
        found = parse_decimal(text, places)
        if above_zero and not found:
            raise Malformed("amount_malformed", above_zero)
    except Malformed as error:
        raise Malformed(error.code, error.detail, (Problem(pointer, error.code, error.detail),)) from error
    return found


def chain_amount(context: Context, chain: str, asset: str, units: int) -> str:
    """The decimal text of an amount in an asset's smallest unit; whole units when the chain isn't served any more."""
    adapter = context.chains.get(chain)
    return decimal_text(units, adapter.facts.assets.get(Asset.parse(asset), 0) if adapter else 0)


def number(text: str, code: str, what: str) -> int:
    """A row number from a path. Raises NotFound with that code for whatever is none."""
    if not _NUMBER.fullmatch(text):
        raise NotFound(code, f"there is no {what} of that number")
    return int(text)


def window_number(text: str) -> int:
    """The number of a window id. Raises NotFound ``unknown_window``."""
    return number(text.removeprefix("win_") if text.startswith("win_") else "", "unknown_window", "window")


def cursor_text(kind: str, value: int | str) -> str:
    """An opaque cursor behind the row that `value` names, for lists of that kind (three letters)."""
    return urlsafe_b64encode(f"{kind}_{value}".encode()).rstrip(b"=").decode()


def cursor_value(kind: str, cursor: str | None) -> str | None:
    """What `cursor_text` was given; None without a cursor. Raises Malformed ``cursor_malformed``."""
    if cursor is None:
        return None
    raw = parse_base64url(cursor)
    match = _CURSOR.fullmatch(raw.decode("latin-1")) if raw else None
    if match is None or match.group(1) != kind:
        raise Malformed("cursor_malformed", "send the next_cursor of an earlier answer of this call, unchanged")
    return match.group(2)


def cursor_number(kind: str, cursor: str | None) -> int | None:
    """As `cursor_value`, for cursors made of a row number."""
    value = cursor_value(kind, cursor)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise Malformed("cursor_malformed", "send the next_cursor of an earlier answer of this call, unchanged")
    return int(value)
