"""Who is charged how much: exact to the picoCU, never more than there is, whatever the order of reports."""

from __future__ import annotations

from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.assessment import Assessed, RecordRefusal
from settlement.core.charging import Balance, Charged, charge
from settlement.core.units import PICO_PER_MICRO

MILLION = PICO_PER_MICRO
LARGE = 2**63 - 1
CARRIES = st.integers(0, MILLION - 1)
AMOUNTS = st.integers(0, 5) | st.integers(0, 10 * MILLION) | st.integers(2**62, LARGE)
LINES = st.lists(st.tuples(st.sampled_from("abc"), AMOUNTS), min_size=1, max_size=12)
BALANCES = st.builds(Balance, st.integers(0, 30) | st.integers(0, LARGE), CARRIES, st.booleans() | st.just(True))


def assessed(lines: list[tuple[str, int]], refused: tuple[int, ...] = ()) -> Assessed:
    """Lines of (consumer, picoCU), as `assess` gives them."""
    consumers = tuple(dict.fromkeys(consumer for consumer, _ in lines))
    pico = np.array([0 if line in refused else amount for line, (_, amount) in enumerate(lines)], np.int64)
    return Assessed(
        ids=np.zeros((len(lines), 16), np.uint8),
        at=np.zeros(len(lines), np.int64),
        pico=pico,
        versions=np.ones(len(lines), np.int32),
        consumers=consumers,
        consumer_codes=np.array([consumers.index(consumer) for consumer, _ in lines], np.int32),
        models=("m",),
        model_codes=np.zeros(len(lines), np.int32),
        refusals={line: RecordRefusal(line, "unknown_model", "") for line in refused},
    )


def accepted(found: Charged) -> list[bool]:
    return cast("list[bool]", found.accepted.tolist())


@given(
    LINES, st.dictionaries(st.sampled_from("abc"), BALANCES), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11))
)
def test_books_stay_exact(
    lines: list[tuple[str, int]], balances: dict[str, Balance], unrated: set[int], known: set[int]
) -> None:
    """For each consumer: carry + exact sum = posted + new carry; posted <= available; each line charged or refused."""
    inside = range(len(lines))
    refused = tuple(line for line in unrated if line in inside)
    found = charge(assessed(lines, refused), balances, frozenset(line for line in known if line in inside))
    mask = accepted(found)
    assert [refusal.line for refusal in found.refusals] == [line for line in inside if not mask[line]]
    for pair in found.pairs:
        charged = [amount for line, (name, amount) in enumerate(lines) if name == pair.consumer and mask[line]]
        balance = balances[pair.consumer]
        assert (pair.records, pair.pico) == (len(charged), sum(charged))
        assert balance.carry + pair.pico == pair.posted * MILLION + pair.carry
        assert 0 <= pair.carry < MILLION
        assert 0 <= pair.posted <= balance.available
        assert balance.active
    assert {name for line, (name, _) in enumerate(lines) if mask[line]} == {pair.consumer for pair in found.pairs}
    assert found.total == sum(pair.posted for pair in found.pairs)
    assert [pair.consumer for pair in found.pairs] == sorted(pair.consumer for pair in found.pairs)


@given(LINES, st.dictionaries(st.sampled_from("abc"), BALANCES))
def test_refusals_have_their_reasons(lines: list[tuple[str, int]], balances: dict[str, Balance]) -> None:
    """In line order a record is charged whenever what is left covers it; nothing else is refused for want of money."""
    found = charge(assessed(lines), balances)
    reasons = {refusal.line: refusal.code for refusal in found.refusals}
    room = {name: balance.available * MILLION + MILLION - 1 - balance.carry for name, balance in balances.items()}
    for line, (name, amount) in enumerate(lines):
        if name not in balances:
            expected = "unknown_consumer"
        elif not balances[name].active:
            expected = "consumer_suspended"
        elif amount > room[name]:
            expected = "insufficient_balance"
        else:
            room[name] -= amount
            expected = None
        assert reasons.get(line) == expected


@given(st.lists(st.integers(0, 10 * MILLION), min_size=1, max_size=20), CARRIES, st.data())
def test_splitting_a_report_changes_nothing(amounts: list[int], carry: int, data: st.DataObject) -> None:
    """The same records in one report or in two: the same posted in all, and the same carry at the end."""
    cut = data.draw(st.integers(0, len(amounts)))
    posted, left = 0, carry
    for part in filter(None, (amounts[:cut], amounts[cut:])):
        (pair,) = charge(assessed([("a", amount) for amount in part]), {"a": Balance(LARGE, left, True)}).pairs
        posted, left = posted + pair.posted, pair.carry
    (whole,) = charge(assessed([("a", amount) for amount in amounts]), {"a": Balance(LARGE, carry, True)}).pairs
    assert (posted, left) == (whole.posted, whole.carry)


def test_the_last_picocu_that_fits() -> None:
    """Available 1 microCU and a carry of 999,999: one is posted and the fraction carried; one pico more is refused."""
    balance = {"a": Balance(1, 999_999, True)}
    fits = charge(assessed([("a", MILLION)]), balance)
    assert [(pair.posted, pair.carry) for pair in fits.pairs] == [(1, 999_999)]
    assert accepted(charge(assessed([("a", MILLION + 1)]), balance)) == [False]


def test_a_record_too_dear_does_not_stop_the_next() -> None:
    found = charge(assessed([("a", 6 * MILLION), ("a", 9 * MILLION), ("a", 4 * MILLION)]), {"a": Balance(10, 0, True)})
    assert accepted(found) == [True, False, True]
    assert found.total == 10


def test_one_consumer_without_means_does_not_touch_another() -> None:
    found = charge(
        assessed([("a", 5 * MILLION), ("b", 5 * MILLION)]), {"a": Balance(0, 0, True), "b": Balance(5, 0, True)}
    )
    assert [(pair.consumer, pair.posted) for pair in found.pairs] == [("b", 5)]
    assert [refusal.code for refusal in found.refusals] == ["insufficient_balance"]


def test_records_that_cost_nothing_need_no_balance() -> None:
    found = charge(assessed([("a", 0), ("a", 0)]), {"a": Balance(0, 0, True)})
    assert [(pair.records, pair.posted, pair.carry) for pair in found.pairs] == [(2, 0, 0)]


def test_earlier_refusals_and_known_ids_keep_their_first_reason() -> None:
    found = charge(assessed([("a", MILLION)] * 3, refused=(0,)), {}, frozenset({0, 1}))
    assert [refusal.code for refusal in found.refusals] == ["unknown_model", "duplicate_record", "unknown_consumer"]
    assert found.pairs == ()


def test_sums_beyond_64_bits_are_exact() -> None:
    lines = [("a", LARGE)] * 3
    found = charge(assessed(lines), {"a": Balance(LARGE, 0, True)})
    assert [(pair.pico, pair.posted) for pair in found.pairs] == [(3 * LARGE, 3 * LARGE // MILLION)]
