"""Holds as values: prices that agree with rating, slices, and every step against a plain model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from settlement.core import holds, rates, rating
from settlement.core.holds import Ask, Grant, Hold, Terms
from tests.world import first_rates

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TABLE = rates.parse(first_rates())
MODELS = sorted(name for name, model in TABLE.models.items() if "standard" in model.tiers)

amounts = st.integers(0, 10**9)
all_terms = st.builds(
    Terms,
    *(st.just("m"), st.integers(0, 10**15), st.integers(0, 10**10), st.just(True)),
    *(st.just(0) | st.integers(0, 10**15), st.just(10_000) | st.integers(0, 10**6)),
)


def compiled(model: str) -> rating.CompiledModel:
    found = rating.compile_model(TABLE, model, "standard")
    assert not isinstance(found, rating.Refusal)
    return found


@given(st.sampled_from(MODELS), st.integers(0, 400_000), st.integers(0, 1_000), st.integers(0, 5_000))
def test_terms_price_what_rating_charges(model: str, fresh: int, cached: int, output: int) -> None:
    """Whatever the model and its bands: what is reserved for an output is what a record with it costs, rounded up."""
    meters = {"input_tokens": fresh + cached, "cache_read_tokens": cached}
    terms = holds.terms(compiled(model), meters, plain=True)
    given_output = {"output_tokens": output} if isinstance(terms, Terms) and terms.has_output else {}
    charge = rating.rate(TABLE, model, "standard", "completed", meters | given_output, NOW)
    if isinstance(charge, rating.Refusal):
        assert terms == charge
    else:
        assert isinstance(terms, Terms)
        assert terms.amount(output if given_output else 0) == max(1, -(-charge.pico // 10**6))


@given(st.sampled_from(MODELS), st.lists(st.integers(0, 2_000), min_size=5, max_size=5))
def test_terms_cover_whatever_kind_the_output_is_of(model: str, tokens: list[int]) -> None:
    """Also speech, pictures or films that cost more than text, where the model makes them."""
    form = compiled(model)
    terms = holds.terms(form, {"input_tokens": 10})
    if isinstance(terms, rating.Refusal) or not terms.has_output:
        return
    kinds = [
        form.meters[part] for whole, parts in form.subsets if form.meters[whole] == "output_tokens" for part in parts
    ]
    meters = dict(zip(kinds, tokens, strict=False))
    output = sum(tokens)
    charge = rating.rate(
        TABLE, model, "standard", "completed", {"input_tokens": 10, "output_tokens": output, **meters}, NOW
    )
    assert not isinstance(charge, rating.Refusal)
    assert -(-charge.pico // 10**6) <= terms.amount(output)


@given(all_terms, amounts, st.integers(1, 1_000))
def test_most_output_is_the_most_that_fits(terms: Terms, room: int, requests: int) -> None:
    most = terms.most_output(room, requests)
    if most is None:
        assert terms.amount(10**7, requests) <= max(room, 1)
    elif most < 0:
        assert terms.amount(0, requests) > room
    else:
        assert terms.amount(most, requests) <= room < terms.amount(most + 1, requests)


@given(all_terms, amounts, st.none() | st.integers(10, 4_096), st.none() | st.integers(0, 10_000))
def test_a_first_grant_is_never_above_the_room(terms: Terms, room: int, size: int | None, most: int | None) -> None:
    ask = Ask(max_output_tokens=most, output_tokens=size)
    found = holds.first_grant(terms, ask, room)
    wanted = holds.wanted(terms, ask)
    if found is None:
        assert terms.amount(wanted) > room
    else:
        assert found.amount == terms.amount(found.output_tokens) <= room
        assert found.output_tokens == wanted if not found.at_end else found.output_tokens < wanted
        assert most is None or found.output_tokens <= most


def test_the_next_slice_is_asked_for_at_four_fifths_of_the_newest() -> None:
    hold = opened(Terms("m", 0, 10**6, has_output=True), 10**9)
    assert (hold.output_tokens, hold.report_at) == (256, 205)
    hold = holds.extended(hold, Grant(356, 100, 356, at_end=False), NOW)
    assert hold.report_at == 336


def test_meters_that_a_model_does_not_price_are_named() -> None:
    gpt5 = compiled("gpt-5")
    assert holds.terms(gpt5, {"no_such": 1}) == rating.Refusal("unknown_meter", "no_such")
    assert holds.terms(gpt5, {"output_tokens": 1}) == rating.Refusal("unknown_meter", "output_tokens")
    assert holds.terms(gpt5, {"output_reasoning_tokens": 1}) != Terms("gpt-5", 0, 0, has_output=True)
    too_much = holds.terms(gpt5, {"input_tokens": 10**12})
    assert too_much == rating.Refusal("charge_too_large")


def test_a_free_call_holds_one_micro_cu() -> None:
    """An amount of nothing would be no hold; nothing of it is charged."""
    assert Terms("m", 0, 0, has_output=False).amount(0) == 1


def opened(terms: Terms, room: int, **ask: int) -> Hold:
    asked = Ask(**ask)  # type: ignore[arg-type]
    grant = holds.first_grant(terms, asked, room)
    assert grant is not None
    return holds.opened(asked, terms, grant, NOW)


@pytest.mark.parametrize("state", ["released", "captured"])
def test_a_hold_that_ended_is_not_captured(state: str) -> None:
    hold = opened(Terms("m", 10**6, 10**6, has_output=True), 10**9)
    after = holds.capture(hold, 5, NOW).hold if state == "captured" else holds.given_back(hold, "released", NOW)
    assert holds.refusal(after, NOW) == ("hold_ended", "it was released, or as many records as it is for have named it")


@pytest.mark.parametrize(("seconds", "right"), [(-301, False), (-300, True), (0, True), (600, True), (601, False)])
def test_a_record_of_another_time_is_not_the_holds(seconds: int, right: bool) -> None:
    hold = opened(Terms("m", 10**6, 10**6, has_output=True), 10**9)
    assert (holds.refusal(hold, NOW + timedelta(seconds=seconds)) is None) is right


def test_a_hold_is_kept_alive_for_a_day_at_most() -> None:
    """Else a provider could lock money, and keep a price, for as long as it likes."""
    hold = opened(Terms("m", 10**6, 10**6, has_output=True), 10**9)
    for minutes in range(0, 24 * 60 + 10, 4):
        hold = holds.renewed(hold, NOW + timedelta(minutes=minutes))
    assert hold.expires_at == NOW + timedelta(days=1)


def test_a_capture_is_never_above_the_hold_and_late_ones_free_nothing() -> None:
    hold = opened(Terms("m", 0, 10**6, has_output=True), 10**9)
    over = holds.capture(hold, 10**12, NOW)
    assert (over.pico, over.taken, over.freed, over.hold.released) == (256 * 10**6, 256, 256, 0)
    expired = holds.given_back(hold, "expired", NOW)
    late = holds.capture(expired, 10**12, NOW)
    assert (late.pico, late.taken, late.freed, late.late, late.hold.uses) == (256 * 10**6, 256, 0, True, 1)
    assert holds.refusal(late.hold, NOW) is not None


class HoldMachine(RuleBasedStateMachine):
    """One account and its holds, each step against sums that a child could do."""

    @initialize(balance=st.integers(0, 5_000), per_token=st.integers(0, 3), base=st.integers(0, 50))
    def begin(self, balance: int, per_token: int, base: int) -> None:
        self.terms = Terms("m", base * 10**6, per_token * 10**6, has_output=True)
        self.settled = balance
        self.open: list[Hold] = []
        self.now = NOW

    def available(self) -> int:
        return self.settled - sum(hold.reserved for hold in self.open)

    @rule(size=st.none() | st.integers(10, 300), requests=st.integers(1, 3))
    def place(self, size: int | None, requests: int) -> None:
        ask = Ask(output_tokens=size, requests=requests)
        grant = holds.first_grant(self.terms, ask, self.available())
        whole = requests * (self.terms.base + self.terms.per_token * (size or 256)) // 10**6 or 1
        assert (grant is not None and not grant.at_end) == (whole <= self.available())
        if grant is not None:
            self.open.append(holds.opened(ask, self.terms, grant, self.now))

    @precondition(lambda self: any(hold.requests == 1 for hold in self.open))
    @rule(size=st.none() | st.integers(1, 300), data=st.data())
    def extend(self, size: int | None, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from([each for each in self.open if each.requests == 1]))
        before = self.available()
        after = holds.extended(hold, holds.next_grant(hold, self.terms, size, before), self.now)
        self.open[self.open.index(hold)] = after
        assert after.amount - hold.amount <= before
        assert after.amount >= self.terms.amount(after.output_tokens)
        assert after.output_tokens >= hold.output_tokens
        if not after.at_end:
            assert after.output_tokens == hold.output_tokens + (size or holds.DEFAULT.slice_after(hold.grants))

    @precondition(lambda self: self.open)
    @rule(charge=st.integers(0, 10**10), data=st.data())
    def capture(self, charge: int, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.open))
        before = self.available()
        done = holds.capture(hold, charge, self.now)
        self.settled -= done.taken
        self.open.remove(hold)
        if done.hold.state == "open":
            self.open.append(done.hold)
        assert done.pico <= charge
        assert done.taken <= hold.amount
        assert self.available() >= before, "a capture takes from its own hold alone"
        assert done.freed == hold.reserved - done.hold.reserved

    @precondition(lambda self: self.open)
    @rule(state=st.sampled_from(["released", "expired"]), data=st.data())
    def end(self, state: str, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.open))
        after = holds.given_back(hold, state, self.now)  # type: ignore[arg-type]
        assert after.reserved == 0
        assert after.captured + after.released == after.amount
        self.open.remove(hold)

    @invariant()
    def nothing_is_spent_twice(self) -> None:
        if hasattr(self, "settled"):
            assert self.available() >= 0
            assert all(0 <= hold.reserved <= hold.amount for hold in self.open)


TestHoldMachine = HoldMachine.TestCase
