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

_DASHES = np.array([8, 13, 18, 23])
_DIGITS = np.array([column for column in range(36) if column not in (8, 13, 18, 23)])
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


def coded(values: Sequence[Value]) -> tuple[tuple[Value, ...], Small]:
    """The distinct values in order of first use, and each value's place among them."""
    places: dict[Value, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return tuple(places), np.array(codes, np.int32)


def uuid7_column(ids: Sequence[str]) -> tuple[Bytes, Integers]:
    """The 16 bytes of each id, and its time in milliseconds since 1970.

    Raises Malformed with a pointer for each id that isn't UUIDv7 text in lower case (RFC 9562).
    """
    if any(length != 36 for length in set(map(len, ids))):
        raise _malformed_ids(line for line, text in enumerate(ids) if len(text) != 36)
    try:
        text = np.frombuffer("".join(ids).encode("ascii"), np.uint8).reshape(-1, 36)
    except UnicodeEncodeError:
        raise _malformed_ids(line for line, text in enumerate(ids) if not text.isascii()) from None
    nibbles = _NIBBLE[text[:, _DIGITS]]
    good = (text[:, _DASHES] == ord("-")).all(axis=1) & (nibbles < 16).all(axis=1)
    good &= (nibbles[:, 12] == 7) & (nibbles[:, 16] & 0b1100 == 0b1000)
    if not good.all():
        raise _malformed_ids(np.flatnonzero(~good).tolist())
    packed = np.ascontiguousarray(nibbles[:, 0::2] << 4 | nibbles[:, 1::2], np.uint8)
    milliseconds = np.zeros(len(ids), np.int64)
    for column in range(6):
        milliseconds = milliseconds << 8 | packed[:, column]
    return packed, milliseconds


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
    marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"), (width - 1, "Z")] + (
        [(19, ".")] if width > 20 else []
    )
    columns = [column for column, _ in marks]
    if not (text[:, columns] == np.frombuffer("".join(mark for _, mark in marks).encode(), np.uint8)).all():
        return None
    digits = (text - ord("0")).astype(np.int64)
    rest = [column for column in range(width) if column not in columns]
    if (digits[:, rest] > 9).any():
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


def _number(digits: Integers, start: int, end: int) -> Integers:
    value = digits[:, start]
    for column in range(start + 1, end):
        value = value * 10 + digits[:, column]
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
