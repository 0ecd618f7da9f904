"""What changes from one table to the next."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from governance.ratebook.diff import Change, difference
from settlement.core import canonical, rates
from tests.core.test_rates import document


def tables(**changes: Any) -> tuple[rates.RateTable, rates.RateTable]:
    old, new = document(), copy.deepcopy(document())
    for each, counts in ((old, "200"), (new, changes.get("tokens", "200"))):
        each["models"]["gpt-5"]["tokens_per_kilobyte"] = {"english": counts}
    tier = new["models"]["gpt-5"]["tiers"]["standard"]
    tier["bands"][0]["rates"] |= changes.get("rates", {})
    tier |= changes.get("terms", {})
    new["models"] |= changes.get("models", {})
    return rates.parse(canonical.encode(old)), rates.parse(canonical.encode(new))


def test_nothing_changes_from_a_table_to_itself() -> None:
    found = difference(*tables())
    assert not any((found.added, found.removed, found.changed, found.terms, found.tokens))


@pytest.mark.parametrize(
    ("rate", "percent"), [(333333333, "+19.9"), (222222222, "-20.1"), (277777779, "0"), (555555556, "+100")]
)
def test_a_rate_that_moves_is_shown_in_percent(rate: int, percent: str) -> None:
    (change,) = difference(*tables(rates={"input_tokens": rate})).changed
    assert change == Change("gpt-5", "standard", 0, "input_tokens", 277777778, rate)
    assert change.percent == percent


def test_models_and_terms_are_shown() -> None:
    other = copy.deepcopy(document()["models"]["gpt-5"])
    found = difference(*tables(models={"gpt-6": other}, terms={"minimum": 7}))
    assert (found.added, found.removed, found.terms) == (("gpt-6",), (), (("gpt-5", "standard"),))
    back = difference(*reversed(tables(models={"gpt-6": other})))
    assert (back.added, back.removed) == ((), ("gpt-6",))


@pytest.mark.parametrize(("tokens", "moved"), [("206", False), ("206.1", True), ("193.9", True), ("194", False)])
def test_another_tokeniser_is_another_model(tokens: str, moved: bool) -> None:
    assert difference(*tables(tokens=tokens)).tokens == (("gpt-5",) if moved else ())
