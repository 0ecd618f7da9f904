"""Canonical JSON (RFC 8785) for the documents that the service itself writes, and the text form of digests.

Only a subset is taken, in which every JSON implementation agrees: objects with ASCII keys, arrays, strings, integers
below 2^53 in magnitude, booleans and null. There are no floats; amounts are strings. With ASCII keys the order of
UTF-16 code units, which RFC 8785 asks for, is the order of the characters, so the standard encoder's sorting is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NoReturn

from settlement.core.errors import Malformed

MAX_INTEGER = 2**53 - 1
"""Integers beyond this are not the same number in every JSON implementation (RFC 8785 3.2.2.3, RFC 7493 2.2)."""

MAX_DEPTH = 64
"""Deeper than any document taken from outside (`strictjson.MAX_DEPTH`) with our own members around it."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_encoder = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)


def encode(value: object) -> bytes:
    """The canonical bytes of a value made of dicts, lists, tuples, strings, integers, booleans and None.

    Raises Malformed ``canonical_value`` for any other type, an integer beyond 2^53 - 1, a key that is not ASCII text,
    text that is not Unicode (a lone surrogate), or nesting deeper than `MAX_DEPTH`.
    """
    _check(value, 0)
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError:
        _refuse("text with a lone surrogate has no UTF-8 form")


def digest(data: bytes) -> str:
    """``sha256:`` and the lower-case hex SHA-256 of the bytes."""
    return "sha256:" + sha256(data).hexdigest()


def digest_raw(text: str) -> bytes:
    """The 32 bytes that a digest text names. Raises Malformed ``digest_malformed`` for anything but its exact form."""
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise Malformed("digest_malformed", "a digest is sha256: and 64 lower-case hexadecimal digits")
    return bytes.fromhex(match.group(1))


def _check(value: object, depth: int) -> None:
    """Refuses what the encoder would write in a form of its own. Recursion ends at `MAX_DEPTH`, cycles included."""
    if depth > MAX_DEPTH:
        _refuse(f"nesting is deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        try:
            ascii_keys = "".join(value).isascii()
        except TypeError:
            ascii_keys = False
        if not ascii_keys:
            _refuse("a key is not ASCII text")
        _check_each(value.values(), depth)
    elif isinstance(value, (list, tuple)):
        _check_each(value, depth)
    elif isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            _refuse("an integer is beyond 2^53 - 1; amounts are strings")
    elif value is not None and not isinstance(value, str):
        _refuse(f"a {type(value).__name__} has no place in a canonical document")


def _check_each(members: Iterable[object], depth: int) -> None:
    for member in members:
        if type(member) is int and -MAX_INTEGER <= member <= MAX_INTEGER:
            continue
        if type(member) is not str:
            _check(member, depth + 1)


def _refuse(detail: str) -> NoReturn:
    raise Malformed("canonical_value", detail)
