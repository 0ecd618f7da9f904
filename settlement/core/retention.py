"""The rules of retention as a section of the policy: how long rows, salts and evidence are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from settlement.core import canonical

SHORTEST = timedelta(days=37)
"""A record may arrive 35 days late and its id be a minute off: until then the database must know it as charged."""


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How long what is kept. Spans begin at the close of an anchored window."""

    keep_rows: timedelta = timedelta(days=90)
    """Records and signed bodies stay in the database at least this long; then they may leave as sealed segments."""
    keep_salts: timedelta = timedelta(days=90)
    """A salt key stays at least this long, whatever is asked: disputes over its window must have ended."""
    keep_evidence: timedelta = timedelta(days=3653)
    """Segments and books are kept at least this long. Nothing of ours deletes them."""
    data_map: str = ""
    """Digest of the data map (`core.datamap`) that was agreed on; empty: none was."""

    def __post_init__(self) -> None:
        if not SHORTEST <= self.keep_rows <= self.keep_evidence:
            raise ValueError("37 days <= keep_rows <= keep_evidence does not hold")
        if not timedelta() <= self.keep_salts <= self.keep_evidence:
            raise ValueError("0 <= keep_salts <= keep_evidence does not hold")
        if self.data_map:
            canonical.digest_raw(self.data_map)
