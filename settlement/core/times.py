"""Times as text: RFC 3339, UTC, ending in ``Z``, at most microseconds. Spans are half-open."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from settlement.core.errors import Malformed

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T([01]\d|2[0-3]):\d{2}:\d{2}(\.\d{1,6})?Z", re.ASCII)


def text(at: datetime) -> str:
    """``2026-11-22T00:00:00.123456Z``; the fraction is left out when it is zero. `at` must be aware."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.isoformat()[:-6] + "Z"  # without its +00:00


def parse(value: str) -> datetime:
    """The aware UTC time that RFC 3339 text names. Raises Malformed ``time_malformed``."""
    if _TIME.fullmatch(value) is None:
        raise Malformed("time_malformed", "a time is RFC 3339 in UTC, such as 2026-11-22T00:00:00.123456Z")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise Malformed("time_malformed", "no such date or time of day") from None
