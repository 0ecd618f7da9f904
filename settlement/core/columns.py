"""Usage records as columns: ids and times of a whole report checked and turned into numbers at once.

A report of thousands of records is read column by column (decision 14): one pass over joined text with numpy instead of
a Python call for each record. Values that don't have the usual length are parsed one by one, with the same result.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from settlement.core import multipliers, times
from settlement.core.errors import Malformed, Problem
from settlement.core.ids import micros
from settlement.core.units import MAX_AMOUNT

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Value = TypeVar("Value", bound=Hashable)

_DASHES = (8, 13, 18, 23)


def coded(values: Sequence[Value]) -> tuple[tuple[Value, ...], Small]:
    """The distinct values in order of first use, and each value's place among them."""
    distinct = tuple(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct, np.zeros(len(values), np.int32)
    places = {value: place for place, value in enumerate(distinct)}
    return distinct, np.fromiter(map(places.__getitem__, values), np.int32, len(values))


def uuid7_column(ids: Sequence[str]) -> tuple[Bytes, Integers]:
    """The 16 bytes of each id, and its time in milliseconds since 1970.

    Raises Malformed with a pointer for each id that isn't UUIDv7 text in lower case (RFC 9562).
    """
    joined = "".join(ids)
    packed = _packed(ids, joined)
    if packed is None:
        raise _malformed_ids(line for line, text in enumerate(ids) if _packed([text], text) is None)
    good = (packed[:, 6] >> 4 == 7) & (packed[:, 8] >> 6 == 0b10)
    if not good.all():
        raise _malformed_ids(np.flatnonzero(~good).tolist())
    first = np.frombuffer(np.ascontiguousarray(packed[:, :8]), ">u8")
    return packed, np.asarray(first >> 16, np.int64)


def _packed(ids: Sequence[str], joined: str) -> Bytes | None:
    """The bytes of each UUID of `joined`, all of `ids` in one; None if one of them is no UUID in lower case."""
    if set(map(len, ids)) - {36} or not joined.isascii() or joined.lower() != joined:
        return None
    text = np.frombuffer(joined.encode(), np.uint8).reshape(-1, 36)
    digits = joined.replace("-", "")
    if len(digits) != 32 * len(ids) or any((text[:, dash] != ord("-")).any() for dash in _DASHES):
        return None
    try:
        found = bytes.fromhex(digits)  # skips white space, which then is missing at the end
    except ValueError:
        return None
    return np.frombuffer(found, np.uint8).reshape(-1, 16) if len(found) == 16 * len(ids) else None


def time_column(values: Sequence[str]) -> Integers:
    """Microseconds since 1970 of each RFC 3339 text. Raises Malformed with a pointer for each that isn't one."""
    lengths = set(map(len, values))
    if len(lengths) == 1 and lengths <= {20, 24, 27}:
        parsed = _fixed_width(values, lengths.pop())
        if parsed is not None:
            return parsed
    found = np.zeros(len(values), np.int64)
    problems = []
    for line, value in enumerate(values):
        try:
            found[line] = micros(times.parse(value))
        except Malformed as error:
            problems.append(Problem(f"/records/{line}/at", error.code, error.detail))
    if problems:
        raise Malformed("document_malformed", "the report has times that are not RFC 3339 UTC", tuple(problems[:20]))
    return found


def _fixed_width(values: Sequence[str], width: int) -> Integers | None:
    """``YYYY-MM-DDTHH:MM:SS[.fff[fff]]Z`` of one width; None when any value needs a closer look."""
    try:
        text = np.frombuffer("".join(values).encode("ascii"), np.uint8).reshape(-1, width)
    except UnicodeEncodeError:
        return None
    marks = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":", width - 1: "Z"} | ({19: "."} if width > 20 else {})
    digits = np.ascontiguousarray(text.T) - np.uint8(ord("0"))  # one row a character: what follows reads along rows
    for row, mark in marks.items():
        if (digits[row] != np.uint8(ord(mark) - ord("0") & 255)).any():
            return None
        digits[row] = 0
    if (digits > 9).any():
        return None
    year, month, day, hour, minute, second = (
        _number(digits, start, end) for start, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
    )
    if (month < 1).any() or (month > 12).any() or (hour > 23).any() or (minute > 59).any() or (second > 59).any():
        return None
    months = (year - 1970) * 12 + month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    following = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    if (day < 1).any() or (day > following - first).any() or (year < 1).any():
        return None
    seconds = (first + day - 1) * 86_400 + hour * 3_600 + minute * 60 + second
    fraction = _number(digits, 20, width - 1) * (1 if width == 27 else 1_000) if width > 20 else 0
    return np.asarray(seconds * 1_000_000 + fraction, np.int64)


def _number(digits: Bytes, start: int, end: int) -> Integers:
    value: Integers = digits[start].astype(np.int64)
    for row in range(start + 1, end):
        value *= 10
        value += digits[row]
    return value


def _malformed_ids(lines: object) -> Malformed:
    problems = [
        Problem(f"/records/{line}/id", "id_malformed", "a usage record's id is a UUIDv7 in lower case (RFC 9562)")
        for line in list(lines)[:20]  # type: ignore[call-overload]
    ]
    return Malformed("document_malformed", "the report has record ids that are not UUIDv7", tuple(problems))


def multiplied(charges: Integers, values: Integers) -> Integers:
    """Charges after one multiplier each, in ten-thousandths, rounded down; -1 where it does not fit or was -1."""
    quotients, rests = np.divmod(charges, multipliers.ONE)
    high = np.array(MAX_AMOUNT, np.int64) // np.maximum(values, 1)
    safe = (charges >= 0) & (quotients < high)  # q x v <= MAX - v, and the rest adds less than v
    products = np.where(safe, quotients, 0) * values + rests * values // multipliers.ONE
    for row in np.flatnonzero((charges >= 0) & ~safe).tolist():
        exact = multipliers.apply(int(charges[row]), int(values[row]))
        products[row] = exact if exact <= MAX_AMOUNT else -1
    return np.where(charges < 0, charges, products)
