"""Everything that can be refused, as one tree.

    SettlementError            anything this project raises on purpose; `code` is stable and documented
    ├── Refused                the caller asked for something that is not allowed; HTTP 4xx
    │   ├── Malformed          the bytes are not a document of ours (400/413/415/422)
    │   ├── Unauthenticated    no proof of who is asking (401)
    │   ├── Forbidden          known, but not allowed (403)
    │   ├── NotFound           no such thing for this caller (404)
    │   ├── Conflict           contradicts what is on record (409)
    │   └── Insufficient       not enough available balance (402)
    ├── Unavailable            try again later: a lock, a serialisation failure, a peer that is away (503)
    └── Broken                 an invariant or a proof does not hold; payouts halt

The codes and their HTTP statuses are listed in docs/reference/errors.md; a test compares that page with `CODES`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, at one place: a JSON pointer (RFC 6901; "" is all of it), a code, a sentence."""

    pointer: str
    code: str
    detail: str


class SettlementError(Exception):
    """Base of all errors raised on purpose. `code` is stable; `detail` says what is wrong and what to do."""

    status = 500

    def __init__(self, code: str, detail: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.problems = problems


class Refused(SettlementError):
    """The caller asked for something that is not allowed. Nothing was changed."""

    status = 400


class Malformed(Refused):
    """The bytes are not a document of ours. `status` may be narrowed to 413, 415 or 422 by the raiser."""

    def __init__(self, code: str, detail: str, problems: tuple[Problem, ...] = (), *, status: int = 422) -> None:
        super().__init__(code, detail, problems)
        self.status = status


class Unauthenticated(Refused):
    """No valid key or signature came with the request."""

    status = 401


class Forbidden(Refused):
    """The caller is known and may not do this."""

    status = 403


class NotFound(Refused):
    """Nothing by that name that this caller may see."""

    status = 404


class Conflict(Refused):
    """The request contradicts what is on record."""

    status = 409


class Insufficient(Refused):
    """Not enough available balance; `detail` names the missing amount, and `missing` has it in microCU where known."""

    status = 402

    def __init__(self, code: str, detail: str, missing: int | None = None) -> None:
        super().__init__(code, detail)
        self.missing = missing


class Unavailable(SettlementError):
    """A temporary condition; the same request may succeed later."""

    status = 503


class Broken(SettlementError):
    """An invariant or a proof does not hold. Payouts and anchors halt until a person has looked."""

    status = 500
