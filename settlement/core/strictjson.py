"""JSON from strangers, refused before anything is built from it.

The standard parser is fast and lenient: of two equal keys the last wins, NaN and 1e400 become floats, a number of
4,000 digits becomes an integer, and 100,000 brackets exhaust the stack. Each of these is refused here, most of them
by a scan of the raw bytes that uses only linear, compiled primitives. The checks run in this order and the first one
broken is named: empty, mark, encoding, NUL byte, depth, numbers, escapes, syntax, trailing data, duplicate keys.

How the scan sees structure: escaped backslashes and quotes are blanked, so that every quote left begins or ends a
string; splitting at quotes then leaves what is outside of strings in the even pieces. In a body that isn't JSON this
view is true up to the first error, and the parser stops at that error: so it never meets a depth that wasn't counted.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from settlement.core.errors import Malformed

MAX_DEPTH = 32
MAX_DIGITS = 19

_OUTSIDE = bytes(
    ord("0") if chr(byte) in "0123456789" else ord("e") if chr(byte) == "E" else byte for byte in range(256)
)
_BRACKETS = bytes(ord("[") if byte in b"[{" else ord("]") if byte in b"]}" else byte for byte in range(256))
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_FRACTION = re.compile(rb"[0-9][.eE]")
_LONG = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_NEGATIVE_ZERO = re.compile(rb"-0(?![0-9])")
_CONSTANT = re.compile(rb"NaN|Infinity")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(body: bytes) -> Any:
    """The value of a JSON text in UTF-8: dicts, lists, strings, integers, booleans and None; never a float.

    Raises Malformed with status 400 when the bytes are not JSON (``json_empty``, ``json_bom``, ``json_encoding``,
    ``json_nul_byte``, ``json_not_finite``, ``json_malformed``, ``json_trailing_data``) and 422 when they are JSON that
    is not taken here: ``json_too_deep`` (over 32 levels), ``json_number_not_integer`` (a point or an exponent),
    ``json_number_too_long`` (over 19 digits), ``json_negative_zero``, ``json_nul_escape``, ``json_lone_surrogate``,
    ``json_duplicate_key``. The detail names the byte where it is known. Linear in the length of the body, which
    the caller must have capped.
    """
    text = _decode(body)
    _scan(body)
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        if error.msg == "Extra data":
            _refuse("json_trailing_data", "something follows the JSON value", offset, 400)
        _refuse("json_malformed", f"not JSON: {error.msg}", offset, 400)


def _decode(body: bytes) -> str:
    if not body or body.isspace():
        _refuse("json_empty", "the body is empty", 0, 400)
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        _refuse("json_bom", "the body begins with a byte order mark", 0, 400)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse("json_encoding", "the body is not UTF-8", error.start, 400)
    if b"\0" in body:
        _refuse("json_nul_byte", "the body has a NUL byte", body.index(b"\0"), 400)
    return text


def _scan(body: bytes) -> None:
    # A run of backslashes pairs up from its left end, and so does replace(). Blanks keep every offset as it was.
    plain = body.replace(b"\\\\", b"xx").replace(b'\\"', b"xx") if b"\\" in body else body
    pieces = plain.split(b'"')
    outside = b'"'.join(pieces[::2])
    if _depth_exceeds(outside):
        _refuse("json_too_deep", f"nesting is deeper than {MAX_DEPTH} levels", _deep_offset(pieces), 422)
    shape = outside.translate(_OUTSIDE)
    if b"0." in shape or b"0e" in shape:
        _refuse_at(_FRACTION, pieces, "json_number_not_integer", "a number has a point or an exponent", 422)
    if b"0" * (MAX_DIGITS + 1) in shape:
        _refuse_at(_LONG, pieces, "json_number_too_long", f"a number has more than {MAX_DIGITS} digits", 422)
    if b"-0" in outside and _NEGATIVE_ZERO.search(outside):
        _refuse_at(_NEGATIVE_ZERO, pieces, "json_negative_zero", "zero has a minus sign", 422)
    if b"NaN" in outside or b"Infinity" in outside:
        _refuse_at(_CONSTANT, pieces, "json_not_finite", "NaN and Infinity are not JSON", 400)
    if b"\\u" in plain:
        _scan_escapes(plain)


def _scan_escapes(plain: bytes) -> None:
    nul = plain.find(b"\\u0000")
    if nul >= 0:
        _refuse("json_nul_escape", "text has a NUL character", nul, 422)
    lone = _SURROGATE.search(_PAIR.sub(b"x" * 12, plain))
    if lone:
        _refuse("json_lone_surrogate", "text has half of a surrogate pair", lone.start(), 422)


def _depth_exceeds(outside: bytes) -> bool:
    """Whether brackets nest deeper than `MAX_DEPTH` before the first one that closes nothing.

    Each round removes the innermost pairs everywhere at once, so a balanced text of depth n is gone after n rounds.
    """
    brackets = outside.translate(_BRACKETS, _NOT_BRACKETS)
    left = brackets
    for _ in range(MAX_DEPTH):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return bool(left) and _first_too_deep(brackets) >= 0


def _first_too_deep(text: bytes) -> int:
    depth = 0
    for offset, byte in enumerate(text):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return offset
        elif byte in b"]}":
            depth -= 1
            if depth < 0:
                return -1
    return -1


def _blanked(pieces: list[bytes]) -> bytes:
    """The body with the inside of its strings blanked, every offset as it was. Only made to report an error."""
    return b'"'.join(b" " * len(piece) if number % 2 else piece for number, piece in enumerate(pieces))


def _deep_offset(pieces: list[bytes]) -> int:
    return _first_too_deep(_blanked(pieces))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Malformed("json_duplicate_key", f"the key {key[:64]!a} comes twice in one object")
            seen.add(key)
    return members


_decoder = json.JSONDecoder(object_pairs_hook=_unique)


def _refuse_at(pattern: re.Pattern[bytes], pieces: list[bytes], code: str, detail: str, status: int) -> NoReturn:
    found = pattern.search(_blanked(pieces))
    _refuse(code, detail, found.start() if found else 0, status)


def _refuse(code: str, detail: str, offset: int, status: int) -> NoReturn:
    raise Malformed(code, f"{detail} (at byte {offset})", status=status)
