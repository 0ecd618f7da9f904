"""Charges: the worked examples, every refusal, and the two forms of a charge that must agree."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import canonical, multipliers, rates, rating, tiers, times
from settlement.core.multipliers import Multiplier
from settlement.core.rating import Charge, ChargeLine, CompiledModel, Refusal
from settlement.core.units import MAX_AMOUNT, split_pico
from tests.core.test_rates import document

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SONNET = {
    "input_tokens": 666666667,
    "cache_read_tokens": 66666667,
    "cache_write_tokens": 833333333,
    "output_tokens": 3333333333,
}


def table(**models: dict[str, dict[int, dict[str, int]]]) -> rates.RateTable:
    """A table of models given as tier: threshold: rates, beside the model of the sample document."""
    value = document()
    value["meters"]["cache_write_tokens"] = {"parent": "input_tokens", "unit": "token"}
    for name, by_tier in models.items():
        bands = {
            tier: {"bands": [{"above_input_tokens": above, "rates": rated} for above, rated in steps.items()]}
            for tier, steps in by_tier.items()
        }
        value["models"][name] = {"tiers": bands, "derivation": {"method": "test"}}
    return rates.parse(canonical.encode(value))


def charged(found: Charge | Refusal) -> Charge:
    assert isinstance(found, Charge), found
    return found


def test_the_worked_example_to_the_last_digit() -> None:
    usage = {"input_tokens": 1155, "output_tokens": 211}
    charge = charged(rating.rate(table(), "gpt-5-2025-08-07", "standard", "completed", usage, NOON))
    assert charge == Charge(
        pico=789_722_222_432,
        rates=2,
        model="gpt-5",
        tier="standard",
        above_input_tokens=0,
        lines=(
            ChargeLine("input_tokens", 1155, 277777778, 320_833_333_590),
            ChargeLine("output_tokens", 211, 2222222222, 468_888_888_842),
        ),
    )
    assert split_pico(0, charge.pico) == (789_722, 222_432)


def test_the_reference_request_costs_what_the_table_of_section_5_4_says() -> None:
    """Per 1,000 requests of 700 uncached, 300 cached, 250 out: 758.3 and 1,320.0 CU at market."""
    usage = {"input_tokens": 1000, "cache_read_tokens": 300, "output_tokens": 250}
    both = table(sonnet={"standard": {0: SONNET}})
    assert charged(rating.rate(both, "gpt-5", "standard", "completed", usage, NOON)).pico == 758_333_333_500
    assert charged(rating.rate(both, "sonnet", "standard", "completed", usage, NOON)).pico == 1_320_000_000_250


def test_a_subset_without_a_rate_costs_what_its_parent_costs() -> None:
    with_reasoning = {"input_tokens": 10, "cache_read_tokens": 10, "cache_audio_read_tokens": 4, "output_tokens": 300}
    charge = charged(
        rating.rate(table(), "gpt-5", "standard", "truncated", {**with_reasoning, "output_reasoning_tokens": 192}, NOON)
    )
    assert {(line.meter, line.units, line.rate) for line in charge.lines} == {
        ("cache_read_tokens", 6, 27777778),
        ("output_tokens", 108, 2222222222),
        ("cache_audio_read_tokens", 4, 27777778),
        ("output_reasoning_tokens", 192, 2222222222),
    }
    assert charge.pico == charged(rating.rate(table(), "gpt-5", "standard", "completed", with_reasoning, NOON)).pico


@pytest.mark.parametrize(("tokens", "above", "rate"), [(272000, 0, 277777778), (272001, 272000, 555555556)])
def test_the_whole_request_is_charged_at_the_band_strictly_below_its_input(tokens: int, above: int, rate: int) -> None:
    usage = {"input_tokens": tokens, "cache_read_tokens": 200_000}
    charge = charged(rating.rate(table(), "gpt-5", "standard", "completed", usage, NOON))
    assert charge.above_input_tokens == above
    assert ChargeLine("input_tokens", tokens - 200_000, rate, (tokens - 200_000) * rate) in charge.lines


def test_a_per_request_rate_is_implied_once_and_is_never_reported() -> None:
    flat = table(search={"standard": {0: {"requests": 5_000_000, "input_tokens": 1}}})
    empty = charged(rating.rate(flat, "search", "standard", "completed", {}, NOON))
    assert empty.lines == (ChargeLine("requests", 1, 5_000_000, 5_000_000),)
    assert rating.rate(flat, "search", "standard", "completed", {"requests": 1}, NOON) == Refusal(
        "unknown_meter", "requests"
    )


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 0, "output_tokens": 0}, {"web_searches": 0}])
def test_a_completed_record_without_units_is_charged_nothing(usage: dict[str, int]) -> None:
    charge = charged(rating.rate(table(), "gpt-5", "standard", "completed", usage, NOON))
    assert (charge.pico, charge.lines) == (0, ())


def test_an_error_costs_nothing_and_is_still_checked() -> None:
    flat = table(search={"standard": {0: {"requests": 5_000_000, "input_tokens": 1}}})
    charge = charged(rating.rate(flat, "search", "standard", "errored", {"input_tokens": 10**12}, NOON))
    assert (charge.pico, charge.lines) == (0, ())
    assert rating.rate(flat, "search", "standard", "errored", {"pages": 1}, NOON) == Refusal("unknown_meter", "pages")


REFUSED: list[tuple[Refusal, dict[str, Any]]] = [
    (Refusal("unknown_model"), {"model": "gpt-5-2025-08-08", "tier": "x"}),
    (Refusal("unknown_tier"), {"tier": "batch", "outcome": "x"}),
    (Refusal("unknown_outcome"), {"outcome": "fine", "meters": {"x": 1}}),
    (Refusal("unknown_meter", "x"), {"meters": {"output_tokens": -1, "x": 0}}),
    (Refusal("negative_units", "output_tokens"), {"meters": {"web_searches": 1, "output_tokens": -1}}),
    (Refusal("unpriced_meter", "web_searches"), {"meters": {"web_searches": 1, "cache_read_tokens": 1}}),
    (Refusal("subset_above_whole", "input_tokens"), {"meters": {"cache_read_tokens": 1}}),
    (Refusal("subset_above_whole", "input_tokens"), {"meters": {"input_tokens": 9, "cache_read_tokens": 10}}),
    (
        Refusal("subset_above_whole", "input_tokens"),
        {"meters": {"input_tokens": 9, "cache_read_tokens": 5, "cache_write_tokens": 5}},
    ),
    (
        Refusal("subset_above_whole", "cache_read_tokens"),
        {"meters": {"input_tokens": 9, "cache_read_tokens": 5, "cache_audio_read_tokens": 6}},
    ),
    (Refusal("charge_too_large"), {"meters": {"output_tokens": 10**12}}),
]


@pytest.mark.parametrize(("refusal", "changes"), REFUSED)
def test_refusals_come_in_the_documented_order(refusal: Refusal, changes: dict[str, Any]) -> None:
    call: dict[str, Any] = {"model": "gpt-5", "tier": "standard", "outcome": "completed", "meters": {}}
    assert rating.rate(table(), **(call | changes), at=NOON) == refusal


def test_a_charge_may_be_exactly_the_largest_amount_the_books_hold() -> None:
    one = table(m={"standard": {0: {"output_tokens": 1}}})
    assert (
        charged(rating.rate(one, "m", "standard", "completed", {"output_tokens": MAX_AMOUNT}, NOON)).pico == MAX_AMOUNT
    )
    over = rating.rate(one, "m", "standard", "completed", {"output_tokens": MAX_AMOUNT + 1}, NOON)
    assert over == Refusal("charge_too_large")


VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rating.json").read_text("utf-8"))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["says"])
def test_our_vectors(case: dict[str, Any]) -> None:
    record = case["record"]
    further = [Multiplier("ask", multipliers.parse(text)) for text in case["further"]]
    found = rating.rate(
        rates.parse(canonical.encode(VECTORS["table"])),
        record["model"],
        record["tier"],
        record["outcome"],
        record["meters"],
        times.parse(record["at"]),
        further,
    )
    outcome = {"code": found.code} if isinstance(found, Refusal) else {"pico": str(found.pico)}
    assert outcome == {name: case[name] for name in ("code", "pico") if name in case}


def modified(**terms: Any) -> rates.RateTable:
    """A table whose model m has the usual two meters, and other terms."""
    value = document()
    band = {"above_input_tokens": 0, "rates": {"input_tokens": 100, "cache_read_tokens": 10, "output_tokens": 400}}
    tier = {"bands": [band]} | terms
    value["models"]["m"] = {"tiers": {"standard": tier}, "derivation": {"method": "test"}}
    return rates.parse(canonical.encode(value))


def excess(*steps: tuple[int, int]) -> rates.RateTable:
    bands = [{"above_input_tokens": 0, "rates": {"input_tokens": 100, "cache_read_tokens": 10, "output_tokens": 400}}]
    bands += [{"above_input_tokens": above, "rates": {"input_tokens": rate}} for above, rate in steps]
    return modified(bands=bands, context="excess")


@pytest.mark.parametrize(
    ("tokens", "lines"),
    [
        (200, []),
        (201, [ChargeLine("input_tokens", 1, 50, 50, 200)]),
        (500, [ChargeLine("input_tokens", 300, 50, 15_000, 200)]),
        (501, [ChargeLine("input_tokens", 301, 50, 15_050, 200), ChargeLine("input_tokens", 1, 150, 150, 500)]),
    ],
)
def test_with_excess_only_the_units_above_a_threshold_pay_the_difference(tokens: int, lines: list[ChargeLine]) -> None:
    table = excess((200, 150), (500, 300))
    usage = {"input_tokens": tokens, "cache_read_tokens": 40, "output_tokens": 7}
    charge = charged(rating.rate(table, "m", "standard", "completed", usage, NOON))
    assert charge.above_input_tokens == 0
    assert [line for line in charge.lines if line.above_input_tokens] == lines
    assert charge.pico == (tokens - 40) * 100 + 40 * 10 + 7 * 400 + sum(line.pico for line in lines)


def test_a_minimum_tops_up_what_costs_less_but_never_an_error() -> None:
    table = modified(minimum=5_000)
    small = charged(rating.rate(table, "m", "standard", "completed", {"output_tokens": 12}, NOON))
    assert (small.pico, small.topped_up, small.par) == (5_000, 200, 5_000)
    assert charged(rating.rate(table, "m", "standard", "cancelled", {}, NOON)).pico == 5_000
    assert charged(rating.rate(table, "m", "standard", "errored", {}, NOON)).pico == 0
    large = charged(rating.rate(table, "m", "standard", "completed", {"output_tokens": 13}, NOON))
    assert (large.pico, large.topped_up) == (5_200, 0)


NIGHT = [
    {"from": "16:30", "until": "00:30", "multiplier": "0.5"},
    {"from": "08:00", "until": "09:00", "multiplier": "1.25"},
]


@pytest.mark.parametrize(
    ("clock", "pico"),
    [
        ("00:00:00", 1_350),
        ("00:29:59.999999", 1_350),
        ("00:30:00", 2_701),
        ("07:59:59.999999", 2_701),
        ("08:00:00", 3_376),
        ("09:00:00", 2_701),
        ("16:29:59", 2_701),
        ("16:30:00", 1_350),
        ("23:59:59.999999", 1_350),
    ],
)
def test_the_time_of_day_in_utc_multiplies_and_rounds_down(clock: str, pico: int) -> None:
    table = modified(hours=NIGHT, minimum=2_701)
    for day in ("2026-03-29", "2026-10-25"):  # clocks change in many places on these days, and not here
        at = datetime.fromisoformat(f"{day}T{clock}+00:00")
        charge = charged(rating.rate(table, "m", "standard", "completed", {"output_tokens": 1}, at))
        assert (charge.par, charge.pico) == (2_701, pico)


def test_multipliers_apply_one_after_the_other_and_each_rounds_down() -> None:
    table = modified(hours=[{"from": "12:00", "until": "13:00", "multiplier": "0.5"}])
    further = (Multiplier("ask", 9_999), Multiplier("demand", 10_000), Multiplier("standing", 20_000))
    charge = charged(rating.rate(table, "m", "standard", "completed", {"input_tokens": 1}, NOON, further))
    assert [each.name for each in charge.multipliers] == ["hours", "ask", "standing"]
    assert charge.pico == (100 // 2 * 9_999 // 10_000) * 2 == 98


def test_a_charge_that_is_too_large_at_any_step_is_refused() -> None:
    table = modified(hours=[{"from": "12:00", "until": "13:00", "multiplier": "100"}])
    usage = {"output_tokens": MAX_AMOUNT // 400 // 50}
    half = (Multiplier("ask", 2_500),)
    assert rating.rate(table, "m", "standard", "completed", usage, NOON, half) == Refusal("charge_too_large")
    evening = NOON + timedelta(hours=2)
    assert charged(rating.rate(table, "m", "standard", "completed", usage, evening, half)).pico > 0


def test_compiling_knows_the_same_models_and_tiers() -> None:
    assert rating.compile_model(table(), "nothing", "standard") == Refusal("unknown_model")
    assert rating.compile_model(table(), "gpt-5", "batch") == Refusal("unknown_tier")
    compiled = rating.compile_model(table(), "gpt-5-2025-08-07", "standard")
    assert isinstance(compiled, CompiledModel)
    assert compiled.model == "gpt-5"
    assert "requests" not in compiled.meters
    by_name = dict(zip(compiled.meters, compiled.bands[0].coefficients, strict=True))
    assert by_name["cache_read_tokens"] == 27777778 - 277777778
    assert by_name["output_reasoning_tokens"] == 0
    assert [compiled.meters[index] for index in compiled.unpriced] == ["web_searches"]


NAMES = [f"m{i}" for i in range(7)]


@st.composite
def rate_documents(draw: st.DrawFn) -> dict[str, Any]:
    """A rates/1 document with the model m and terms of every kind."""
    meters: dict[str, Any] = {"input_tokens": {"parent": None, "unit": "token"}}
    meters["requests"] = {"parent": None, "unit": "request"}
    for name in NAMES:
        parent = draw(st.sampled_from([None, *(meter for meter in meters if meter != "requests")]))
        meters[name] = {"parent": parent, "unit": "token"}
    roots = [name for name, meter in meters.items() if meter["parent"] is None]
    priced = set(draw(st.lists(st.sampled_from(roots), min_size=1, unique=True)))
    for name in NAMES:
        parent = meters[name]["parent"]
        while parent is not None and meters[parent]["parent"] is not None:
            parent = meters[parent]["parent"]
        if parent in priced and draw(st.booleans()):
            priced.add(name)
    starts = [0, *sorted(draw(st.sets(st.integers(1, 40), max_size=3)))]
    rate = st.integers(0, tiers.MAX_RATE)
    bands: list[Any] = [
        {"above_input_tokens": start, "rates": {name: draw(rate) for name in sorted(priced)}} for start in starts
    ]
    value = document() | {"meters": meters, "aliases": {}}
    terms: dict[str, Any] = {"bands": bands}
    if draw(st.booleans()) and "input_tokens" in priced:
        terms["context"] = "excess"
        for before, band in pairwise(bands):
            least = before["rates"]["input_tokens"]
            band["rates"] = {"input_tokens": draw(st.integers(least, tiers.MAX_RATE))}
    if draw(st.booleans()):
        terms["minimum"] = draw(st.integers(0, 10**15))
    if draw(st.booleans()):
        cuts = sorted(draw(st.sets(st.integers(0, 1439), min_size=2, max_size=2)))
        cuts = cuts[:: draw(st.sampled_from([1, -1]))]
        clocks = [f"{cut // 60:02}:{cut % 60:02}" for cut in cuts]
        value_at = multipliers.to_text(draw(st.integers(1, multipliers.MAX_MULTIPLIER)))
        terms["hours"] = [{"from": clocks[0], "until": clocks[1], "multiplier": value_at}]
    value["models"] = {"m": {"tiers": {"standard": terms}, "derivation": {"method": "test"}}}
    return value


def rate_tables() -> st.SearchStrategy[rates.RateTable]:
    return rate_documents().map(canonical.encode).map(rates.parse)


def linear(compiled: CompiledModel, usage: dict[str, int], at: datetime) -> int | str:
    """The linear form as its documentation tells a reader to apply it."""
    units = [usage.get(meter, 0) for meter in compiled.meters]
    if any(units[index] for index in compiled.unpriced):
        return "unpriced_meter"
    if any(sum(units[part] for part in parts) > units[whole] for whole, parts in compiled.subsets):
        return "subset_above_whole"
    context = 0 if compiled.context_meter is None else units[compiled.context_meter]
    band = [band for band in compiled.bands if band is compiled.bands[0] or band.above_input_tokens < context][-1]
    sums: int = band.per_request + sum(a * b for a, b in zip(band.coefficients, units, strict=True))
    sums += sum(max(context - above, 0) * more for above, more in compiled.excess)
    par = max(sums, compiled.minimum)
    pico = par * hour_of(compiled, at) // multipliers.ONE
    return pico if max(par, pico) <= MAX_AMOUNT else "charge_too_large"


def hour_of(compiled: CompiledModel, at: datetime) -> int:
    """The multiplier by another road: minutes counted on from the beginning of each part."""
    minute = at.hour * 60 + at.minute
    for part in compiled.hours:
        if (minute - part.since) % 1440 < (part.until - part.since) % 1440:
            return part.multiplier
    return multipliers.ONE


@st.composite
def usage_of(draw: st.DrawFn, table: rates.RateTable) -> dict[str, int]:
    """Totals that mostly hold their parts, with one that may not."""
    usage = {name: draw(st.integers(0, 12)) for name in table.meters if name != "requests"}
    for name in reversed(list(usage)):
        parent = table.meters[name].parent
        if parent is not None:
            usage[parent] += usage[name]
    if draw(st.booleans()):
        usage[draw(st.sampled_from(sorted(usage)))] = draw(st.integers(0, 10**7))
    return {name: units for name, units in usage.items() if units or draw(st.booleans())}


@settings(max_examples=400, deadline=None)
@given(rate_tables(), st.data())
def test_both_forms_agree_on_every_table_and_record(table: rates.RateTable, data: st.DataObject) -> None:
    usage = data.draw(usage_of(table))
    at = NOON + timedelta(minutes=data.draw(st.integers(0, 1439)))
    compiled = rating.compile_model(table, "m", "standard")
    assert isinstance(compiled, CompiledModel)
    scalar = rating.rate(table, "m", "standard", "completed", usage, at)
    if isinstance(scalar, Refusal):
        assert linear(compiled, usage, at) == scalar.code
        return
    assert linear(compiled, usage, at) == scalar.pico
    assert scalar.par == sum(line.pico for line in scalar.lines) + scalar.topped_up
    assert all(line.units > 0 and line.pico == line.units * line.rate for line in scalar.lines)
    reported = sum(usage.get(name, 0) for name, meter in table.meters.items() if meter.parent is None)
    own = [line for line in scalar.lines if line.meter != "requests" and not line.above_input_tokens]
    assert sum(line.units for line in own) == reported


def test_a_new_meter_and_a_new_tier_need_a_table_and_no_code() -> None:
    """A meter nobody has heard of, below a root of its own, and a tier of that name: charged, explained, compiled."""
    value = document()
    value["meters"] |= {
        "avatar_seconds": {"parent": None, "unit": "second"},
        "avatar_close_up_seconds": {"parent": "avatar_seconds", "unit": "second"},
    }
    rated = {"avatar_seconds": 7_000_000, "avatar_close_up_seconds": 9_000_000}
    tier = {"bands": [{"above_input_tokens": 0, "rates": rated}], "minimum": 20_000_000}
    value["models"]["face-1"] = {"tiers": {"weekend": tier}, "derivation": {"method": "council"}}
    found = rates.parse(canonical.encode(value))
    usage = {"avatar_seconds": 30, "avatar_close_up_seconds": 10}
    charge = charged(rating.rate(found, "face-1", "weekend", "completed", usage, NOON))
    assert charge.pico == 20 * 7_000_000 + 10 * 9_000_000
    compiled = rating.compile_model(found, "face-1", "weekend")
    assert isinstance(compiled, CompiledModel)
    assert linear(compiled, usage, NOON) == charge.pico
