"""Records with the same meters, charged as one matrix, cost what each costs by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.core import linear, rates, rating
from settlement.core.linear import LinearForm
from settlement.core.rating import CompiledModel, Refusal
from settlement.core.usage import MAX_UNITS
from tests.core.test_rating import rate_tables, table, usage_of
from tests.world import START


def compiled(drawn: rates.RateTable) -> CompiledModel:
    found = rating.compile_model(drawn, "m", "standard")
    assert isinstance(found, CompiledModel)
    return found


@settings(max_examples=150)
@given(rate_tables(), st.data())
def test_a_matrix_costs_what_its_rows_cost(drawn: rates.RateTable, data: st.DataObject) -> None:
    """In any order of meters, with some left out, and with units up to the largest."""
    usage = data.draw(usage_of(drawn))
    meters = tuple(data.draw(st.permutations(sorted(usage))))
    scale = st.sampled_from([0, 1, 2, 10**6, MAX_UNITS // (max([*usage.values(), 1]))])
    rows = [{meter: usage[meter] * factor for meter in meters} for factor in data.draw(st.lists(scale, min_size=1))]
    form = linear.linear_form(compiled(drawn), meters)
    assert isinstance(form, LinearForm)
    matrix = np.array([list(row.values()) for row in rows], np.int64).reshape(len(rows), len(meters))
    found = form.charges(matrix).tolist()
    for row, charge in zip(rows, found, strict=True):
        expected = rating.rate(drawn, "m", "standard", "completed", row, START)
        if isinstance(expected, rating.Charge):
            assert charge == expected.par
        elif expected.code == "unpriced_meter":
            assert any(row[meters[column]] for column in form.unpriced)
        elif expected.code == "subset_above_whole":
            assert any(
                sum(row[meters[part]] for part in parts) > (0 if whole is None else row[meters[whole]])
                for _, whole, parts in form.subsets
            )
        else:
            assert expected == Refusal("charge_too_large")
            assert charge == -1 or form.compiled.hours  # at par it fits, and not at its hour


def test_a_meter_that_the_table_lacks_is_named() -> None:
    found = rating.compile_model(table(), "gpt-5", "standard")
    assert isinstance(found, CompiledModel)
    assert linear.linear_form(found, ("input_tokens", "smells")) == Refusal("unknown_meter", "smells")
