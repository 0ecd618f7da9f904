"""The rules of governing as a section of the policy, and the hash chain of the governance log.

An entry of the log is canonical JSON; its hash is SHA-256("CUG1" || u64 number || previous hash || u32 length ||
payload), big-endian, starting from 32 zero bytes: the journal's rule under a name of its own. The log's size and head
hash are a member of every checkpoint, so that what was decided can't be rewritten later (docs/reference/governance.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256

GENESIS = bytes(32)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class GovernanceRules:
    """Notice, time-lock and guard rails. ECONOMICS 5.5 gives the figures; all of them may be changed by policy."""

    notice: timedelta = 14 * DAY
    """From adoption to the time in force: rates that change, and the policy itself."""
    notice_addition: timedelta = 3 * DAY
    """The same for a table that only adds models, names or meters."""
    notice_correction: timedelta = 3 * DAY
    """The same for a table that is marked as the correction of an error."""
    notice_council: timedelta = 3 * DAY
    """The same for another council."""
    time_lock: timedelta = DAY
    """From adoption to enactment: the time in which the council can still stop what stolen keys adopted."""
    step: Fraction = Fraction(1, 5)
    """The largest relative change of one rate in one version without the higher threshold."""
    open_for: timedelta = 60 * DAY
    """How long a proposal may collect approvals."""
    longest_pause: timedelta = 3 * DAY
    """How far ahead an emergency pause may end."""
    rates_valid: timedelta = 400 * DAY
    """How long a rate table is good for. After that the last one keeps rating, and after `rates_grace` no new holds."""
    rates_grace: timedelta = 30 * DAY

    def __post_init__(self) -> None:
        shortest = min(self.notice, self.notice_addition, self.notice_correction, self.notice_council)
        if not timedelta(hours=1) <= self.time_lock < shortest:
            raise ValueError("the time-lock is at least an hour and ends before every notice does")
        if self.notice < max(self.notice_addition, self.notice_correction):
            raise ValueError("the notice of a change is not shorter than that of an addition or a correction")
        if not 0 <= self.step <= 1:
            raise ValueError("the step is a fraction from 0 to 1")
        if min(self.open_for, self.longest_pause, self.rates_valid, self.rates_grace) <= timedelta(0):
            raise ValueError("a span of time is not above zero")


@dataclass(frozen=True, slots=True)
class LogHead:
    """The end of the governance log: how many entries it has, and the last one's hash."""

    size: int
    hash: bytes

    def extended(self, payload: bytes) -> LogHead:
        """The head after one more entry with that payload."""
        size = self.size + 1
        head = b"CUG1" + size.to_bytes(8, "big") + self.hash + len(payload).to_bytes(4, "big")
        return LogHead(size, sha256(head + payload).digest())


EMPTY = LogHead(0, GENESIS)
