"""The definition of a CU, and the worked table of the design from its stated inputs, within its rounding."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from governance.ratebook import methods
from governance.ratebook.methods import Architecture
from settlement.core.errors import Malformed

PI0 = Fraction("0.0045")
V3 = Architecture(Decimal(37), Decimal(671), 5_000_000)
LLAMA = Architecture(Decimal("70.6"), Decimal("70.6"), 2_620_000)
OSS = Architecture(Decimal("5.1"), Decimal("116.8"), 294_800)
"""Attention is given as the position at which it equals parameter work: 14,800, 53,900 and 34,600."""
BASKET = (V3, LLAMA, OSS)
TABLE = [
    (V3, "0.000485", "0.1367", "0.1552", "0.1078", "0.1293"),
    (LLAMA, "0.000769", "0.2488", "0.0857", "0.1708", "0.1210"),
    (OSS, "0.000235", "0.0182", "0.0464", "0.0522", "0.0492"),
]


def near(found: Decimal, stated: str, parts: str = "0.003") -> bool:
    """Within the half unit of the last stated digit, or what exponents rounded to hundredths leave open."""
    last = Decimal(1).scaleb(-len(stated.partition(".")[2])) / 2
    return abs(found - Decimal(stated)) <= max(last, Decimal(stated) * Decimal(parts))


@pytest.mark.parametrize(("architecture", "usd", "flop", "hedonic", "market", "weight"), TABLE)
def test_the_worked_table(
    architecture: Architecture, usd: str, flop: str, hedonic: str, market: str, weight: str
) -> None:
    scale = methods.hedonic_scale(BASKET)
    found = methods.blend(architecture, Fraction(usd), PI0, methods.ALPHA["open_many"], scale)
    assert near(found.flop, flop, "0")
    assert near(found.market, market, "0.0006")  # the stated USD has three digits
    assert near(found.hedonic, hedonic)
    assert near(found.weight, weight)


def test_the_attention_of_the_files_is_that_of_the_design() -> None:
    """2 N = A n at these positions, rounded as the design states them."""
    positions = {"deepseek-v3": 14_800, "gpt-oss-120b": 34_600, "llama-3.3-70b": 53_900}
    for name, position in positions.items():
        each = methods.open_weights()[name]
        assert round(2 * each.active * methods.BILLION / each.attention, -2) == position


@pytest.mark.parametrize(
    ("prices", "usd", "cu", "rates"),
    [
        (("0.27", "0.07", "1.10"), "0.000485", "0.1078", None),
        (("1.25", "0.125", "10"), "0.0034125", "0.7583", (278, 28, 2_222)),
        (("3", "0.3", "15"), "0.00594", "1.3200", (667, 67, 3_333)),
    ],
)
def test_closed_models_are_worth_what_the_market_says(
    prices: tuple[str, str, str], usd: str, cu: str, rates: tuple[int, int, int] | None
) -> None:
    found = methods.usd_of_request(*map(Fraction, prices))
    assert found == Fraction(usd)
    assert near(Decimal(str(float(methods.market(found, PI0)))), cu, "0")
    if rates is not None:
        assert tuple(round(Fraction(price) / PI0) for price in prices) == rates


def test_blended_rates_keep_the_prices_proportions() -> None:
    """DeepSeek-V3: 72 / 19 / 293 microCU per token, and together the weight of the reference request."""
    found = methods.blend(V3, Fraction("0.000485"), PI0, Decimal("0.5"), methods.hedonic_scale(BASKET))
    rates = [Fraction(price) / PI0 * found.factor for price in ("0.27", "0.07", "1.10")]
    assert [round(rate) for rate in rates] == [72, 19, 293]
    together = 700 * rates[0] + 300 * rates[1] + 250 * rates[2]
    assert abs(together / 10**6 - Fraction(found.weight)) < Fraction(1, 10**6)


@pytest.mark.parametrize(("rates", "weight"), [((93, 93, 113), 121_000), ((26, Fraction("2.6"), 121), 49_200)])
def test_the_stated_rates_add_up_to_the_stated_weights(rates: tuple[Fraction, ...], weight: int) -> None:
    together = 700 * rates[0] + 300 * rates[1] + 250 * rates[2]
    assert abs(together - weight) < 1_000, "each rate was rounded to a microCU"


def test_a_cu_in_plain_words() -> None:
    """About 12,700 uncached input tokens of DeepSeek-V3, or 6,950 of Llama-3.3-70B."""
    assert round(methods.FLOP_PER_CU / methods.flop_per_token(V3), -2) == 12_700
    assert round(methods.FLOP_PER_CU / methods.flop_per_token(LLAMA), -1) == 6_950
    assert methods.TOKEN_EQUIVALENTS == 1_730


def test_compute_based_rates_follow_the_token_equivalents() -> None:
    rates = methods.flop_rates(LLAMA)
    assert rates["output_tokens"] == 4 * rates["input_tokens"]
    assert rates["cache_read_tokens"] * 10 == rates["input_tokens"]
    exact = 700 * rates["input_tokens"] + 300 * rates["cache_read_tokens"] + 250 * rates["output_tokens"]
    assert abs(Fraction(exact, 10**12) - methods.flop(LLAMA)) < Fraction(1, 10**8)


def test_the_basket_has_the_same_geometric_mean_by_effort_and_by_hedonics() -> None:
    scale = methods.hedonic_scale(BASKET)
    logs = [methods.hedonic(each, scale).ln() - Decimal(str(float(methods.flop(each)))).ln() for each in BASKET]
    assert abs(sum(logs, Decimal(0))) < Decimal("1e-12")
    with pytest.raises(Malformed, match="basket_too_small"):
        methods.hedonic_scale(BASKET[:2])


def test_alpha_is_chosen_for_a_class() -> None:
    hosts = {0: "0.75", 1: "0.75", 4: "0.75", 5: "0.5", 44: "0.5"}
    assert {number: str(methods.alpha_of(V3, number)) for number in hosts} == hosts
    assert methods.alpha_of(None, 44) == 0
    assert methods.ALPHA["gpu_second"] == 1


@pytest.mark.parametrize("alpha", ["0", "1"])
def test_alpha_at_its_ends_is_one_method_alone(alpha: str) -> None:
    found = methods.blend(OSS, Fraction("0.000235"), PI0, Decimal(alpha), methods.hedonic_scale(BASKET))
    alone = found.market if alpha == "0" else found.hedonic
    assert abs(found.weight - alone) < Decimal("1e-40")
    assert alpha == "1" or found.factor == 1


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "llama-3.3-70b"),
        ("gpt-oss-120b", "gpt-oss-120b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("deepseek-r1-distill-llama-70b", None),
        ("gpt-5", None),
    ],
)
def test_catalogue_ids_are_compared_in_full(model: str, name: str | None) -> None:
    found = methods.architecture_of(model)
    assert (found and found[0]) == name


def test_every_open_weight_figure_says_where_it_was_read() -> None:
    found = json.loads((Path(methods.__file__).parent / "open_weights.json").read_text("utf-8"))
    assert all(each["source"] for each in found["models"].values())
