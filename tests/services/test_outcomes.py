"""What all attempts of one slot say together."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from settlement.chain import Contested, Expired, Failed, Ledger, Outcome, Pending, Settled, Slot, Transaction
from settlement.core.errors import Broken
from settlement.services.outcomes import verdict

SETTLED = Settled(Ledger(7, datetime(2026, 11, 22, tzinfo=UTC)), (5,), 12)
FAILED = Failed("frozen", 0, used_slot=True, fee=12)
MALFORMED = Failed("malformed", None, used_slot=False)
EXPIRED, PENDING, CONTESTED = Expired(), Pending(), Contested("gone")


def attempts(*outcomes: Outcome) -> list[tuple[Transaction, Outcome]]:
    slot = Slot("treasury", 4)
    return [(Transaction(f"t{n}", (), b"", slot, n, n + 12, 12), outcome) for n, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("outcomes", "tx", "decided"),
    [
        ((PENDING,), "t0", PENDING),
        ((SETTLED,), "t0", SETTLED),
        ((EXPIRED,), "t0", EXPIRED),
        ((CONTESTED,), "t0", CONTESTED),
        ((FAILED,), "t0", FAILED),
        ((MALFORMED,), "t0", MALFORMED),
        ((SETTLED, CONTESTED), "t0", SETTLED),  # an old attempt was the one that landed
        ((SETTLED, PENDING), "t0", SETTLED),
        ((CONTESTED, SETTLED), "t1", SETTLED),  # ours took it: nobody else
        ((FAILED, CONTESTED), "t0", FAILED),
        ((EXPIRED, EXPIRED), "t1", EXPIRED),
        ((EXPIRED, PENDING), "t1", PENDING),
        ((PENDING, EXPIRED), "t1", PENDING),  # dead is only dead when each of them is
        ((EXPIRED, CONTESTED), "t1", PENDING),  # asked at different times: the first may have landed in between
        ((PENDING, CONTESTED), "t1", PENDING),
        ((CONTESTED, PENDING), "t1", PENDING),
        ((CONTESTED, CONTESTED), "t1", CONTESTED),
        ((EXPIRED, MALFORMED), "t1", MALFORMED),
        ((MALFORMED, PENDING), "t1", PENDING),
        ((CONTESTED, MALFORMED), "t1", CONTESTED),
    ],
)
def test_verdict(outcomes: tuple[Outcome, ...], tx: str, decided: Outcome) -> None:
    found, outcome = verdict(attempts(*outcomes))
    assert (found.id, outcome) == (tx, decided)


def test_two_final_attempts_of_one_slot_are_impossible_and_halt() -> None:
    with pytest.raises(Broken, match="slot_used_twice"):
        verdict(attempts(SETTLED, SETTLED))
