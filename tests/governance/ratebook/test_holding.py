"""Tenfold moves wait for a person."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from governance.ratebook.holding import hold_back
from governance.ratebook.report import Held
from settlement.core import canonical
from tests.core.test_rates import document


def moved(rate: int) -> dict[str, Any]:
    models: dict[str, Any] = copy.deepcopy(document()["models"])
    models["gpt-5"]["tiers"]["standard"]["bands"][0]["rates"]["input_tokens"] = rate
    return models | {"new": copy.deepcopy(document()["models"]["gpt-5"])}


@pytest.mark.parametrize(
    ("rate", "held"), [(2777777780, True), (2777777779, False), (27777778, False), (27777777, True), (0, True)]
)
def test_a_model_that_would_move_tenfold_stays_as_it_was(rate: int, held: bool) -> None:
    models, previous = moved(rate), canonical.encode(document())
    found = hold_back(models, previous, ())
    assert found == ([Held("gpt-5", "standard", "input_tokens", 277777778, rate)] if held else [])
    stays = models["gpt-5"] == document()["models"]["gpt-5"]
    assert stays == held
    assert "new" in models


def test_further_bands_are_looked_at_too() -> None:
    previous = canonical.encode(document())
    models: dict[str, Any] = copy.deepcopy(document()["models"])
    bands = models["gpt-5"]["tiers"]["standard"]["bands"]
    far = bands[-1] | {"above_input_tokens": 10**6, "rates": bands[-1]["rates"] | {"output_tokens": 10**13}}
    models["gpt-5"]["tiers"]["standard"]["bands"] = [*bands, far]
    (found,) = hold_back(models, previous, ())
    assert (found.meter, found.new) == ("output_tokens", 10**13)
    assert models == document()["models"]


def test_a_person_may_accept_it() -> None:
    models = moved(1)
    assert hold_back(models, canonical.encode(document()), {"gpt-5"}) == []
    assert models["gpt-5"]["tiers"]["standard"]["bands"][0]["rates"]["input_tokens"] == 1
