"""Amounts are integers. A float loses microCU silently, and `/` makes one out of two integers (decision 1)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import Found, broken, modules, strings

WITH_MONEY = ("settlement/core", "settlement/storage", "settlement/services", "settlement/chain.py")
PLACES = (*WITH_MONEY, "settlement/client", "adapters", "governance")
NO_MONEY = {
    "settlement/storage/embedded.py": "waits for processes in seconds and joins paths",
    "settlement/storage/binaries.py": "finds programs and joins paths",
    "governance/stability.py": "statistics of finished series and simulated prices; amounts come from core/value.py",
    "governance/ratebook/fit.py": "statistics of posted prices; what leaves is rounded to hundredths",
}
FRACTIONS = {"settlement/core/policy.py": ("micro_per_unit",)}
"""Functions that divide exact Fractions."""
FLOATING = re.compile(r"float\d*|true_divide|divide|mean|average|longdouble|half|single|double")
IN_SQL = re.compile(r"\b(double precision|float[48]|::\s*(float|real))\b", re.IGNORECASE)


def floats(tree: ast.Module) -> Iterator[Found]:
    """Float literals, the type, numpy's floats and means, and SQL's floats."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (float, complex)):
            yield node.lineno, f"the float {node.value}"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield node.lineno, "the type float"
        elif isinstance(node, ast.Attribute) and FLOATING.fullmatch(node.attr):
            yield node.lineno, f"{ast.unparse(node)}, which makes floats"
    for line, text in strings(tree):
        if match := IN_SQL.search(text):
            yield line, f"SQL with {match.group()}"


def divisions(tree: ast.Module) -> Iterator[Found]:
    """Every `/` and `/=`, but for joining a path: one with a string, or one that begins with `Path(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div):
            yield node.lineno, "/="
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not _joins_path(node):
            yield node.lineno, f"`{ast.unparse(node)}`"


def _joins_path(node: ast.BinOp) -> bool:
    if any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (node.left, node.right)):
        return True
    left = node.left
    while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div):
        left = left.left
    return isinstance(left, ast.Call) and isinstance(left.func, ast.Name) and left.func.id == "Path"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _inexact_divisions(path: str, tree: ast.Module) -> list[Found]:
    exact = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in FRACTIONS.get(path, ())
    ]
    return [
        (line, what)
        for line, what in divisions(tree)
        if not any(function.lineno <= line <= (function.end_lineno or 0) for function in exact)
    ]


def test_no_floats() -> None:
    """No float comes near an amount."""
    assert broken(floats, *PLACES, exempt=frozenset(NO_MONEY)) == []


def test_no_true_division() -> None:
    """Amounts are divided by `//` or `divmod`, or as Fractions in a function that is named above."""
    wrong = [
        f"{module.path}:{line}: {what}"
        for module in modules(*PLACES)
        if module.path not in NO_MONEY
        for line, what in _inexact_divisions(module.path, module.tree)
    ]
    assert wrong == []


def test_exemptions_are_needed() -> None:
    """An exemption whose reason has gone is removed, so that it cannot hide something else later."""
    for path in NO_MONEY:
        (module,) = modules(path)
        assert [*floats(module.tree), *divisions(module.tree)], path
    for path in FRACTIONS:
        (module,) = modules(path)
        assert list(divisions(module.tree)), path


@pytest.mark.parametrize(
    "snippet",
    [
        "x = 1.5",
        "x = float(y)",
        "def f(x: float): ...",
        "np.float64(x)",
        "x.mean()",
        "SQL = 'SELECT a::float'",
        "x = 1j",
    ],
)
def test_floats_are_found(snippet: str) -> None:
    """The rule can fail."""
    assert list(floats(ast.parse(snippet)))


@pytest.mark.parametrize("snippet", ["x = a / b", "x /= 2", "x = amount / 10**6", "x = f() / 2", "x = a / b / c"])
def test_divisions_are_found(snippet: str) -> None:
    """The rule can fail."""
    assert list(divisions(ast.parse(snippet)))


@pytest.mark.parametrize("snippet", ["p = folder / 'x'", "p = folder / f'{x}.db'", "p = Path(x) / y / z", "x = a // b"])
def test_paths_and_whole_division_pass(snippet: str) -> None:
    """Joining paths and dividing integers is no true division."""
    assert not list(divisions(ast.parse(snippet)))
