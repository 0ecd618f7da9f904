"""Rating a whole report at once must charge and refuse exactly as the scalar `rating.rate` does, on the real table."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import canonical, multipliers, rates, rating, tiers
from settlement.core.assessment import AHEAD, ID_TIME_TOLERANCE, OLDEST, Assessed, RateBook, assess
from settlement.core.columns import multiplied
from settlement.core.errors import Malformed
from settlement.core.ids import public_id, uuid7, uuid_text
from settlement.core.times import text
from settlement.core.usage import MAX_UNITS, decode
from tests.core.test_rating import rate_tables, usage_of
from tests.world import START, first_rates

PROVIDER = public_id("prv", bytes(16))
SECOND = timedelta(seconds=1)
WHOLE = {"input_tokens": MAX_UNITS, "output_tokens": MAX_UNITS}


@cache
def table() -> rates.RateTable:
    return rates.parse(first_rates())


@cache
def banded() -> tuple[tuple[str, str, int], ...]:
    """Every model and tier with context bands, and where a band begins."""
    return tuple(
        (name, tier, band.above_input_tokens)
        for name, model in table().models.items()
        for tier, terms in model.tiers.items()
        for band in terms.bands[1:]
    )


@cache
def names() -> tuple[str, ...]:
    """Every model and alias; those with bands again and again, so that they are drawn often."""
    return (*sorted(table().models), *sorted(table().aliases), *(model for model, _, _ in banded() * 5))


def record(line: int = 0, at: datetime = START, **changed: Any) -> dict[str, Any]:
    meters = {"input_tokens": 1155, "output_tokens": 211}
    usual = {"id": identity(line, at), "at": text(at), "consumer": "acc_1", "model": "gpt-5", "operation": "chat"}
    return usual | {"tier": "standard", "outcome": "completed", "meters": meters} | changed


def identity(line: int, at: datetime = START) -> str:
    return uuid_text(uuid7(at, lambda size: line.to_bytes(size, "big")))


def assessed(*records: dict[str, Any], book: RateBook | None = None, now: datetime = START) -> Assessed:
    body = {"v": 1, "provider": PROVIDER, "report": "r", "seq": 1, "prev": None, "records": records}
    return assess(decode(json.dumps(body).encode()), book or RateBook([table()]), now)


def codes(found: Assessed) -> dict[int, str]:
    return {line: refusal.code for line, refusal in found.refusals.items()}


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    """A record of any model, alias, tier, outcome and meters: mostly chargeable, often on an edge."""
    model = draw(st.sampled_from(names()) | st.just("no-such-model"))
    tier = draw(st.sampled_from(["standard", "standard", "standard", "batch", "priority", "no-such-tier"]))
    near = st.sampled_from(sorted({above for _, _, above in banded()})).flatmap(
        lambda edge: st.integers(edge - 1, edge + 1)
    )
    units = st.integers(0, 5) | st.integers(0, 10**6) | near | st.integers(10**11, MAX_UNITS)
    meters = [*table().meters] * 3 + ["no_such_meter"]
    given_units = draw(st.dictionaries(st.sampled_from(meters), units, max_size=5))
    if draw(st.booleans()):  # make the whole cover its parts, so that most records can be charged
        for name in reversed(list(table().meters)):
            parts = [part for part, meter in table().meters.items() if meter.parent == name]
            least = sum(given_units.get(part, 0) for part in parts)
            if given_units.get(name, 0) < least:
                given_units[name] = min(least, MAX_UNITS)
    outcome = draw(st.sampled_from(["completed", "completed", "truncated", "cancelled", "errored"]))
    return {"model": model, "tier": tier, "outcome": outcome, "meters": given_units}


@settings(max_examples=150, deadline=None)
@given(st.lists(usages(), min_size=1, max_size=12))
def test_columns_rate_as_the_scalar_form_does(drawn: list[dict[str, Any]]) -> None:
    found = assessed(*(record(line, **usage) for line, usage in enumerate(drawn)))
    for line, usage in enumerate(drawn):
        expected = rating.rate(table(), usage["model"], usage["tier"], usage["outcome"], usage["meters"], START)
        if isinstance(expected, rating.Refusal):
            assert codes(found)[line] == expected.code
            assert found.pico[line] == 0
        else:
            assert line not in found.refusals
            assert int(found.pico[line]) == expected.pico
            assert int(found.versions[line]) == expected.rates


@settings(max_examples=150, deadline=None)
@given(rate_tables(), st.data())
def test_columns_rate_as_the_scalar_form_does_under_any_terms(table: rates.RateTable, data: st.DataObject) -> None:
    """Excess, minimum, hours and their order: whatever a table says, for records of any time of day."""
    times = [START + timedelta(minutes=data.draw(st.integers(-1439, 0))) for _ in range(4)]
    drawn = [data.draw(usage_of(table)) for _ in times]
    if data.draw(st.booleans()):
        drawn[0]["input_tokens"] = data.draw(st.integers(10**9, MAX_UNITS))
    records = [
        record(line, at, model="m", meters=usage) for line, (at, usage) in enumerate(zip(times, drawn, strict=True))
    ]
    found = assessed(*records, book=RateBook([replace(table, effective_from=START - OLDEST)]))
    for line, (at, usage) in enumerate(zip(times, drawn, strict=True)):
        expected = rating.rate(table, "m", "standard", "completed", usage, at)
        if isinstance(expected, rating.Refusal):
            assert codes(found)[line] == expected.code
        else:
            assert (line, int(found.pico[line])) == (line, expected.pico)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 2**63 - 1), st.integers(1, multipliers.MAX_MULTIPLIER)), min_size=1))
def test_multiplying_columns_is_exact_or_says_that_it_does_not_fit(pairs: list[tuple[int, int]]) -> None:
    charges, values = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    exact = [charge if charge < 0 else multipliers.apply(charge, value) for charge, value in pairs]
    assert multiplied(charges, values).tolist() == [each if each <= 2**63 - 1 else -1 for each in exact]


def test_every_band_switches_where_it_says() -> None:
    """One unit above the threshold is the next band's; the threshold itself is not."""
    assert banded(), "the first table has models with context bands"
    records: list[dict[str, Any]] = []
    expected = []
    for model, tier, above in banded():
        for tokens in (above - 1, above, above + 1):
            records.append(record(len(records), model=model, tier=tier, meters={"input_tokens": tokens}))
            charge = rating.rate(table(), model, tier, "completed", {"input_tokens": tokens}, START)
            assert isinstance(charge, rating.Charge)
            expected.append(charge.pico)
    assert assessed(*records).pico.tolist() == expected


def test_largest_units_of_every_model_are_charged_exactly_or_refused() -> None:
    """10^12 units of each meter alone: sums that int64 can't hold, of either sign, are never a wrong charge."""
    records: list[dict[str, Any]] = []
    expected = []
    for model in table().models:
        for meter in table().meters:
            for meters in ({meter: MAX_UNITS}, {**WHOLE, meter: MAX_UNITS}):
                records.append(record(len(records), model=model, meters=meters))
                expected.append(rating.rate(table(), model, "standard", "completed", meters, START))
    found_codes: set[str] = set()
    for start in range(0, len(records), 10_000):
        found = assessed(*records[start : start + 10_000])
        refused = codes(found)
        for line, want in enumerate(expected[start : start + 10_000]):
            if isinstance(want, rating.Refusal):
                assert refused[line] == want.code
                found_codes.add(want.code)
            else:
                assert int(found.pico[line]) == want.pico
    assert found_codes >= {"subset_above_whole", "unknown_meter"}


def costly() -> rates.RateTable:
    """The first table with one model at the highest rates that a table can hold."""
    document = json.loads(first_rates())
    high = {"input_tokens": tiers.MAX_RATE, "cache_read_tokens": 0, "output_tokens": tiers.MAX_RATE}
    bands = [{"above_input_tokens": 0, "rates": high}]
    document["models"]["costly"] = {"tiers": {"standard": {"bands": bands}}, "derivation": {"method": "test"}}
    return rates.parse(canonical.encode(document))


@pytest.mark.parametrize(
    "meters",
    [
        {"input_tokens": 922_337},
        {"input_tokens": 922_337, "output_tokens": 1},
        {"input_tokens": 922_338},
        {"input_tokens": MAX_UNITS},
        {"input_tokens": MAX_UNITS, "output_tokens": MAX_UNITS},
        {"input_tokens": MAX_UNITS, "cache_read_tokens": MAX_UNITS},
        {"input_tokens": MAX_UNITS, "cache_read_tokens": MAX_UNITS - 1},
        {"input_tokens": 0, "cache_read_tokens": MAX_UNITS},
        {"cache_read_tokens": MAX_UNITS},
        {"input_tokens": MAX_UNITS - 1, "cache_read_tokens": MAX_UNITS},
    ],
)
@pytest.mark.parametrize("outcome", ["completed", "errored"])
def test_around_the_largest_charge(meters: dict[str, int], outcome: str) -> None:
    """Exact up to 2^63 - 1 picoCU, `charge_too_large` above, and never a crash below."""
    found = assessed(record(model="costly", meters=meters, outcome=outcome), record(1), book=RateBook([costly()]))
    expected = rating.rate(costly(), "costly", "standard", outcome, meters, START)
    if isinstance(expected, rating.Refusal):
        assert codes(found) == {0: expected.code}
    else:
        assert (int(found.pico[0]), codes(found)) == (expected.pico, {})
    assert int(found.pico[1]) == 789_722_222_432


@given(st.lists(st.integers(-40 * 86_400, 3_600), min_size=1, max_size=20))
@settings(deadline=None)
def test_times_are_accepted_from_35_days_ago_to_5_minutes_ahead(offsets: list[int]) -> None:
    records = [record(line, START + offset * SECOND) for line, offset in enumerate(offsets)]
    found = codes(assessed(*records))
    for line, offset in enumerate(offsets):
        late, early = offset * SECOND < -OLDEST, offset * SECOND > AHEAD
        assert found.get(line) == ("time_too_old" if late else "time_in_future" if early else None)


@pytest.mark.parametrize("apart", [ID_TIME_TOLERANCE, -ID_TIME_TOLERANCE])
def test_id_and_time_are_within_a_minute(apart: timedelta) -> None:
    at = START - timedelta(days=1)
    beyond = apart + (SECOND if apart > timedelta() else -SECOND)
    records = [record(0, at, id=identity(0, at + apart)), record(1, at, id=identity(1, at + beyond))]
    assert codes(assessed(*records)) == {1: "id_time_mismatch"}


def test_the_table_in_force_at_the_time_rates() -> None:
    """From its first microsecond on; before the first table nothing can be charged."""
    document = json.loads(first_rates())
    change = START - timedelta(days=1)
    later = document | {"version": 2, "parent": table().digest, "effective_from": text(change)}
    book = RateBook([rates.parse(canonical.encode(later)), table()])
    micro = timedelta(microseconds=1)
    found = assessed(record(0, change - micro), record(1, change), record(2, change + micro), book=book)
    assert found.versions.tolist() == [1, 2, 2]
    quoted = assessed(
        record(0, change, rates="2"), record(1, change, rates="1"), record(2, change, rates="x"), book=book
    )
    assert codes(quoted) == {1: "rates_mismatch", 2: "rates_mismatch"}
    young = RateBook([rates.parse(canonical.encode(later))])
    assert codes(assessed(record(0, change - micro), record(1, change), book=young)) == {0: "rates_not_in_force"}
    assert codes(assessed(record(), book=RateBook([]))) == {0: "rates_not_in_force"}


def test_refusals_leave_the_rest_and_name_the_first_rule() -> None:
    """The earlier rule wins: a time in the future, a repeated id, a hold, then what the table says."""
    ahead = START + timedelta(hours=1)
    found = assessed(
        record(0),
        record(0),
        record(2, ahead, model="no-such-model"),
        record(3, hold="hld_1", model="no-such-model"),
        record(4, model="no-such-model", tier="no-such-tier"),
        record(5, tier="no-such-tier", meters={"no_such_meter": 1}),
        record(6),
    )
    assert codes(found) == {
        1: "duplicate_record",
        2: "time_in_future",
        3: "unknown_hold",
        4: "unknown_model",
        5: "unknown_tier",
    }
    assert found.pico.tolist() == [789_722_222_432, 0, 0, 0, 0, 0, 789_722_222_432]


def test_columns_stand_in_line_order() -> None:
    found = assessed(record(0, consumer="b"), record(1, consumer="a", model="gpt-5-mini"), record(2, consumer="b"))
    assert (found.consumers, found.consumer_codes.tolist()) == (("b", "a"), [0, 1, 0])
    assert (found.models, found.model_codes.tolist()) == (("gpt-5", "gpt-5-mini"), [0, 1, 0])
    assert [UUID(bytes=bytes(row)) for row in found.ids] == [UUID(identity(line)) for line in range(3)]


def test_a_charge_of_nothing_is_a_charge() -> None:
    """No units, and an errored request, cost nothing and are recorded."""
    found = assessed(record(0, meters={}), record(1, outcome="errored"), record(2, meters={"input_tokens": 0}))
    assert (codes(found), found.pico.tolist()) == ({}, [0, 0, 0])


@pytest.mark.parametrize(("field", "value"), [("id", "x"), ("at", "yesterday"), ("id", identity(0).upper())])
def test_ids_and_times_that_are_none_refuse_the_report(field: str, value: str) -> None:
    with pytest.raises(Malformed) as caught:
        assessed(record(0), record(1) | {field: value})
    assert caught.value.problems[0].pointer == f"/records/1/{field}"


def test_names_from_outside_do_not_fill_the_memory() -> None:
    book = RateBook([table()])
    found = assessed(*(record(line, model=f"m{line}") for line in range(10_000)), book=book)
    assert codes(found)[9_999] == "unknown_model"
    assert book.compiled(0, "gpt-5", "standard") is book.compiled(0, "gpt-5", "standard")
    kept = book.form(0, "gpt-5", "standard", ("output_tokens",))
    assert book.form(0, "gpt-5", "standard", ("output_tokens",)) is not kept  # 10,000 are enough
