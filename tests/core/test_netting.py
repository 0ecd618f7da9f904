"""Netting as property tests: each position is preserved, all sum to zero, and the ratio is its formula."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.core.errors import Broken
from settlement.core.netting import Obligation, Position, net, owed_after_netting, value_netting_ratio

CONSUMERS = [f"acc_{number}" for number in range(6)]
PROVIDERS = [f"prv_{number}" for number in range(4)]

obligations = st.lists(
    st.builds(Obligation, st.sampled_from(CONSUMERS), st.sampled_from(PROVIDERS), st.integers(0, 2**63 - 1)),
    max_size=40,
)
links = st.dictionaries(st.sampled_from(CONSUMERS), st.sampled_from(PROVIDERS), max_size=4).filter(
    lambda found: len(set(found.values())) == len(found)
)


@given(obligations, links)
def test_each_position_is_the_sum_of_its_obligations_and_all_sum_to_zero(
    owed: list[Obligation], linked: dict[str, str]
) -> None:
    found = net(owed, linked)
    assert [position.party for position in found] == sorted({position.party for position in found})
    assert sum(position.net for position in found) == 0
    gross = sum(each.amount for each in owed)
    assert sum(position.spent for position in found) == sum(position.earned for position in found) == gross
    for position in found:
        own = {position.party} | {account for account, provider in linked.items() if provider == position.party}
        paid = sum(each.amount for each in owed if each.consumer in own)
        received = sum(each.amount for each in owed if each.provider in own)
        assert (position.spent, position.earned, position.net) == (paid, received, received - paid)


@given(obligations, links)
def test_only_linked_parties_net_and_never_more_than_either_side(
    owed: list[Obligation], linked: dict[str, str]
) -> None:
    for position in net(owed, linked):
        expected = min(position.spent, position.earned) if position.party in linked.values() else 0
        assert position.netted == expected


@given(obligations, links)
def test_what_netting_leaves_is_what_the_ratio_says(owed: list[Obligation], linked: dict[str, str]) -> None:
    found = net(owed, linked)
    gross = sum(each.amount for each in owed)
    left = sum(position.net for position in found if position.net > 0)
    assert owed_after_netting(found) == left
    # Every microCU of obligations is either netted within a party or still to be moved: nothing appears or is lost.
    assert gross == left + sum(position.netted for position in found)
    ratio = value_netting_ratio(gross, found)
    assert ratio * gross == gross - left if gross else ratio == 0
    assert 0 <= ratio <= 1


def test_a_party_is_its_provider_and_the_account_that_it_named() -> None:
    owed = [Obligation("acc_own", "prv_b", 70), Obligation("acc_x", "prv_a", 100), Obligation("acc_own", "prv_a", 5)]
    assert net(owed, {"acc_own": "prv_a"}) == [
        Position("acc_x", 100, 0, 0),
        Position("prv_a", 75, 105, 75),
        Position("prv_b", 0, 70, 0),
    ]
    assert value_netting_ratio(175, net(owed, {"acc_own": "prv_a"})) == Fraction(75, 175)


def test_a_ring_of_linked_parties_nets_to_nothing() -> None:
    linked = {f"acc_{number}": f"prv_{number}" for number in range(3)}
    owed = [Obligation(f"acc_{number}", f"prv_{(number + 1) % 3}", 10) for number in range(3)]
    found = net(owed, linked)
    assert [(position.net, position.netted) for position in found] == [(0, 10)] * 3
    assert value_netting_ratio(30, found) == 1


def test_nothing_owed_has_no_positions_and_ratio_zero() -> None:
    assert net([], {"acc_0": "prv_0"}) == []
    assert value_netting_ratio(0, []) == 0


def test_a_negative_obligation_is_no_obligation() -> None:
    with pytest.raises(Broken, match="obligation_negative"):
        net([Obligation("acc_0", "prv_0", -1)], {})
