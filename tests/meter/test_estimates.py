"""Our own count of tokens: the same for all who hold the same bytes, never zero for text, never above its bytes."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.meter.estimates import TOKENS_PER_KILOBYTE, Text, input_tokens
from settlement.meter.exchanges import read_exchanges
from settlement.meter.normaliser import normalise
from tests.shared import shared

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "meter.md"


def counted(*pieces: str) -> Text:
    text = Text()
    for piece in pieces:
        text.add(piece)
    return text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("word " * 200, 230),
        ("x = f(a[1]); " * 100, 403),
        ("日本語" * 100, 306),
        ("слово " * 100, 423),
    ],
)
def test_an_estimate_follows_the_bytes_and_their_class(text: str, tokens: int) -> None:
    assert counted(text).tokens() == tokens


def test_a_models_own_figures_count_first() -> None:
    assert counted("word " * 200).tokens({"english": "500"}) == 500
    assert counted("日" * 200).tokens({"english": "500"}) == counted("日" * 200).tokens()


@given(st.lists(st.text(), max_size=5))
def test_pieces_count_like_the_whole_and_stay_between_one_and_their_bytes(pieces: list[str]) -> None:
    apart, whole = counted(*pieces), counted("".join(pieces))
    assert (apart.size, apart.tokens()) == (whole.size, whole.tokens())
    assert apart.size == len("".join(pieces).encode("utf-8", "surrogatepass"))
    assert (0 < apart.tokens() <= apart.size) or not apart.size


def test_input_counts_messages_parts_and_tools_and_no_pictures() -> None:
    words = "word " * 200
    parts = [{"type": "text", "text": words}, {"type": "image_url", "image_url": {"url": "data:" + "A" * 9000}}]
    assert input_tokens({"messages": [{"role": "user", "content": words}]}) == 234
    assert input_tokens({"messages": [{"role": "user", "content": parts}]}) == 234
    assert input_tokens({"prompt": words}) == 230
    assert input_tokens({"input": [words, words]}) == 460
    tools = [{"type": "function", "function": {"name": "f", "description": words}}]
    assert input_tokens({"messages": [], "tools": tools}) > 200


@pytest.mark.shared
def test_the_error_on_recorded_answers_is_what_the_page_says() -> None:
    """Characters of answers against their output without reasoning: the recordings keep no text, so all is English."""
    ratios = []
    for exchange in read_exchanges(shared("usage/interactions.jsonl.gz").read_bytes()):
        meters = normalise(exchange).meters
        visible = meters.get("output_tokens", 0) - meters.get("output_reasoning_tokens", 0)
        chars = exchange.output_chars or 0
        if chars >= 200 and visible >= 50 and not any("audio" in meter or "image" in meter for meter in meters):
            ratios.append(-(-chars * int(TOKENS_PER_KILOBYTE["english"]) // 1000) / visible)
    deciles = statistics.quantiles(ratios, n=10)
    found = [len(ratios), *(round(each, 2) for each in (deciles[0], statistics.median(ratios), deciles[8]))]
    assert f"```json estimate-error\n{json.dumps(found)}\n```" in PAGE.read_text("utf-8")
