"""The code knows no vendor and no address: vendors come from the rate table, addresses from the configuration."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import PACKAGES, Found, broken, modules, strings

VENDORS = re.compile(
    r"(?<![a-z])(openai|anthropic|claude|gemini|mistral|deepseek|xai|cohere|groq|bedrock|fireworks|perplexity"
    r"|moonshot|alibaba|qwen|openrouter)(?![a-z])",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"\b(https?|wss?|nats|redis)://\w|(?<![\w.])(\d{1,3}(\.\d{1,3}){3})(?![\w.])", re.IGNORECASE)
LOOPBACK = re.compile(r"(127\.0\.0\.1|0\.0\.0\.0)")
NAMES_OF_THINGS = ("https://json-schema.org/", "https://hooks.example/")
"""Identifiers that look like addresses; nobody calls them."""


def addresses(tree: ast.Module) -> Iterator[Found]:
    """Literal hosts of URLs, and IPv4 addresses, in the code's strings; our own machine is nobody's address."""
    for line, text in strings(tree):
        for match in ADDRESS.finditer(text):
            if not LOOPBACK.fullmatch(match.group()) and not text.startswith(NAMES_OF_THINGS):
                yield line, text[:60]


def test_no_vendor_names() -> None:
    """Not in the code, not in its comments. (`governance` reads published price lists, which have vendors.)"""
    wrong = [
        f"{module.path}:{number}: {match.group()}"
        for module in modules("settlement", "adapters")
        for number, line in enumerate(module.text.splitlines(), 1)
        if (match := VENDORS.search(line))
    ]
    assert wrong == []


def test_no_addresses() -> None:
    """Nothing that is shipped calls a place that nobody configured."""
    assert broken(addresses, *PACKAGES) == []


@pytest.mark.parametrize("line", ["OPENAI_KEYS = 1", "# as Anthropic does", "x = 'groq'", "class Gemini: ..."])
def test_vendor_names_are_found(line: str) -> None:
    """The rule can fail."""
    assert VENDORS.search(line)


@pytest.mark.parametrize(
    "snippet", ["x = 'https://rpc.example'", "x = '10.1.2.3'", "x = f'wss://node.example:{port}/x'"]
)
def test_addresses_are_found(snippet: str) -> None:
    """The rule can fail."""
    assert list(addresses(ast.parse(snippet)))
