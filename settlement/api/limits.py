"""How often one principal may ask: a token bucket for each, in this process.

Counted after authentication, so that nobody can use up another's share by naming its key. Each API process counts for
itself: with n of them a principal has up to n times the rate. It keeps a mistake from becoming a flood; it is no quota.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from settlement.core.errors import Refused

_MOST_BUCKETS = 10_000
_NANOSECONDS = 10**9
_WINDOW = 60


class TooMany(Refused):
    """The principal has asked too often."""

    status = 429

    def __init__(self, seconds: int, headers: dict[str, str]) -> None:
        super().__init__("rate_limited", f"too many requests; wait {seconds} s")
        self.headers = {"Retry-After": str(seconds), **headers}


class Buckets:
    """`per_minute` requests for each principal, all of them at once if need be."""

    def __init__(self, per_minute: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        if per_minute < 1:
            raise ValueError("at least one request a minute must be allowed")
        self._size = per_minute
        self._cost = _WINDOW * _NANOSECONDS // per_minute
        self._clock = clock_ns
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def take(self, principal: str) -> dict[str, str]:
        """Count one request; the headers RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers).

        A bucket is one number: when it will be full again. Raises TooMany, which carries the headers too.
        """
        now = self._clock()
        full_at = max(self._full_at.get(principal, now), now) + self._cost
        left = (self._size * self._cost - (full_at - now)) // self._cost
        policy = {"RateLimit-Policy": f'"default";q={self._size};w={_WINDOW}'}
        if left < 0:
            wait = -(-(full_at - now - self._size * self._cost) // _NANOSECONDS)
            raise TooMany(wait, {**policy, "RateLimit": f'"default";r=0;t={wait}'})
        self._full_at[principal] = full_at
        self._full_at.move_to_end(principal)
        while len(self._full_at) > _MOST_BUCKETS:
            self._full_at.popitem(last=False)
        return {**policy, "RateLimit": f'"default";r={left};t={-(-(full_at - now) // _NANOSECONDS)}'}
