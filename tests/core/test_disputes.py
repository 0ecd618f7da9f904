"""What is given back is bounded from every side; a policy's section, an answer and a state are what they may be."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core import disputes, rates, sections, times
from settlement.core.disputes import CAUSES, DisputeRules, Share, State
from settlement.core.errors import Broken, Malformed
from settlement.core.multipliers import DEMAND, STANDING, Multiplier
from settlement.core.offers import Offer, Offers
from settlement.core.rating import Refusal
from tests.world import START, first_rates

AMOUNTS = st.integers(0, 2**63 - 1)
RECORD: dict[str, Any] = {
    "model": "gpt-5",
    "operation": "chat",
    "tier": "standard",
    "outcome": "completed",
    "meters": {"input_tokens": 1155, "output_tokens": 211},
}
PICO = 789_722_222_432
"""What the record costs at par."""


@given(AMOUNTS, AMOUNTS, st.integers(-(2**63), 2**63))
def test_an_award_is_never_more_than_asked_claimed_or_left(asked: int, claimed: int, left: int) -> None:
    award = disputes.bounded(asked, claimed, left)
    assert award == max(0, min(asked, claimed, left))


@given(
    st.lists(st.tuples(st.integers(0, 10**18), st.integers(0, 10**7)), min_size=1, max_size=9), st.integers(0, 999_999)
)
def test_all_that_can_be_given_back_for_records_was_posted(charges: list[tuple[int, int]], carried: int) -> None:
    """Records are posted together, with a carry; each gives back its own whole microCU."""
    picos = [pico for pico, _ in charges]
    posted = (carried + sum(picos)) // 10**6
    assert sum(disputes.whole_micro(pico) for pico in picos) <= posted


@given(AMOUNTS, AMOUNTS, st.lists(st.integers(-5, 2**62), max_size=6))
def test_what_is_owed_is_paid_once_and_the_consumer_first(award: int, penalty: int, drawable: list[int]) -> None:
    owed = Share(award, penalty)
    paid = Share(0, 0)
    for room in drawable:
        share = disputes.next_share(Share(owed.award - paid.award, owed.penalty - paid.penalty), room)
        assert 0 <= share.total <= max(0, room)
        paid = Share(paid.award + share.award, paid.penalty + share.penalty)
        assert paid.award <= award
        assert paid.penalty <= penalty
        assert not paid.penalty or paid.award == award
        assert paid.total == owed.total or share.total == max(0, room), "all that can be taken is taken"


@given(AMOUNTS, AMOUNTS, st.integers(0, 500_000))
def test_a_tranche_is_a_share_of_what_is_left_after_netting(earned: int, netted: int, share: int) -> None:
    netted = min(netted, earned)
    found = DisputeRules(hold_back=share).tranche(earned, netted)
    assert 0 <= found <= earned - netted
    assert 0 <= (earned - netted) * share - found * 1_000_000 < 1_000_000


@given(AMOUNTS, st.integers(0, 10_000_000), AMOUNTS)
def test_penalties_are_bounded_twice(award: int, share: int, most: int) -> None:
    found = DisputeRules(penalty_share=share, penalty_most=most).most_penalty(award)
    assert found == min(award * share // 1_000_000, most)


@pytest.mark.parametrize(
    "change",
    [
        {"open_for": timedelta(minutes=59)},
        {"open_for": timedelta(days=91)},
        {"answer_within": timedelta(0)},
        {"answer_within": timedelta(days=31)},
        {"rule_within": timedelta(minutes=1)},
        {"rule_within": timedelta(days=91)},
        {"hold_back": -1},
        {"hold_back": 500_001},
        {"penalty_share": -1},
        {"penalty_share": 10_000_001},
        {"penalty_most": -1},
        {"most_open": 0},
    ],
)
def test_bounds_of_the_policy(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        replace(DisputeRules(), **change)


def test_the_section_round_trips_and_holds_nothing_back_unless_it_says_so() -> None:
    assert DisputeRules().hold_back == 0
    rules = DisputeRules(hold_back=50_000, penalty_most=7)
    assert sections.read(DisputeRules, json.loads(json.dumps(sections.members(rules)))) == rules


def test_every_cause_ends_what_it_may_and_nothing_else() -> None:
    for cause, allowed in CAUSES.items():
        for state in get_args(State):
            if state in allowed:
                assert disputes.ended(state, cause, 0) == ("withdrawn" if cause == "consumer" else "rejected")
            else:
                with pytest.raises(Broken, match="illegal_step"):
                    disputes.ended(state, cause, 1)
    assert disputes.ended("open", "no_answer", 1) == "upheld"


@pytest.mark.parametrize(
    ("change", "empty"),
    [
        ({"meters": {"input_tokens": 9}}, True),
        ({"meters": {"input_tokens": 9, "output_tokens": 0}}, True),
        ({"outcome": "truncated", "meters": {"input_tokens": 9}}, True),
        ({}, False),
        ({"outcome": "cancelled", "meters": {"input_tokens": 9}}, False),
        ({"operation": "embeddings", "meters": {"input_tokens": 9}}, False),
    ],
)
def test_an_empty_answer(change: dict[str, Any], empty: bool) -> None:
    assert disputes.is_empty(RECORD | change) is empty


def offer(version: int, usual: int, hours: int = -1, digest: str = "x") -> Offer:
    return Offer("prv", version, None, START + timedelta(hours=hours), usual, {}, digest)


def test_a_signed_offer_that_was_not_kept() -> None:
    table = rates.parse(first_rates())

    def found(signed: Offer, *published: Offer) -> int:
        return disputes.overcharged(table, RECORD, START, PICO, signed, Offers(published))

    assert found(offer(1, 5_000)) == PICO // 2
    assert found(offer(2, 5_000), offer(1, 10_000, -2, "y")) == PICO // 2, "a later one that was never published"
    assert found(offer(1, 5_000), offer(1, 10_000, -1, "y")) == PICO // 2, "two offers of one version"
    assert found(offer(1, 10_000)) == 0
    assert found(offer(1, 20_000)) == 0
    assert found(offer(1, 5_000, 1)) == 0, "not in force yet"
    assert found(offer(1, 5_000, -2), offer(2, 10_000, -1, "y")) == 0, "superseded"
    assert found(offer(1, 5_000), offer(1, 5_000)) == 0, "that was the price"
    refused = RECORD | {"model": "no-such-model"}
    assert disputes.overcharged(table, refused, START, PICO, offer(1, 5_000), Offers()) == 0


GOOD = {"type": "answer/1", "dispute": "dsp_" + "0" * 26, "answer": "contest"}


def test_an_answer() -> None:
    found = disputes.parse_answer(json.dumps(GOOD | {"counts": {"output_tokens": 3}}).encode())
    assert (found.accepts, found.evidence, dict(found.counts)) == (False, (), {"output_tokens": 3})
    digests = ["sha256:" + "a" * 64]
    assert disputes.parse_answer(json.dumps(GOOD | {"answer": "accept", "evidence": digests}).encode()).accepts


@pytest.mark.parametrize(
    "change",
    [
        {"type": "answer/2"},
        {"answer": "yes"},
        {"dispute": "dsp_1"},
        {"why": "because"},
        {"evidence": []},
        {"evidence": ["sha256:x"]},
        {"evidence": ["sha256:" + "a" * 64] * 17},
        {"counts": {}},
        {"counts": {"output_tokens": -1}},
        {"counts": {"output_tokens": True}},
        {"counts": {"Output": 1}},
    ],
)
def test_what_is_no_answer(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="answer_malformed"):
        disputes.parse_answer(json.dumps(GOOD | change).encode())


def test_a_ruling_is_read_from_its_document() -> None:
    document = {
        "dispute": "d",
        "consumer": "a",
        "provider": "p",
        "award": "5",
        "penalty": "1",
        "reason": times.text(START),
    }
    assert disputes.Ruling.of(json.dumps(document).encode()) == disputes.Ruling("d", "a", "p", 5, 1)


COUNTED = st.fixed_dictionaries({"input_tokens": st.integers(0, 3_000), "output_tokens": st.integers(0, 600)})
AFTER = [Multiplier(DEMAND, 15_000), Multiplier(STANDING, 9_000)]


@given(COUNTED, st.integers(1, 40_000), st.sampled_from([[], AFTER[:1], AFTER[1:], AFTER]), st.integers(0, PICO))
def test_own_counts_are_rated_by_all_that_the_record_was_charged_by(
    counts: dict[str, int], ask: int, after: list[Multiplier], left: int
) -> None:
    """The credit is the charge on file, which what a hold had left may have bounded, less that of these counts."""
    table, published = rates.parse(first_rates()), Offers([offer(1, ask)])

    def charge(meters: dict[str, int]) -> int:
        pico = 277_777_778 * meters["input_tokens"] + 2_222_222_222 * meters["output_tokens"]
        for value in (ask, *(each.value for each in after)):
            pico = pico * value // 10_000
        return pico

    on_file = min(charge(RECORD["meters"]), left)
    much = disputes.miscounted(table, RECORD, counts, START, on_file, published, after)
    assert much == max(0, on_file - charge(counts))
    assert disputes.miscounted(table, RECORD, RECORD["meters"], START, on_file, published, after) == 0
    refusal = disputes.miscounted(table, RECORD, {"no_such_meter": 1}, START, on_file, published, after)
    assert isinstance(refusal, Refusal)


def test_an_offer_that_was_not_kept_counts_with_demand_and_standing() -> None:
    table, on_file = rates.parse(first_rates()), PICO * 15_000 // 10_000 * 9_000 // 10_000
    found = disputes.overcharged(table, RECORD, START, on_file, offer(1, 5_000), Offers(), AFTER)
    assert found == on_file - PICO // 2 * 15_000 // 10_000 * 9_000 // 10_000
