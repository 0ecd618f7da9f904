"""Counting signatures: how many of the keys that may sign a document did, and is that enough.

What counts is distinct raw public keys: one key signing twice, or listed twice under two names, is one voice. A bad
signature never counts and never hides a good one; it is reported beside the count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from settlement.core.errors import Unauthenticated
from settlement.core.signatures import PublicKey, verify_document


@dataclass(frozen=True, slots=True)
class Rejected:
    """A signature that doesn't count: its place in the list, and the code and sentence that say why."""

    index: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Who signed and who is missing, as kids in sorted order, against the number that is needed."""

    threshold: int
    signed: tuple[str, ...]
    missing: tuple[str, ...]
    rejected: tuple[Rejected, ...]

    @property
    def reached(self) -> bool:
        """Whether enough distinct keys signed."""
        return len(self.signed) >= self.threshold


def tally(data: bytes, signatures: Sequence[Mapping[str, object]], keys: Iterable[PublicKey], threshold: int) -> Tally:
    """Counts the detached ``signatures`` over exactly ``data`` by the ``keys`` that may sign it.

    A key's second signature is listed as rejected with the code ``signature_repeated``; other codes are those of
    `settlement.core.signatures`. Raises ValueError for a threshold below 1 or above the number of distinct keys: such
    a rule is either no rule or never met.
    """
    trusted = {key.raw: key for key in keys}
    if not 1 <= threshold <= len(trusted):
        raise ValueError(f"a threshold of {threshold} makes no sense with {len(trusted)} distinct keys")
    by_kid = {key.kid: key for key in trusted.values()}
    signed: set[bytes] = set()
    rejected = []
    for index, signature in enumerate(signatures):
        try:
            raw = by_kid[verify_document(signature, data, by_kid.get)].raw
        except Unauthenticated as refusal:
            rejected.append(Rejected(index, refusal.code, refusal.detail))
            continue
        if raw in signed:
            rejected.append(Rejected(index, "signature_repeated", "this key has signed already; it counts once"))
        signed.add(raw)
    return Tally(
        threshold=threshold,
        signed=tuple(sorted(trusted[raw].kid for raw in signed)),
        missing=tuple(sorted(key.kid for raw, key in trusted.items() if raw not in signed)),
        rejected=tuple(rejected),
    )
