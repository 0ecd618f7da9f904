"""SDK calls that hide a retry, a wait or a choice of slot are banned: each submission is recorded (decision 7)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.source import Found, broken

BANNED = {"submit_and_wait", "autofill", "autofill_and_sign", "submit_transaction", "submit_transaction_async"}
IN_ADAPTERS = BANNED | {"sign_and_submit", "load_account", "fetch_base_fee"}
"""Where an SDK is at hand, also the names that mean something else elsewhere."""


def banned_calls(tree: ast.Module, banned: set[str] = IN_ADAPTERS) -> Iterator[Found]:
    """The names, however they are reached."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in banned:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Name) and node.id in banned:
            yield node.lineno, node.id
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                if name.name in banned:
                    yield node.lineno, name.name


def streams(tree: ast.Module) -> Iterator[Found]:
    """A stream of an SDK reconnects and skips on its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "stream":
            yield node.lineno, ast.unparse(node.func)


def test_no_banned_calls() -> None:
    """Nowhere in the product."""
    assert broken(banned_calls, "adapters") == []
    assert broken(lambda tree: banned_calls(tree, BANNED), "settlement", "governance") == []


def test_no_streams_in_adapters() -> None:
    """An adapter pages through ledgers by number; outside adapters `.stream(` is a database cursor."""
    assert broken(streams, "adapters") == []


@pytest.mark.parametrize(
    "snippet", ["client.submit_transaction(x)", "from xrpl.transaction import autofill", "submit_and_wait(x)"]
)
def test_banned_calls_are_found(snippet: str) -> None:
    """The rule can fail."""
    assert list(banned_calls(ast.parse(snippet)))


def test_streams_are_found() -> None:
    """The rule can fail."""
    assert list(streams(ast.parse("async for x in server.payments().stream(): pass")))
