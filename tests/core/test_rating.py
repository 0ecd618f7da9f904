"""Charges: the worked examples, every refusal, and the two forms of a charge that must agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import canonical, rates, rating
from settlement.core.rating import Charge, ChargeLine, CompiledModel, Refusal
from settlement.core.units import MAX_AMOUNT, split_pico
from tests.core.test_rates import document

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
    for name, tiers in models.items():
        bands = {
            tier: {"bands": [{"above_input_tokens": above, "rates": rated} for above, rated in steps.items()]}
            for tier, steps in tiers.items()
        }
        value["models"][name] = {"tiers": bands, "derivation": {"method": "test"}}
    return rates.parse(canonical.encode(value))


def charged(found: Charge | Refusal) -> Charge:
    assert isinstance(found, Charge), found
    return found


def test_the_worked_example_to_the_last_digit() -> None:
    usage = {"input_tokens": 1155, "output_tokens": 211}
    charge = charged(rating.rate(table(), "gpt-5-2025-08-07", "standard", "completed", usage))
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
    assert charged(rating.rate(both, "gpt-5", "standard", "completed", usage)).pico == 758_333_333_500
    assert charged(rating.rate(both, "sonnet", "standard", "completed", usage)).pico == 1_320_000_000_250


def test_a_subset_without_a_rate_costs_what_its_parent_costs() -> None:
    with_reasoning = {"input_tokens": 10, "cache_read_tokens": 10, "cache_audio_read_tokens": 4, "output_tokens": 300}
    charge = charged(
        rating.rate(table(), "gpt-5", "standard", "truncated", {**with_reasoning, "output_reasoning_tokens": 192})
    )
    assert {(line.meter, line.units, line.rate) for line in charge.lines} == {
        ("cache_read_tokens", 6, 27777778),
        ("output_tokens", 108, 2222222222),
        ("cache_audio_read_tokens", 4, 27777778),
        ("output_reasoning_tokens", 192, 2222222222),
    }
    assert charge.pico == charged(rating.rate(table(), "gpt-5", "standard", "completed", with_reasoning)).pico


@pytest.mark.parametrize(("tokens", "above", "rate"), [(272000, 0, 277777778), (272001, 272000, 555555556)])
def test_the_whole_request_is_charged_at_the_band_strictly_below_its_input(tokens: int, above: int, rate: int) -> None:
    usage = {"input_tokens": tokens, "cache_read_tokens": 200_000}
    charge = charged(rating.rate(table(), "gpt-5", "standard", "completed", usage))
    assert charge.above_input_tokens == above
    assert ChargeLine("input_tokens", tokens - 200_000, rate, (tokens - 200_000) * rate) in charge.lines


def test_a_per_request_rate_is_implied_once_and_is_never_reported() -> None:
    flat = table(search={"standard": {0: {"requests": 5_000_000, "input_tokens": 1}}})
    empty = charged(rating.rate(flat, "search", "standard", "completed", {}))
    assert empty.lines == (ChargeLine("requests", 1, 5_000_000, 5_000_000),)
    assert rating.rate(flat, "search", "standard", "completed", {"requests": 1}) == Refusal("unknown_meter", "requests")


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 0, "output_tokens": 0}, {"web_searches": 0}])
def test_a_completed_record_without_units_is_charged_nothing(usage: dict[str, int]) -> None:
    charge = charged(rating.rate(table(), "gpt-5", "standard", "completed", usage))
    assert (charge.pico, charge.lines) == (0, ())


def test_an_error_costs_nothing_and_is_still_checked() -> None:
    flat = table(search={"standard": {0: {"requests": 5_000_000, "input_tokens": 1}}})
    charge = charged(rating.rate(flat, "search", "standard", "errored", {"input_tokens": 10**12}))
    assert (charge.pico, charge.lines) == (0, ())
    assert rating.rate(flat, "search", "standard", "errored", {"pages": 1}) == Refusal("unknown_meter", "pages")


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
    assert rating.rate(table(), **(call | changes)) == refusal


def test_a_charge_may_be_exactly_the_largest_amount_the_books_hold() -> None:
    one = table(m={"standard": {0: {"output_tokens": 1}}})
    assert charged(rating.rate(one, "m", "standard", "completed", {"output_tokens": MAX_AMOUNT})).pico == MAX_AMOUNT
    over = rating.rate(one, "m", "standard", "completed", {"output_tokens": MAX_AMOUNT + 1})
    assert over == Refusal("charge_too_large")


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
def tables(draw: st.DrawFn) -> rates.RateTable:
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
    rate = st.integers(0, rates.MAX_RATE)
    bands = [{"above_input_tokens": start, "rates": {name: draw(rate) for name in sorted(priced)}} for start in starts]
    value = document() | {"meters": meters, "aliases": {}}
    value["models"] = {"m": {"tiers": {"standard": {"bands": bands}}, "derivation": {"method": "test"}}}
    return rates.parse(canonical.encode(value))


def linear(compiled: CompiledModel, usage: dict[str, int]) -> int | str:
    """The linear form as its documentation tells a reader to apply it."""
    units = [usage.get(meter, 0) for meter in compiled.meters]
    if any(units[index] for index in compiled.unpriced):
        return "unpriced_meter"
    if any(sum(units[part] for part in parts) > units[whole] for whole, parts in compiled.subsets):
        return "subset_above_whole"
    context = 0 if compiled.context_meter is None else units[compiled.context_meter]
    band = [band for band in compiled.bands if band is compiled.bands[0] or band.above_input_tokens < context][-1]
    pico = band.per_request + sum(a * b for a, b in zip(band.coefficients, units, strict=True))
    return pico if pico <= MAX_AMOUNT else "charge_too_large"


@settings(max_examples=400, deadline=None)
@given(tables(), st.data())
def test_both_forms_agree_on_every_table_and_record(table: rates.RateTable, data: st.DataObject) -> None:
    own = {name: data.draw(st.integers(0, 12)) for name in table.meters if name != "requests"}
    usage = dict(own)
    for name in reversed(list(usage)):
        parent = table.meters[name].parent
        if parent is not None:
            usage[parent] += usage[name]
    if data.draw(st.booleans()):
        usage[data.draw(st.sampled_from(sorted(usage)))] = data.draw(st.integers(0, 10**7))
    usage = {name: units for name, units in usage.items() if units or data.draw(st.booleans())}
    compiled = rating.compile_model(table, "m", "standard")
    assert isinstance(compiled, CompiledModel)
    scalar = rating.rate(table, "m", "standard", "completed", usage)
    if isinstance(scalar, Refusal):
        assert linear(compiled, usage) == scalar.code
        return
    assert linear(compiled, usage) == scalar.pico
    assert scalar.pico == sum(line.pico for line in scalar.lines)
    assert all(line.units > 0 and line.pico == line.units * line.rate for line in scalar.lines)
    reported = sum(usage.get(name, 0) for name, meter in table.meters.items() if meter.parent is None)
    charged_units = sum(line.units for line in scalar.lines if line.meter != "requests")
    assert charged_units == reported
