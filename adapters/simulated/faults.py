"""What can go wrong between the service and the simulated network, how often, and from which seed.

A plan holds no state: the node keeps, in its own file, how often each kind was asked for and fired. The n-th question
of a kind always has the same answer for the same seed, in whichever process and after whichever crash it is asked.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from types import MappingProxyType

MILLION = 1_000_000

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "unreachable": "the node can't be asked; nothing happened",
        "request_lost": "a submission never arrived",
        "reply_lost": "a submission took effect, its answer was lost",
        "duplicate": "a submission arrived twice",
        "late": "a queued transaction waits for one to six ledgers, or to its last allowed one if that is sooner",
        "at_last": "a queued transaction waits for exactly its last allowed ledger",
        "restart": "the node restarts: everything that it had said yes to and not closed is forgotten",
        "failed": "a transaction lands in a ledger as failed: fee and sequence are gone",
        "fee_spike": "the least fee rises, for up to ten ledgers, up to a thousandfold",
        "lagging": "the node answers from up to six ledgers ago",
        "gap": "the node lacks history, so that the absence of a transaction proves nothing",
        "stranger": "somebody else who has our key uses the slot first",
    }
)


@dataclass(frozen=True, slots=True)
class Faults:
    """A seeded plan: for each kind its chance in millionths. Without arguments: no faults."""

    seed: int = 0
    chances: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Faults:
        """From ``seed=7,reply_lost=0.2,late=0.05``; ``all=0.1`` sets all. Raises ValueError naming the culprit."""
        seed, chances = 0, dict[str, int]()
        for word in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = word.partition("=")
            try:
                if name == "seed":
                    seed = int(value)
                    continue
                chance = int(Decimal(value) * MILLION)
            except (ValueError, InvalidOperation, OverflowError):
                raise ValueError(f"fault plan: {word!r} is not name=number") from None
            if name not in KINDS and name != "all":
                raise ValueError(f"fault plan: no fault is called {name!r}; there are {', '.join(KINDS)}")
            if not 0 <= chance <= MILLION:
                raise ValueError(f"fault plan: {word!r} is not between 0 and 1")
            chances.update(dict.fromkeys(KINDS, chance) if name == "all" else {name: chance})
        return cls(seed, chances)


class Dice:
    """The plan, rolled inside one database transaction of the node, with its durable counters."""

    __slots__ = ("_db", "_plan")

    def __init__(self, db: sqlite3.Connection, plan: Faults) -> None:
        self._db = db
        self._plan = plan

    def fires(self, kind: str) -> random.Random | None:
        """None when all goes well; otherwise the source of the fault's own numbers. Armed faults fire first."""
        chance = self._plan.chances.get(kind, 0)
        row = self._db.execute("SELECT asked, armed FROM fault WHERE kind = ?", (kind,)).fetchone()
        asked, armed = row or (0, 0)
        if not chance and not armed:
            return None
        dice = random.Random(f"{self._plan.seed}:{kind}:{asked}")  # noqa: S311 (reproducible on purpose, no secret)
        hit = armed > 0 or dice.randrange(MILLION) < chance
        self._db.execute(
            "INSERT INTO fault (kind, asked, fired, armed) VALUES (?, 1, ?, 0) ON CONFLICT (kind) DO UPDATE"
            " SET asked = asked + 1, fired = fired + excluded.fired, armed = max(armed - 1, 0)",
            (kind, int(hit)),
        )
        return dice if hit else None
